"""What a quorum store promises of every execution, decided from traces, one violation each."""

from __future__ import annotations

import pytest

from apps.quorum import QuorumConfig
from experiments.checking.quorum_properties import QuorumProperties
from experiments.checking.trace import Acknowledged, Boot, Handoff, Keep, Put, Read, TraceError, TraceEvent, Witness

NODES = ("n1", "n2", "n3", "n4", "n5")


class Traces:
    """Feeds one event after another, and keeps the names of the properties that they violate."""

    def __init__(self, config: QuorumConfig | None = None) -> None:
        self.properties = QuorumProperties(NODES, config or QuorumConfig())
        self.replicas = self.properties.replicas("k")
        self.violated: list[str] = []
        self._t = 0

    def say(self, node: str, event: TraceEvent) -> None:
        self._t += 1
        self.violated += [found.property for found in self.properties.feed(Witness(node, 0, self._t, event))]

    def put(self, counter: int, time: int, context: dict[str, int] | None = None, actor: str = "n1#1") -> None:
        self.say("n1", Put(0, "k", actor, counter, (time, 0), context or {}))

    def keep(self, node: str, *dots: tuple[str, int], owner: str | None = None) -> None:
        self.say(node, Keep(0, "k", list(dots), owner))


ONE, TWO, OTHER = ("n1#1", 1), ("n1#1", 2), ("n2#1", 1)


def written(config: QuorumConfig | None = None) -> Traces:
    traces = Traces(config)
    traces.put(1, 10)
    traces.put(2, 20, {"n1#1": 1})
    traces.put(1, 15, actor="n2#1")
    assert traces.violated == []
    return traces


def test_two_writes_with_one_name_are_found() -> None:
    traces = written()
    traces.put(2, 30)
    assert traces.violated == ["DotsAreUnique"]


def test_who_keeps_one_of_siblings_has_the_same_actors_earlier_ones() -> None:
    traces = Traces(QuorumConfig(versions="siblings"))
    traces.put(1, 10)
    traces.put(2, 20)
    traces.put(1, 30, {"n1#1": 2}, actor="n2#1")
    traces.put(3, 40)
    traces.keep("n1", ONE)
    traces.keep("n1", ONE, TWO)
    traces.keep("n1", OTHER)  # its writer had seen both
    traces.keep("n1", OTHER, ("n1#1", 3))
    assert traces.violated == []
    traces.keep("n2", TWO)
    traces.keep("n2", TWO, owner="n1")
    assert traces.violated == ["ContextsAreHonest", "ContextsAreHonest"]


def test_the_last_writer_may_replace_the_others_and_not_the_other_way_round() -> None:
    traces = written()
    for dot in (ONE, OTHER, TWO):
        traces.keep("n1", dot)
    assert traces.violated == []
    traces.keep("n1", OTHER)
    assert traces.violated == ["NothingGoesBack"]


def test_a_sibling_is_replaced_only_by_one_whose_writer_had_seen_it() -> None:
    traces = written(QuorumConfig(versions="siblings"))
    traces.keep("n1", ONE)
    traces.keep("n1", ONE, OTHER)
    traces.keep("n1", OTHER, TWO)
    assert traces.violated == []
    traces.keep("n1", TWO)
    assert traces.violated == ["NothingGoesBack"]


def test_who_was_counted_for_a_write_must_come_up_with_it_or_with_a_later_one() -> None:
    for kept, violated in (([TWO], []), ([ONE], []), ([], ["AcknowledgedIsOnDisk"])):
        traces = written()
        traces.say("n1", Acknowledged(0, "k", *ONE, list(traces.replicas[:2])))
        traces.say(traces.replicas[1], Boot(0, "n9#2", {"k": kept} if kept else {}, {}))
        assert traces.violated == violated


@pytest.mark.parametrize("quorum", ["strict", "sloppy"])
def test_only_a_sloppy_quorum_counts_those_who_stand_in(quorum: str) -> None:
    traces = written(QuorumConfig(quorum=quorum))  # type: ignore[arg-type]
    stranger = next(node for node in NODES if node not in traces.replicas)
    traces.say("n1", Acknowledged(0, "k", *ONE, [traces.replicas[0], stranger]))
    traces.say("n1", Read(0, "k", [ONE], [stranger, traces.replicas[1]]))
    assert traces.violated == (["QuorumsAreMet"] * 2 if quorum == "strict" else [])
    traces.say("n1", Read(0, "k", [ONE], [traces.replicas[1], traces.replicas[1]]))
    assert traces.violated[-1:] == ["QuorumsAreMet"]


def test_an_acknowledged_write_is_lost_when_nobody_has_it_or_a_later_one_not_even_for_somebody_else() -> None:
    traces = written()
    traces.say("n1", Acknowledged(0, "k", *TWO, list(traces.replicas[:2])))
    assert [found.property for found in traces.properties.finish()] == ["NothingLost"]
    traces.keep("n5", TWO, owner=traces.replicas[0])
    assert traces.properties.finish() == []
    traces.say("n5", Handoff(0, "k", traces.replicas[0]))
    assert [found.property for found in traces.properties.finish()] == ["NothingLost"]


def test_replicas_that_keep_different_versions_are_told() -> None:
    traces = written()
    for replica in traces.replicas:
        traces.keep(replica, TWO)
    assert traces.properties.differing() == {}
    traces = written()
    traces.keep(traces.replicas[0], TWO)
    assert list(traces.properties.differing()) == ["k"]


def test_a_version_that_nobody_wrote_decides_nothing() -> None:
    traces = Traces()
    traces.keep("n1", ONE)
    with pytest.raises(TraceError, match="which nobody wrote"):
        traces.keep("n1", TWO)
