"""A failing seed is made small, and written as a scenario that still fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments.folder import FolderError
from experiments.scenario import Expect, Impair, Kill, LinkDown, Partition, Raft, Scenario, parse, stretched
from experiments.simulation.command import simulate
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import play_seed
from experiments.simulation.shrink import Failure, failure, shrink, to_toml
from tests.unit.simulation.test_world import MS, SECOND, short
from topologies.impairment import Impairment

ISOLATED = Partition((("leader",), ("others",)), SECOND, 2 * SECOND)
OTHERS: tuple[Any, ...] = (
    Impair(("leaf1>spine1",), Impairment(delay=20 * MS, jitter=5 * MS, loss=0.1), 500 * MS, SECOND),
    LinkDown(("leaf2-*",), 3500 * MS, 500 * MS),
    Kill(("n2",), 4 * SECOND, 100 * MS),
)

LOST = Failure(["acknowledged_writes"])


def test_only_the_fault_that_matters_is_left_and_a_workload_as_small_as_may_be() -> None:
    def fails(scenario: Scenario) -> Failure | None:
        cut = any(isinstance(fault, Partition) and fault.lasts >= 300 * MS for fault in scenario.faults)
        return LOST if cut and scenario.workload.rate > 10 else None

    small = shrink(short(OTHERS[0], ISOLATED, *OTHERS[1:], seconds=20), fails=fails)
    assert small is not None
    (fault,) = small.faults
    assert 300 * MS <= fault.lasts < 600 * MS
    assert fault.at > ISOLATED.at
    assert (small.workload.clients, small.workload.keys) == (2, 1)
    assert 10 < small.workload.rate <= 20
    assert small.duration < 5 * SECOND


def test_of_two_faults_that_both_matter_the_first_is_moved_as_near_to_the_last_as_may_be() -> None:
    kill = Kill(("n2",), 4 * SECOND, 100 * MS)

    def fails(scenario: Scenario) -> Failure | None:
        kinds = {type(fault): fault for fault in scenario.faults}
        if len(kinds) < 2 or any(fault.lasts < 100 * MS for fault in scenario.faults):
            return None
        return LOST if kinds[Partition].at + kinds[Partition].lasts <= kinds[Kill].at else None

    small = shrink(short(ISOLATED, kill, seconds=6), fails=fails)
    assert small is not None
    cut, killed = small.faults
    assert 0 <= killed.at - cut.at - cut.lasts < 100 * MS
    assert killed == kill


def test_what_fails_otherwise_or_is_in_doubt_is_no_smaller_form_of_the_same_failure() -> None:
    late = Failure(["election: late"])
    assert late.is_shown_by(Failure(["ElectionSafety: # and # both lead term #", "election: late"]))
    assert not late.is_shown_by(Failure(["election: never"]))
    assert not late.is_shown_by(Failure(["election: late"], frozenset({"fault"})))
    assert not late.is_shown_by(None)
    doubted = Failure(["election: late"], frozenset({"fault", "acknowledged_writes"}))
    assert doubted.is_shown_by(Failure(["election: late"], frozenset({"fault"})))


def test_a_leader_that_comes_too_late_is_not_made_one_that_never_comes_by_a_cut_too_short_to_prove() -> None:
    scenario = short(ISOLATED, *OTHERS[1:])
    scenario = msgspec.structs.replace(scenario, expect=Expect(election=MS, recovery=3 * SECOND))
    assert failure(scenario) == Failure(["election: late"])
    small = shrink(scenario, plays=40)
    assert small is not None
    outcome = play_seed(small)
    assert outcome.broken[0].startswith("election: a new leader after ")
    assert outcome.doubts == []
    assert len(small.faults) == 1
    assert small.faults[0].lasts < ISOLATED.lasts


def test_a_finding_is_the_same_whoever_it_hit_and_whenever() -> None:
    system = Raft(implementation="tests.unit.simulation.mutant_kinds:AcksEarly")
    found = [failure(msgspec.structs.replace(short(seconds=2).with_seed(seed), system=system)) for seed in range(4)]
    assert {one.findings[0] for one in found if one} == {"CommittedByQuorum: # committed # when of # only # had it"}


def test_what_breaks_nothing_cannot_be_shrunk() -> None:
    assert shrink(short(seconds=1), fails=lambda scenario: None) is None


def test_what_was_judged_of_a_seed_with_random_faults_is_what_is_written() -> None:
    expected = Expect(election=MS, availability=0.999, leader_changes=0, recovery=2 * SECOND)
    asked = msgspec.structs.replace(short(seconds=8), expect=expected)
    drawn = with_random_faults(asked)
    assert drawn.expect != asked.expect
    for scenario in (asked, drawn, stretched(asked, 2.0)):
        again = parse(to_toml(scenario, ""))
        assert again.expect == (scenario.expect if scenario.time_scale == 1.0 else asked.expect)


def test_a_place_that_cannot_be_written_is_refused_before_any_seed_is_played(tmp_path: Path) -> None:
    for place in (tmp_path / "absent" / "small.toml", tmp_path):
        with pytest.raises(FolderError, match="choose another --shrink FILE"):
            simulate(Console(), short(), 1, 10**9, False, False, place)
    fine = tmp_path / "small.toml"
    assert simulate(Console(quiet=True), short(seconds=1), 1, 1, False, False, fine) == 0
    assert not fine.exists()  # nothing failed


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
