"""The report of systems without a leader: what each node was taken for, and their own figures."""

from __future__ import annotations

from experiments.checking.results import Detected, Detection, Staleness
from experiments.report import events, story
from experiments.report.record import TraceEvent

S = 1_000_000_000


def header(t: int) -> TraceEvent:
    return TraceEvent(t, "trace", protocol="swim")


def belief(t: int, member: str, standing: str) -> TraceEvent:
    return TraceEvent(t, "believe", member=member, standing=standing)


def lanes(**files: list[list[TraceEvent]]) -> dict[str, list[tuple[str, int, int, int]]]:
    return {
        lane.node: [(one.role, one.start // S, one.end // S, one.term) for one in lane.stretches]
        for lane in events.lanes(files, 0, (), 10 * S)
    }


def test_a_lane_shows_the_worst_that_anyone_takes_the_node_for_and_how_many_do() -> None:
    drawn = lanes(
        n1=[[header(0), belief(2 * S, "n3", "suspect"), belief(4 * S, "n3", "failed"), belief(7 * S, "n3", "alive")]],
        n2=[[header(0), belief(5 * S, "n3", "failed"), belief(8 * S, "n3", "alive")]],
        n3=[[header(0)]],
    )
    assert drawn["n1"] == [("up", 0, 10, 0)]
    assert drawn["n3"] == [
        ("up", 0, 2, 0),
        ("suspect", 2, 4, 1),
        ("failed", 4, 5, 1),
        ("failed", 5, 7, 2),
        ("failed", 7, 8, 1),
        ("up", 8, 10, 0),
    ]


def test_what_a_node_thought_ends_with_it() -> None:
    drawn = lanes(n1=[[header(0), belief(2 * S, "n2", "failed")], [header(4 * S)]], n2=[[header(0)]])
    assert drawn["n2"] == [("up", 0, 2, 0), ("failed", 2, 4, 1), ("up", 4, 10, 0)]


def test_figures_are_there_where_they_were_measured() -> None:
    assert story._staleness(None) == story._detection(None) == []
    (stale,) = story._staleness(Staleness(100, 7, 0, S, 2 * S))
    assert (stale.value, stale.note) == ("7", "missed writes up to 2\u202fs old")
    found = Detection([Detected(0, "n3", S, 2 * S, None)], 0, None, 0, None, 5.4, 6.0, None)
    assert [figure.value for figure in story._detection(found)] == ["2\u202fs", "0", "5.4/s"]
