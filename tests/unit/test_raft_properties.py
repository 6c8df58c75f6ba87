"""Raft's five properties, decided from traces: hand-made ones, and those of the real core under random faults."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apps.raft import Raft
from experiments.checking.raft_properties import RaftProperties, Violation
from experiments.checking.trace import TraceError, TraceEvent, Witness, in_order, read_trace, read_traces
from tests.unit.raft import mutants
from tests.unit.raft.chaos import Chaos
from tests.unit.raft.mutants import AcksEarly, VotesForAnyLog, VotesTwice

decode = msgspec.json.Decoder(TraceEvent).decode


class Script:
    """Traces written by hand, an event a call, in the order of their time."""

    def __init__(self) -> None:
        self.properties = RaftProperties()
        self.found: list[Violation] = []
        self._lines: Counter[tuple[str, int]] = Counter()
        self._incarnations: Counter[str] = Counter()
        self._time = 0

    def say(self, node: str, ev: str, **keys: Any) -> None:
        self._time += 1
        incarnation = self._incarnations[node]
        self._lines[node, incarnation] += 1
        event = decode(json.dumps({"t": self._time, "ev": ev, **keys}))
        self.found += self.properties.feed(Witness(node, incarnation, self._lines[node, incarnation], event))

    def start(self, *nodes: str) -> None:
        for node in nodes:
            self.say(node, "started", term=0, vote=None, last=0, last_term=0)

    def restart(self, node: str, term: int, last: int, last_term: int, vote: str | None = None) -> None:
        self._incarnations[node] += 1
        self.say(node, "started", term=term, vote=vote, last=last, last_term=last_term)

    def role(self, node: str, role: str, term: int) -> None:
        self.say(node, "role", role=role, term=term, last=0, last_term=0)

    def append(self, nodes: str, first: int, *entries: str) -> None:
        """Entries as ``"<term><command>"``: ``"2x"`` is x of term 2."""
        for node in nodes.split():
            self.say(node, "append", first=first, terms=[int(one[0]) for one in entries], digests=[*entries])

    def apply(self, nodes: str, first: int, *entries: str) -> None:
        for node in nodes.split():
            self.say(node, "apply", first=first, terms=[int(one[0]) for one in entries], digests=[*entries])

    def commit(self, nodes: str, index: int, term: int) -> None:
        for node in nodes.split():
            self.say(node, "commit", index=index, term=term)

    def vote(self, nodes: str, candidate: str, term: int) -> None:
        for node in nodes.split():
            self.say(node, "vote", term=term, candidate=candidate)

    def configure(self, nodes: str, index: int, voters: str, outgoing: str = "") -> None:
        for node in nodes.split():
            members = {"voters": voters.split(), "learners": [], "outgoing": outgoing.split()}
            self.say(node, "configure", index=index, **members)

    @property
    def violated(self) -> list[str]:
        return [violation.property for violation in self.found]


@pytest.fixture
def script() -> Script:
    """Three nodes, of which a leads term 1; a, b and c hold "1x", committed and applied; b and c know of term 1."""
    script = Script()
    script.start("a", "b", "c")
    script.role("a", "candidate", 1)
    script.role("b", "follower", 1)
    script.role("c", "follower", 1)
    script.role("a", "leader", 1)
    script.append("a b c", 1, "1x")
    script.commit("a b c", 1, 1)
    script.apply("a b c", 1, "1x")
    return script


def test_a_change_of_leader_that_replaces_what_was_never_committed_violates_nothing(script: Script) -> None:
    script.append("a", 2, "1lost", "1too")
    script.role("b", "candidate", 2)
    script.role("b", "leader", 2)
    script.append("b c", 2, "2y")
    script.commit("b c", 2, 2)
    script.apply("b c", 2, "2y")
    script.role("a", "follower", 2)
    script.say("a", "truncate", **{"from": 2})
    script.append("a", 2, "2y")
    script.commit("a", 2, 2)
    script.apply("a", 2, "2y")
    script.restart("c", 2, 2, 2)
    script.role("c", "follower", 2)
    script.commit("c", 2, 2)
    script.apply("c", 1, "1x", "2y")
    assert script.violated == []
    assert (script.properties.terms, script.properties.committed) == (2, 2)


def test_a_snapshot_of_what_was_committed_stands_for_it_and_one_of_anything_else_violates(script: Script) -> None:
    script.append("a b", 2, "1y", "1z")
    script.commit("a b", 3, 1)
    script.append("c", 2, "1y")
    script.say("c", "install", index=3, term=1)
    script.append("c", 4, "1w")
    assert script.violated == []
    script.say("c", "install", index=9, term=1)
    assert script.violated == ["StateMachineSafety"]


def test_two_leaders_in_a_term_violate_election_safety_and_nothing_else(script: Script) -> None:
    script.role("b", "candidate", 1)
    script.role("b", "leader", 1)
    assert script.violated == ["ElectionSafety"]
    [found] = script.found
    assert found.message == "a and b were both elected in term 1"
    first, second = found.as_data()["events"]
    assert (first["node"], first["incarnation"], first["line"], first["ev"], first["term"]) == ("a", 0, 3, "role", 1)
    assert (second["node"], second["role"]) == ("b", "leader")


def test_a_node_that_is_elected_again_in_a_term_after_its_restart_violates_election_safety(script: Script) -> None:
    script.restart("a", 0, 1, 1)
    script.role("a", "candidate", 1)
    script.role("a", "leader", 1)
    assert script.violated == ["ElectionSafety"]
    assert "elected twice in term 1" in script.found[0].message


def test_to_be_told_twice_of_one_election_violates_nothing(script: Script) -> None:
    script.role("a", "leader", 1)
    assert script.violated == []


def test_a_leader_that_removes_an_entry_violates_leader_append_only_and_nothing_else(script: Script) -> None:
    script.append("a", 2, "1y")
    script.say("a", "truncate", **{"from": 2})
    assert script.violated == ["LeaderAppendOnly"]
    assert [event["ev"] for event in script.found[0].as_data()["events"]] == ["role", "truncate"]


def test_a_leader_that_overwrites_an_entry_violates_leader_append_only(script: Script) -> None:
    script.append("a", 2, "1y")
    script.append("a", 2, "1y")
    assert script.violated == ["LeaderAppendOnly"]


def test_one_entry_with_two_commands_violates_log_matching_and_nothing_else(script: Script) -> None:
    script.append("a", 2, "1y", "1z")
    script.append("b", 2, "1y", "1other")
    assert script.violated == ["LogMatching"]
    shown = script.found[0].as_data()
    assert "entry 3 of term 1 with different commands" in shown["message"]
    assert [(event["node"], event["first"], event["digests"]) for event in shown["events"]] == [
        ("a", 3, ["1z"]),
        ("b", 3, ["1other"]),
    ]


def test_one_entry_after_different_ones_violates_log_matching(script: Script) -> None:
    script.role("b", "candidate", 2)
    script.role("b", "leader", 2)
    script.append("b", 2, "2p", "2q")
    script.append("a", 2, "1y")
    script.role("a", "follower", 2)
    script.append("a", 3, "2q")
    assert script.violated == ["LogMatching"]
    assert "entry 3 of term 2 with different terms at 2" in script.found[0].message


def test_a_leader_without_a_committed_entry_violates_leader_completeness_and_nothing_else(script: Script) -> None:
    script.append("a b", 2, "1y")
    script.commit("a", 2, 1)
    script.role("c", "candidate", 2)
    script.role("c", "leader", 2)
    assert script.violated == ["LeaderCompleteness"]
    committed, elected = script.found[0].as_data()["events"]
    assert (committed["node"], committed["ev"], committed["index"]) == ("a", "commit", 2)
    assert (elected["node"], elected["term"]) == ("c", 2)


def test_a_commit_that_becomes_known_late_is_held_against_a_leader_elected_before(script: Script) -> None:
    script.append("a b", 2, "1y")
    script.role("c", "candidate", 2)
    script.role("c", "leader", 2)
    assert script.violated == []
    script.commit("a", 2, 1)
    assert script.violated == ["LeaderCompleteness"]


def test_a_leader_of_an_earlier_term_need_not_have_what_was_committed_in_a_later_one(script: Script) -> None:
    """Votes for term 2 can arrive after term 3 has begun elsewhere: its leader is elected late, and lawfully."""
    script.role("c", "candidate", 2)
    script.role("b", "candidate", 3)
    script.role("b", "leader", 3)
    script.append("b a", 2, "3y")
    script.commit("b", 2, 3)
    script.role("c", "leader", 2)
    assert script.violated == []


def test_different_entries_applied_at_one_index_violate_state_machine_safety_and_nothing_else(script: Script) -> None:
    script.append("a b c", 2, "1y")
    script.commit("a b", 2, 1)
    script.apply("a", 2, "1y")
    script.apply("b", 2, "1other")
    assert script.violated == ["StateMachineSafety"]
    assert [event["digests"] for event in script.found[0].as_data()["events"]] == [["1y"], ["1other"]]


def test_what_a_node_applies_after_its_restart_must_be_what_it_applied_before(script: Script) -> None:
    script.restart("c", 1, 1, 1)
    script.apply("c", 1, "1z")
    assert script.violated == ["StateMachineSafety"]


def test_who_applies_an_entry_takes_it_for_committed(script: Script) -> None:
    script.append("a", 2, "1y")
    script.apply("a", 2, "1y")
    script.role("b", "candidate", 2)
    script.role("b", "leader", 2)
    assert script.violated == ["LeaderCompleteness"]


def test_what_had_not_reached_the_disk_is_gone_after_a_restart_be_it_entries_or_their_removal(script: Script) -> None:
    script.append("c", 2, "1p", "1q")
    script.role("c", "follower", 2)
    script.say("c", "truncate", **{"from": 2})
    script.append("c", 2, "2r")
    script.restart("c", 2, 3, 1)  # the removal was not on disk: p and q are back
    script.say("c", "truncate", **{"from": 3})
    script.append("c", 3, "2s", "2t")
    script.restart("c", 2, 3, 2)  # t was not
    script.append("c", 4, "2t")
    assert script.violated == []


@pytest.mark.parametrize(
    ("ev", "keys", "says"),
    [
        ("append", {"first": 4, "terms": [1], "digests": ["1z"]}, "appended at 4 to a log that ends at 1"),
        ("commit", {"index": 2, "term": 1}, "committed up to 2 in a log that ends at 1"),
        ("started", {"term": 1, "vote": None, "last": 3, "last_term": 1}, "recovered a log that ends at 3 with term 1"),
        ("started", {"term": 1, "vote": None, "last": 1, "last_term": 7}, "recovered a log that ends at 1 with term 7"),
    ],
)
def test_a_trace_with_a_hole_decides_nothing(script: Script, ev: str, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(TraceError, match=rf"nodes/c/trace/0\.ndjson:\d+: {says}"):
        script.say("c", ev, **keys)


# ---------------------------------------------------------------------------------------------------------------------
# The rules, where traces tell of configurations


@pytest.fixture
def told() -> Script:
    """Five nodes of which a, b and c are the voters; a leads term 2 with one entry of it committed."""
    script = Script()
    script.start("a", "b", "c", "d", "e")
    script.configure("a b c d e", 0, "a b c")
    script.vote("a b", "a", 2)
    script.role("a", "leader", 2)
    script.append("a b", 1, "2x")
    script.commit("a", 1, 2)
    assert script.violated == []
    assert script.properties.judged[-1] == "OneChangeAtATime"
    return script


def test_two_votes_in_a_term_violate_a_rule_even_when_nobody_wins_by_them(told: Script) -> None:
    told.vote("c", "b", 3)
    told.restart("c", 3, 0, 0, vote="b")
    told.vote("c", "b", 3)
    assert told.violated == []
    told.vote("c", "a", 3)
    assert told.violated == ["OneVoteATerm"]
    assert told.found[0].message == "c voted for b and for a in term 3"


def test_a_node_that_comes_up_without_its_last_vote_violates_a_rule_even_when_it_is_not_asked_again(
    told: Script,
) -> None:
    told.vote("c", "b", 3)
    told.restart("c", 3, 0, 0, vote="b")
    told.restart("c", 4, 0, 0)
    assert told.violated == []
    told.restart("c", 3, 0, 0)
    told.restart("c", 2, 0, 0, vote="b")
    assert told.violated == ["VotesAreKept", "VotesAreKept"]
    assert told.found[0].message == "c voted for b in term 3, and came up in term 3, with a vote for nobody"


def test_who_leads_without_the_votes_of_a_majority_of_the_voters_violates_a_rule(told: Script) -> None:
    told.vote("b d e", "b", 3)
    told.role("b", "leader", 3)
    assert told.violated == ["ElectedByQuorum"]
    assert told.found[0].message == "b became leader of term 3 with 3 votes of a, b, c"


def test_a_commit_needs_a_majority_of_both_sets_of_voters_while_a_change_is_under_way(told: Script) -> None:
    told.append("a b", 2, "2joint")
    told.configure("a b", 2, "a d e", "a b c")
    told.append("d", 1, "2x", "2joint")
    told.commit("a", 2, 2)
    assert told.violated == []
    told.append("a b", 3, "2y")
    told.commit("a", 3, 2)
    assert told.violated == ["CommittedByQuorum"]
    assert told.found[0].message == "a committed 3 when of a, d, e only a had it"


def test_what_was_committed_is_on_the_disks_of_a_quorum_which_restarts_show(told: Script) -> None:
    told.append("c", 1, "2x")
    told.append("a b c", 2, "2y")
    told.commit("a", 2, 2)
    told.restart("c", 2, 0, 0)  # a and b are enough
    told.append("c", 1, "2x", "2y")
    told.restart("c", 2, 2, 2)
    assert told.violated == []
    told.restart("c", 2, 1, 2)
    told.restart("b", 2, 1, 2, vote="a")
    assert told.violated == ["CommittedIsOnDisk"]
    assert told.found[0].message == ("b came up without entry 2, which was committed: of a, b, c only a still has it")


def test_entries_are_removed_for_others_of_another_term_and_for_nothing_else(told: Script) -> None:
    told.append("c", 1, "2x", "2p", "2q")
    told.role("c", "follower", 3)
    told.say("c", "truncate", **{"from": 2})
    told.append("c", 2, "3p", "3q")
    told.say("c", "truncate", **{"from": 3})  # a crash may come between this and what was to follow
    told.restart("c", 3, 3, 3)
    told.append("c", 4, "3r", "3s")
    assert told.violated == []
    told.say("c", "truncate", **{"from": 4})
    told.append("c", 4, "3r")
    assert told.violated == ["OnlyConflictsRemove"]
    assert told.found[0].message == "c removed its entries from 4 on, and put another of the same term 3 there"


def test_a_snapshot_removes_nothing_that_agrees_with_it(told: Script) -> None:
    told.append("c", 1, "2x", "2p", "2q")
    told.say("c", "install", index=1, term=2)
    told.append("c", 4, "2r")
    assert told.violated == []
    told.say("c", "install", index=1, term=2)
    told.append("c", 2, "2p")
    assert told.violated == ["OnlyConflictsRemove"]


def test_a_leader_that_commits_an_entry_of_an_earlier_term_by_itself_violates_a_rule(told: Script) -> None:
    told.append("a b", 2, "2y")
    told.vote("b c", "b", 3)
    told.role("b", "leader", 3)
    told.append("c", 1, "2x", "2y")
    told.commit("b", 2, 3)
    assert told.violated == ["CommittedByQuorum"]
    assert told.found[0].message == "b, leader of term 3, committed up to 2, an entry of term 2"


def test_a_change_of_voters_goes_by_a_joint_configuration(told: Script) -> None:
    told.append("a", 2, "2new")
    told.configure("a", 2, "a d e")
    assert told.violated == ["OneChangeAtATime"]
    assert told.found[0].message == "a changed the members at 2 from voters a, b, c to a, d, e in one step"


def test_a_change_waits_until_the_one_before_is_committed(told: Script) -> None:
    told.append("a", 2, "2joint")
    told.configure("a", 2, "a d e", "a b c")
    told.append("a", 3, "2new")
    told.configure("a", 3, "a d e")
    assert told.violated == ["OneChangeAtATime"]
    assert "before the change at 2 was committed" in told.found[0].message


def test_a_change_waits_until_an_entry_of_the_term_is_committed(told: Script) -> None:
    told.vote("b c", "b", 3)
    told.role("b", "leader", 3)
    told.commit("b", 1, 2)
    told.found.clear()
    told.append("b", 2, "3joint")
    told.configure("b", 2, "a d e", "a b c")
    assert told.violated == ["OneChangeAtATime"]
    assert "before an entry of its term 3 was committed" in told.found[0].message


# ---------------------------------------------------------------------------------------------------------------------
# The real core, in virtual time


def watch(seed: int, make: type[Raft]) -> tuple[list[str], RaftProperties]:
    """Play a random schedule of faults and feed what the nodes leave, encoded as their driver would, to the checker."""
    chaos = Chaos(seed, make)
    cluster = chaos.cluster
    properties = RaftProperties()
    found: list[str] = []
    lines: Counter[tuple[str, int]] = Counter()

    def take(name: str, start: int) -> None:
        node = cluster.nodes[name]
        for event in node.trace[start:]:
            lines[name, node.incarnation] += 1
            line = b'{"t":%d,%b' % (cluster.now, msgspec.json.encode(event)[1:])
            witness = Witness(name, node.incarnation, lines[name, node.incarnation], decode(line))
            found.extend(violation.property for violation in properties.feed(witness))

    step = cluster._step

    def watched(name: str, node: Any, events: Any) -> None:
        start = len(node.trace)
        step(name, node, events)
        take(name, start)

    for name in cluster.names:
        take(name, 0)
    cluster._step = watched  # type: ignore[method-assign]
    chaos.play(timeouts=15)
    return found, properties


def test_the_core_violates_nothing_whatever_crashes_and_whatever_is_cut() -> None:
    entries = 0
    for seed in range(30):
        found, properties = watch(seed, Raft)
        assert found == [], f"seed {seed}"
        entries += properties.committed
    assert entries > 500


@pytest.mark.parametrize(
    ("mutant", "violates"),
    [
        (AcksEarly, {"LeaderCompleteness", "StateMachineSafety"}),
        (VotesTwice, {"ElectionSafety"}),
        (VotesForAnyLog, {"LeaderCompleteness"}),
        (mutants.AcksEarly, {"CommittedByQuorum"}),
        (mutants.CountsWhatWasSent, {"CommittedByQuorum"}),
        (mutants.CommitsOldTerms, {"CommittedByQuorum"}),
        (mutants.SpeaksBeforeItWrites, {"OneVoteATerm"}),
        (mutants.ForgetsVote, {"OneVoteATerm"}),
        (mutants.ChangesVotersAtOnce, {"OneChangeAtATime"}),
        (mutants.CountsOneMajority, {"CommittedByQuorum"}),
    ],
)
def test_a_core_with_a_bug_is_caught_by_its_trace(mutant: type[Raft], violates: set[str]) -> None:
    for seed in range(60):
        try:
            found, _ = watch(seed, mutant)
        except TraceError:
            continue  # so broken that its trace contradicts itself
        if violates <= set(found):
            return
    pytest.fail(f"no schedule of 60 showed {violates}")


# ---------------------------------------------------------------------------------------------------------------------
# Files

HEADER = {"t": 5, "ev": "trace", "schema": 1, "node": "n1", "incarnation": 0, "protocol": "raft"}
STARTED = {"t": 6, "ev": "started", "term": 0, "vote": None, "last": 0, "last_term": 0}


def write(run: Path, node: str, incarnation: int, *lines: Any, tail: str = "") -> Path:
    path = run / "nodes" / node / "trace" / f"{incarnation}.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines) + tail)
    return path


def test_traces_are_read_up_to_where_a_crash_cut_them_off(tmp_path: Path) -> None:
    write(tmp_path, "n1", 0, HEADER, STARTED, tail='{"t":7,"ev":"role","ro')
    write(tmp_path, "n1", 1, HEADER | {"t": 9, "incarnation": 1}, STARTED | {"t": 12})
    write(tmp_path, "n2", 0, HEADER | {"node": "n2"}, {"t": 10, "ev": "weather", "sun": True}, STARTED | {"t": 11})
    (tmp_path / "nodes" / "n1" / "trace" / "metrics.ndjson").write_text("{}\n")
    events = list(in_order(read_traces(tmp_path)))
    assert [(one.node, one.incarnation, one.line, one.t) for one in events] == [
        ("n1", 0, 1, 5),
        ("n2", 0, 1, 5),
        ("n1", 0, 2, 6),
        ("n1", 1, 1, 9),
        ("n2", 0, 3, 11),
        ("n1", 1, 2, 12),
    ]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([HEADER, "no JSON"], r"0\.ndjson:2: not an event of a trace"),
        ([HEADER, {"t": 6, "ev": "commit", "index": "high", "term": 1}], r":2: not an event .*Expected `int`"),
        ([HEADER, {"t": 6, "ev": "apply", "first": 1, "terms": [1], "digests": []}], r":2: .*1 terms for 0 digests"),
        ([HEADER, STARTED | {"t": 4}], r":2: t goes back, from 5 to 4"),
        ([STARTED], r":1: expected the header of a trace of schema 1"),
        ([HEADER | {"schema": 2}], r":1: expected the header of a trace of schema 1"),
        ([HEADER | {"node": "n9"}], r":1: holds the trace of n9, incarnation 0"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_its_place(tmp_path: Path, lines: list[Any], says: str) -> None:
    with pytest.raises(TraceError, match=says):
        read_trace(write(tmp_path, "n1", 0, *lines))


def test_the_traces_of_a_minute_on_five_nodes_are_checked_in_seconds() -> None:
    """12,000 entries take a fraction of a second: the bound is for work that grows faster than the trace."""
    script = Script()
    nodes = "a b c d e"
    script.start(*nodes.split())
    script.role("a", "leader", 1)
    began = time.process_time()
    for first in range(1, 12_001, 20):
        batch = [f"1{index:07x}" for index in range(first, first + 20)]
        script.append(nodes, first, *batch)
        script.commit(nodes, first + 19, 1)
        script.apply(nodes, first, *batch)
    for term in range(2, 102):
        script.role("b", "leader", term)
    assert script.violated == []
    assert script.properties.committed == 12_000
    assert time.process_time() - began < 5.0
