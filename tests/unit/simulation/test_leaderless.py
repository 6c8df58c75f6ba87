"""Quorum stores, failure detectors and failing over in the simulator: what is shipped holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from apps.quorum import QuorumConfig
from experiments.checking.detector_properties import HeartbeatProperties, SwimProperties
from experiments.checking.failover_properties import FailoverProperties
from experiments.checking.node_checks import properties_of
from experiments.run import play
from experiments.scenario import Drift, Expect, Fault, Quorum, Register, Scenario, Skew, Swim, load
from experiments.simulation.campaign import prepared
from experiments.simulation.seed import Outcome, play_seed
from tests.unit.simulation import leaderless
from tests.unit.simulation.leaderless import MS
from topologies.leaf_spine import LeafSpine

SCENARIOS = Path(__file__).parents[3] / "experiments" / "scenarios"


def played(name: str) -> Outcome:
    return play_seed(load(SCENARIOS / f"{name}.toml"))


@pytest.mark.parametrize("name", ["detector-grey-link", "detector-one-way-loss", "failover-shards"])
def test_the_properties_of_detectors_and_failing_over_are_judged_from_the_traces_of_a_run(
    name: str, tmp_path: Path
) -> None:
    scenario = load(SCENARIOS / f"{name}.toml")
    run = play(scenario, tmp_path, "test", lambda stage, detail: None, "simulated")
    properties = properties_of(scenario.system)
    assert isinstance(properties, SwimProperties | HeartbeatProperties | FailoverProperties)
    found = {check.name: check for check in run.results.checks}
    assert {found[property].valid for property in properties.judged} == {True}
    if name == "detector-grey-link":
        assert "0 in all" not in found["IncarnationsAreOwn"].summary


def test_a_strict_store_refuses_what_a_partial_one_answers_from_the_past() -> None:
    strict, partial = played("quorum-partition-strict"), played("quorum-partition-partial")
    assert (strict.valid, partial.valid) == (True, True)
    assert strict.availability
    assert strict.availability.failed > 50
    assert strict.staleness is None  # it is linearizable, which says more
    assert partial.availability
    assert partial.availability.share == 1.0
    assert partial.staleness
    assert partial.staleness.stale > 50


def test_no_read_of_a_strict_store_of_siblings_misses_a_write_or_a_delete() -> None:
    system = Quorum(5, config=QuorumConfig(versions="siblings"))
    workload = Register(clients=5, rate=100.0, keys=2, mix={"read": 0.4, "write": 0.4, "delete": 0.2})
    expect = Expect(linearizable=False)
    partition = load(SCENARIOS / "quorum-partition-strict.toml").faults
    for seed in range(3):
        outcome = play_seed(
            Scenario("siblings", "", seed, 20_000 * MS, LeafSpine(2, 3, 4), system, workload, partition, expect)
        )
        assert outcome.valid is True
        assert outcome.staleness
        assert outcome.staleness.stale == 0
        assert outcome.staleness.siblings > 100


def strict(fault: Fault, seed: int) -> Scenario:
    """A strict store, not linearizable, whose last writer wins."""
    system = Quorum(5, config=QuorumConfig())
    workload = Register(clients=5, rate=100.0, keys=4, mix={"read": 0.5, "write": 0.5})
    expect = Expect(linearizable=False)
    return Scenario("strict", "", seed, 8_000 * MS, LeafSpine(2, 3, 4), system, workload, (fault,), expect)


CLOCK_FAULTS = {
    "drift by 1 %": Drift(("n1",), 1.01, 1_000 * MS, 5_000 * MS),
    "ahead": Skew(("n1",), 300 * MS, 0, 1_000 * MS, 5_000 * MS),
    "an hour behind": Skew(("n1", "n2"), -3_600_000 * MS, 0, 0, 6_000 * MS),
    "strobe": Skew(("n1",), 200 * MS, 50 * MS, 1_000 * MS, 5_000 * MS),
    "drift by 1 % the other way": Drift(("n1",), 0.99, 1_000 * MS, 5_000 * MS),
}


@pytest.mark.parametrize("fault", CLOCK_FAULTS.values(), ids=list(CLOCK_FAULTS))
def test_reads_of_a_strict_store_meet_all_acknowledged_writes_whatever_clocks_show(fault: Fault) -> None:
    for seed in range(4):
        outcome = play_seed(strict(fault, seed))
        assert outcome.valid is True, outcome.broken
        assert outcome.staleness
        assert (outcome.staleness.stale, outcome.lost_writes) == (0, 0)


def test_the_same_quorum_without_a_look_before_the_write_misses_some_once_clocks_differ() -> None:
    def played_as(quorum: Literal["partial", "strict"], *faults: Fault) -> Outcome:
        system = Quorum(5, config=QuorumConfig(n=3, r=2, w=2, quorum=quorum))
        scenario = msgspec.structs.replace(strict(CLOCK_FAULTS["drift by 1 %"], 1), system=system)
        return play_seed(msgspec.structs.replace(scenario, faults=faults))

    fast = Skew(("n1",), 300 * MS, 0, 1_000 * MS, 6_000 * MS)
    partial = played_as("partial", fast)
    assert partial.valid is True, partial.broken  # it has not promised otherwise
    assert partial.staleness
    assert partial.staleness.stale > 0
    for right in (played_as("partial"), played_as("strict", fast)):
        assert right.staleness
        assert right.staleness.stale == 0


def test_a_sloppy_store_serves_both_sides_of_a_partition_and_loses_nothing() -> None:
    sloppy = played("quorum-sloppy")
    assert sloppy.valid is True
    assert sloppy.availability
    assert (sloppy.availability.share, sloppy.lost_writes) == (1.0, 0)
    assert sloppy.staleness
    assert min(sloppy.staleness.stale, sloppy.staleness.siblings) > 50


@pytest.mark.parametrize("name", ["detector-grey-link", "detector-one-way-loss", "detector-slow-host"])
def test_failures_are_found_and_what_is_none_is_not_taken_for_one(name: str) -> None:
    outcome = played(name)
    assert outcome.valid is True, outcome.broken
    assert outcome.detection
    assert outcome.detection.detected
    assert outcome.detection.false_positives == 0


def test_without_lifeguard_a_slow_host_takes_others_for_failed() -> None:
    scenario = load(SCENARIOS / "detector-slow-host.toml")
    assert isinstance(scenario.system, Swim)
    plain = msgspec.structs.replace(scenario.system.config, local_health=False, dynamic_suspicion=False, buddy=False)
    scenario = msgspec.structs.replace(scenario, system=msgspec.structs.replace(scenario.system, config=plain))
    mistakes = [
        outcome.detection.false_positives
        for seed in range(13, 21)
        if (outcome := play_seed(scenario.with_seed(seed))).detection
    ]
    assert sum(mistakes) > 0


def test_shards_of_a_failed_node_are_served_by_others_and_given_back() -> None:
    assert played("failover-shards").valid is True


def test_stores_and_detectors_bear_random_faults() -> None:
    for scenario in (leaderless.store(), leaderless.group()):
        for seed in range(4):
            outcome = play_seed(prepared(scenario, seed, random_faults=True))
            assert outcome.valid is not False, outcome.broken


def test_a_node_that_dies_of_a_full_disk_as_it_starts_listens_to_nobody() -> None:
    """Seed 9342 of random faults: its dead incarnation went on dialling, and ended the campaign."""
    outcome = play_seed(prepared(load(SCENARIOS / "quorum-chaos.toml"), 9342, random_faults=True))
    assert outcome.valid is not False, outcome.broken
