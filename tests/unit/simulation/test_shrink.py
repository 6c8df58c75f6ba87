"""A failing seed is made small, and written as a scenario that still fails."""

from __future__ import annotations

from typing import Any

import msgspec

from experiments.scenario import Impair, Kill, LinkDown, Partition, Raft, Scenario, parse
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import play_seed
from experiments.simulation.shrink import shrink, to_toml
from tests.unit.simulation.test_world import MS, SECOND, short
from topologies.impairment import Impairment

ISOLATED = Partition((("leader",), ("others",)), SECOND, 2 * SECOND)
OTHERS: tuple[Any, ...] = (
    Impair(("leaf1>spine1",), Impairment(delay=20 * MS, jitter=5 * MS, loss=0.1), 500 * MS, SECOND),
    LinkDown(("leaf2-*",), 3500 * MS, 500 * MS),
    Kill(("n2",), 4 * SECOND, 100 * MS),
)


def test_only_the_fault_that_matters_is_left_and_a_workload_as_small_as_may_be() -> None:
    def breaks(scenario: Scenario) -> str | None:
        cut = any(isinstance(fault, Partition) and fault.lasts >= 300 * MS for fault in scenario.faults)
        return "linearizable" if cut and scenario.workload.rate > 10 else None

    small = shrink(short(OTHERS[0], ISOLATED, *OTHERS[1:], seconds=20), breaks=breaks)
    assert small is not None
    (fault,) = small.faults
    assert 300 * MS <= fault.lasts < 600 * MS
    assert (small.workload.clients, small.workload.keys) == (2, 1)
    assert 10 < small.workload.rate <= 20
    assert small.duration < 4 * SECOND


def test_what_breaks_nothing_cannot_be_shrunk() -> None:
    assert shrink(short(seconds=1), breaks=lambda scenario: None) is None


def test_what_was_shrunk_still_breaks_the_same_promise_when_it_is_read_back_from_its_file() -> None:
    system = Raft(implementation="tests.unit.simulation.mutant_kinds:AcksEarly")
    failing = next(
        scenario
        for seed in range(20)
        for scenario in [msgspec.structs.replace(short(ISOLATED, *OTHERS).with_seed(seed), system=system)]
        if play_seed(scenario).valid is False
    )
    small = shrink(failing, plays=15)
    assert small is not None
    assert len(small.faults) < len(failing.faults)
    again = parse(to_toml(small, "An acknowledged write is lost."))
    assert (again.faults, again.workload, again.system) == (small.faults, small.workload, small.system)
    assert play_seed(again).broken == play_seed(small).broken != []


def test_faults_of_every_kind_are_written_as_they_are_read_back() -> None:
    kinds: set[type] = set()
    for seed in range(40):
        scenario = with_random_faults(short(seconds=8).with_seed(seed))
        assert parse(to_toml(scenario, "")).faults == scenario.faults
        kinds.update(map(type, scenario.faults))
    assert len(kinds) == 13
