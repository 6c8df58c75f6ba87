"""A detector is judged by what was true: by the faults, and not by what its members believe."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from experiments.checking.detection import detection_checks, measure, silences
from experiments.checking.fault_record import FaultRecord, Step
from experiments.checking.results import Detection
from experiments.checking.trace import Believe, Header, Load, Witness
from experiments.scenario import Expect

S = 1_000_000_000
MEMBERS = ("n1", "n2", "n3")
PLACES = {"n1": "h1", "n2": "h2", "n3": "h3"}
MEMORY = S // 2


def fault(kind: str, resolved: dict[str, Any], begin: int, end: int, expected: Any = None) -> FaultRecord:
    proved = Step(0, kind, "proved", begin * S, effective=True, expected=expected or {})
    applied = Step(0, kind, "applied", begin * S, resolved=resolved)
    return FaultRecord(0, kind, applied=applied, proved=proved, healed=Step(0, kind, "healed", end * S))


def saw(node: str, at: float, member: str, standing: Literal["alive", "suspect", "failed"]) -> Witness:
    return Witness(node, 0, 2, Believe(int(at * S), member, standing, 0))


def judged(faults: list[FaultRecord], *said: Witness) -> Detection:
    headers = [Witness(node, 0, 1, Header(0, 1, node, 0, "swim")) for node in MEMBERS]
    events = sorted([*headers, *said], key=lambda witness: witness.t)
    return measure(events, silences(faults, MEMBERS, PLACES), MEMBERS, 0, MEMORY)


KILLED = fault("kill", {"nodes": ["n3"]}, 5, 9)


def test_a_killed_member_is_found_by_the_first_and_by_all_and_is_back_when_all_have_noticed() -> None:
    found = judged(
        [KILLED],
        saw("n1", 6, "n3", "failed"),
        saw("n2", 7, "n3", "failed"),
        saw("n2", 10, "n3", "alive"),
        saw("n1", 11, "n3", "alive"),
    )
    (one,) = found.detected
    assert (one.first, one.last, one.back) == (S, 2 * S, 2 * S)
    assert found.false_positives == 0


def test_a_member_whom_somebody_never_gave_up_was_not_found_by_all() -> None:
    (one,) = judged([KILLED], saw("n1", 6, "n3", "failed")).detected
    assert (one.first, one.last, one.back) == (S, None, None)


def test_to_take_somebody_for_failed_who_can_be_reached_is_a_mistake_and_to_suspect_is_none() -> None:
    found = judged([], saw("n1", 1, "n2", "suspect"), saw("n1", 2, "n2", "failed"), saw("n1", 5, "n2", "alive"))
    assert (found.false_positives, found.longest_mistake, found.unresolved) == (1, 3 * S, 0)
    assert judged([], saw("n1", 1, "n2", "failed")).unresolved == 1


def test_who_refuses_to_start_again_is_gone_for_good_and_need_not_be_taken_back() -> None:
    healed = Step(0, "bit-flip", "healed", 9 * S, restarted={"n3": {"incarnation": 1, "refused": "its log is damaged"}})
    flipped = msgspec.structs.replace(fault("bit-flip", {"nodes": ["n3"]}, 5, 9), healed=healed)
    found = judged([flipped], saw("n1", 6, "n3", "failed"), saw("n2", 7, "n3", "failed"), saw("n1", 20, "n2", "alive"))
    assert (found.false_positives, found.unsettled, found.detected[0].last) == (0, None, 2 * S)
    assert all(check.valid for check in detection_checks(found, Expect(reinstatement=S), [flipped]))


def test_what_a_silence_led_to_just_after_it_is_no_mistake() -> None:
    assert judged([KILLED], saw("n1", 9.4, "n3", "failed")).false_positives == 0
    assert judged([KILLED], saw("n1", 9.6, "n3", "failed")).false_positives == 1


def test_parted_members_may_give_each_other_up_and_nobody_has_failed() -> None:
    reach = {one: {other: {one, other} != {"n1", "n2"} for other in MEMBERS if other != one} for one in MEMBERS}
    partial = fault("partition", {"groups": [["n1"], ["n2"]]}, 5, 9, reach)
    found = judged([partial], saw("n1", 6, "n2", "failed"), saw("n3", 6, "n2", "failed"))
    assert found.detected == []
    assert found.false_positives == 1  # n3 could reach it


def test_a_host_that_cannot_speak_has_failed_and_one_whose_link_loses_some_has_not() -> None:
    mute = fault("impair", {"directions": {"h3>leaf3": {"loss": 1.0}}}, 5, 9)
    grey = fault("impair", {"directions": {"h3>leaf3": {"loss": 0.3}}}, 5, 9)
    said = saw("n1", 6, "n3", "failed"), saw("n2", 6, "n3", "failed")
    assert judged([mute], *said).false_positives == 0
    assert judged([mute], *said).detected[0].last == S
    assert judged([grey], *said).false_positives == 2


def test_load_is_told_by_the_members_themselves() -> None:
    loads = [Witness("n1", 0, 2, Load(4 * S, 40, 38)), Witness("n2", 0, 2, Load(4 * S, 80, 78))]
    found = judged([], *loads)
    assert (found.messages_per_second, found.most_messages_per_second) == (15.0, 20.0)


def test_expectations_are_checked_and_what_nobody_expects_is_only_told() -> None:
    late = judged([KILLED], saw("n1", 6, "n3", "failed"), saw("n2", 8, "n3", "failed"), saw("n1", 7, "n2", "failed"))
    assert all(check.valid is True for check in detection_checks(late, Expect()))
    broken = {
        check.name
        for check in detection_checks(late, Expect(detection=2 * S, reinstatement=S, false_positives=0))
        if check.valid is False
    }
    assert broken == {"detection", "reinstatement", "false_positives"}
