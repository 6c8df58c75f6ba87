"""Promises are checked while the evidence is being written, in an order in which causes come before effects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checking.live import LiveCheck, side_by_side
from experiments.checking.raft_properties import Violation
from experiments.checking.trace import TraceError, TraceReader
from experiments.emulation.watch import TraceWatch
from experiments.scenario import Raft


class Trace:
    """The trace of a node, written line by line."""

    def __init__(self, run: Path, node: str) -> None:
        self.path = run / "nodes" / node / "trace" / "0.ndjson"
        self.path.parent.mkdir(parents=True)
        self.say(1, "trace", schema=1, node=node, incarnation=0, protocol="raft")
        self.say(1, "started", term=0, vote=None, last=0, last_term=0)

    def say(self, t: int, ev: str, **keys: Any) -> None:
        self.write(json.dumps({"t": t, "ev": ev, **keys}) + "\n")

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)


@pytest.fixture
def told() -> list[Violation]:
    return []


@pytest.fixture
def watch(tmp_path: Path, told: list[Violation]) -> TraceWatch:
    return TraceWatch(tmp_path, ("n1", "n2"), LiveCheck(Raft(nodes=2), told.append))


def lead(trace: Trace, t: int, term: int) -> None:
    trace.say(t, "role", role="leader", term=term, last=0, last_term=0)


def test_a_violation_is_told_when_the_second_of_the_events_has_been_written(
    tmp_path: Path, watch: TraceWatch, told: list[Violation]
) -> None:
    one, other = Trace(tmp_path, "n1"), Trace(tmp_path, "n2")
    lead(one, 10, term=3)
    watch.update(now=20)
    assert (told, watch.leader(["n1", "n2"])) == ([], "n1")
    lead(other, 30, term=3)
    watch.update(now=40)
    assert [violation.property for violation in told] == ["ElectionSafety"]
    watch.update(now=50)
    assert len(told) == 1


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path, watch: TraceWatch) -> None:
    trace = Trace(tmp_path, "n1")
    trace.write('{"t": 9, "ev": "role", "role": "lea')
    watch.update(now=20)
    assert watch.leader(["n1"]) is None
    trace.write('der", "term": 2, "last": 0, "last_term": 0}\n')
    watch.update(now=30)
    assert watch.leader(["n1"]) == "n1"


def test_what_is_younger_than_the_reading_waits_for_what_led_to_it(
    tmp_path: Path, watch: TraceWatch, told: list[Violation]
) -> None:
    """n1 was read before it appended, n2 after it had installed what n1 committed: by itself, that is a breach."""
    one, other = Trace(tmp_path, "n1"), Trace(tmp_path, "n2")
    other.say(25, "install", index=1, term=1)
    watch.update(now=20)
    one.say(21, "append", first=1, terms=[1], digests=["00000000"])
    one.say(22, "commit", index=1, term=1)
    watch.update(now=30)
    assert told == []


def test_a_node_that_was_held_up_between_the_clock_and_its_file_comes_late_and_does_no_harm(
    tmp_path: Path, watch: TraceWatch, told: list[Violation]
) -> None:
    one, other = Trace(tmp_path, "n1"), Trace(tmp_path, "n2")
    lead(other, 50, term=4)
    watch.update(now=60)
    lead(one, 10, term=3)
    watch.update(now=70)
    assert told == []
    assert watch.leaders == {3: "n1", 4: "n2"}


@given(st.lists(st.integers(1, 30), max_size=8))
def test_a_trace_read_in_pieces_is_the_trace(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    source = Trace(tmp_path_factory.mktemp("whole"), "n1")
    for t in range(2, 9):
        lead(source, t, term=t)
    text = source.path.read_bytes()
    growing = tmp_path_factory.mktemp("growing") / "nodes" / "n1" / "trace" / "0.ndjson"
    growing.parent.mkdir(parents=True)
    growing.touch()
    reader = TraceReader(growing)
    read = []
    for cut in [*cuts, len(text)]:
        with growing.open("ab") as file:
            file.write(text[growing.stat().st_size :][:cut])
        read += reader.read()
    assert read == TraceReader(source.path).read()


def test_what_is_no_trace_is_named_with_its_line(tmp_path: Path, watch: TraceWatch) -> None:
    Trace(tmp_path, "n1").write("garbage\n")
    with pytest.raises(TraceError, match=r"n1/trace/0\.ndjson:3: not an event of a trace"):
        watch.update(now=5)


def test_events_that_contradict_each_other_are_shown_side_by_side(
    tmp_path: Path, watch: TraceWatch, told: list[Violation]
) -> None:
    for t, node in ((10_000_000, "n1"), (30_000_000, "n2")):
        lead(Trace(tmp_path, node), t, term=3)
    watch.update(now=40_000_000)
    headline, place, event, *facts = side_by_side(told[0], epoch=0).splitlines()
    assert headline == "ElectionSafety: n1 and n2 were both elected in term 3"
    assert " ".join(place.split()) == "n1, 0.010000 s, line 3 of trace 0 n2, 0.030000 s, line 3 of trace 0"
    assert event.split() == ["role", "role"]
    assert facts[0].split() == ["role", "leader", "role", "leader"]
