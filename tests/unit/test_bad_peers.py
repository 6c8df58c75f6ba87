"""Whatever a peer says that can be decoded: it is acted upon, or rejected and counted; no core breaks on it.

A sender's name can be trusted, its content only as far as its codec goes (`apps.process`). A hundred examples of each
here; `pytest --hypothesis-profile=fuzz --timeout=0 tests/unit/test_bad_peers.py` tries for minutes.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps import kv
from apps.clocks import HybridTime
from apps.detectors import Roster, Standing, Swim, SwimConfig
from apps.detectors.swim import Ack, Nack, Ping, PingRequest, Update
from apps.process import (
    CancelTimer,
    Event,
    Persist,
    Persisted,
    Process,
    Received,
    Requested,
    SetTimer,
    Snapshot,
    Started,
    TimerFired,
    Trace,
    step,
)
from apps.quorum import Quorum, QuorumConfig, Version
from apps.quorum import messages as quorum_messages
from apps.raft import Contradiction, Raft, RaftConfig, Role, Unintelligible, trace
from apps.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    configuration_entry,
)
from apps.raft.quorum import Configuration

NODES = ("n1", "n2", "n3")
PEERS = ("n2", "n3")
MS = 1_000_000

# Mostly small, so that what is said often concerns what is there; and now and then as large as the codec takes.
LARGEST = 2**62
counts = st.one_of(st.integers(0, 5), st.integers(0, 5), st.sampled_from([2**40, LARGEST]))
ordinals = st.one_of(st.integers(1, 5), st.integers(1, 5), st.sampled_from([2**40, LARGEST]))
terms = st.integers(1, 4)
texts = st.text(max_size=3)
values = st.recursive(st.none() | st.integers(0, 9) | texts, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
operations = st.one_of(
    st.builds(kv.Read, texts),
    st.builds(kv.Write, texts, values),
    st.builds(kv.Cas, texts, values, values),
    st.builds(kv.Delete, texts),
)
commands = st.builds(kv.Command, texts, st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1), operations)


class Driver:
    """Runs one core alone: its disk is as fast as a test says, and its peers are what a test makes up."""

    def __init__(self, core: Process) -> None:
        self.core, self.now = core, 0
        self.timers: dict[str, int] = {}
        self.unwritten: list[int] = []
        self.traced: list[Any] = []
        self.take([Started()])

    def take(self, events: list[Event]) -> None:
        for effect in step(self.core, self.now, events):
            match effect:
                case SetTimer(timer, after):
                    self.timers[timer] = self.now + after
                case CancelTimer(timer):
                    self.timers.pop(timer, None)
                case Persist(token, records) | Snapshot(token, records):
                    self.recover(msgspec.msgpack.encode(records))
                    self.unwritten.append(token)
                case Trace(event):
                    msgspec.json.encode(event)
                    self.traced.append(event)
                case sent:
                    msgspec.msgpack.encode(sent)

    def recover(self, written: bytes) -> None:
        """Fails for what could not be read when the node starts again."""
        msgspec.msgpack.decode(written, type=list[self.core.Record])  # type: ignore[attr-defined, name-defined]

    def happen(self, what: Any) -> None:
        """Let a millisecond pass, and then ``what``: an event, ``"disk"``, or a span in which timers fire."""
        self.now += MS
        if what == "disk":
            tokens, self.unwritten = self.unwritten, []
            self.take([Persisted(token) for token in tokens])
        elif isinstance(what, int):
            self.now += what
            due = [timer for timer, at in self.timers.items() if at <= self.now]
            for timer in due:
                del self.timers[timer]
            self.take([TimerFired(timer) for timer in due])
        else:
            self.take([what])


def said_by_peers(messages: st.SearchStrategy[Any], kinds: Any) -> st.SearchStrategy[Event]:
    """What arrives of ``messages``: the codec has the first word."""
    decode = msgspec.msgpack.Decoder(kinds).decode
    return st.builds(
        lambda sender, message: Received(sender, decode(msgspec.msgpack.encode(message))),
        st.sampled_from(PEERS),
        messages,
    )


def happenings(received: st.SearchStrategy[Event], asked: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    requests = st.builds(Requested, st.just("c"), st.integers(0, 99), asked)
    spans = st.sampled_from([60 * MS, 300 * MS])
    return st.lists(st.one_of(received, received, received, st.just("disk"), spans, requests), max_size=30)


# ---------------------------------------------------------------------------------------------------------------------
# Raft

voters = st.lists(st.sampled_from([*NODES, "n9"]), min_size=1, max_size=4, unique=True).map(tuple)
configurations = st.builds(Configuration, counts, voters, st.just(()), st.just(()) | voters)
bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=6),
    st.binary(max_size=6).map(lambda rest: b"\xc1" + rest),
    commands.map(msgspec.msgpack.encode),
    st.builds(lambda configuration: configuration_entry(1, configuration).command, configurations),
)


@st.composite
def appends(draw: st.DrawFn) -> Append:
    """One that fits in most of its parts, or one that does in none."""
    if draw(st.booleans()):
        loose = st.builds(Entry, ordinals, ordinals, bodies)
        return Append(draw(ordinals), draw(counts), draw(counts), draw(counts), draw(st.lists(loose, max_size=3)))
    term, index, before = draw(terms), draw(st.integers(0, 4)), draw(st.integers(0, 3))
    entries = [
        Entry(index + 1 + number + draw(st.sampled_from([0] * 9 + [1])), max(1, before + draw(st.integers(0, 1))), body)
        for number, body in enumerate(draw(st.lists(bodies, max_size=3)))
    ]
    return Append(term, index, before, draw(st.integers(0, 6)), entries)


@st.composite
def pieces(draw: st.DrawFn) -> InstallSnapshot:
    store = kv.Store()
    for command in draw(st.lists(commands, max_size=2)):
        store.apply(command)
    data = draw(st.sampled_from([store.dump(), b"abc", b""]))
    checksum = crc32c(data) ^ draw(st.sampled_from([0, 0, 0, 1]))
    offset = draw(st.sampled_from([0, 0, len(data) // 2]))
    total = len(data) + draw(st.sampled_from([0, 0, 0, 1, LARGEST - len(data)]))
    return InstallSnapshot(
        draw(terms), draw(ordinals), draw(terms), checksum, total, offset, data[offset:], draw(configurations)
    )


raft_messages = st.one_of(
    appends(),
    appends(),
    appends(),
    pieces(),
    st.builds(RequestVote, ordinals, counts, counts, st.booleans(), st.booleans()),
    st.builds(VoteReply, counts, ordinals, st.booleans(), st.booleans()),
    st.builds(AppendReply, counts, counts),
    st.builds(AppendRejected, counts, counts, counts, counts),
    st.builds(Heartbeat, ordinals, counts, ordinals),
    st.builds(HeartbeatReply, counts, counts),
    st.builds(ReadIndex, ordinals, counts),
    st.builds(ReadIndexReply, counts, counts, counts),
    st.builds(SnapshotReply, counts, counts, counts),
    st.builds(TimeoutNow, ordinals),
)


class Watch:
    """What must hold of a node's own state whatever it was told, and never be taken back."""

    def __init__(self) -> None:
        self.term = self.commit = 0
        self.committed: dict[int, Entry] = {}

    def look(self, core: Raft) -> None:
        log = core.log
        entries = log.slice(log.base + 1, log.last)
        assert [entry.index for entry in entries] == list(range(log.base + 1, log.last + 1))
        assert all(one.term <= other.term for one, other in pairwise(entries))
        assert log.last_term <= core.term
        assert log.base <= core.applied <= core.commit <= log.last
        assert core._durable <= log.last
        assert core.term >= self.term
        assert core.commit >= self.commit
        assert core.configuration.voters
        assert set(core.configuration.members) <= set(NODES)
        for index in range(self.commit + 1, core.commit + 1):
            if found := log.slice(index, index):
                self.committed[index] = found[0]
            if index - self.commit > 10:
                break  # it was a snapshot, with next to nothing behind it
        for index, entry in self.committed.items():
            if log.base < index <= core.commit:
                assert log.slice(index, index) == [entry]
        assert core._unanswered == len(core._reads) + sum(
            len(one.reads) for one in [*core._read_rounds, *core._forwarded]
        ) + sum(len(reads) for _, reads in core._ready)
        self.term, self.commit = core.term, core.commit


EAGER = RaftConfig(snapshot_entries=3, max_batch_bytes=20, follower_reads=True, max_waiting_reads=3)
modes = st.sampled_from([EAGER, RaftConfig(pre_vote=False, check_quorum=False), RaftConfig(reads="lease")])


@given(modes, happenings(said_by_peers(raft_messages, Raft.Message), commands))
@settings(deadline=None)
@example(RaftConfig(), [Received("n2", Append(9, 0, 0, 5, [Entry(7, 1, b"")]))])
@example(RaftConfig(), [Received("n2", Append(1, 0, 0, 0, [Entry(3, 1, b""), Entry(2, 1, b"")]))])
@example(RaftConfig(), ["disk", 300 * MS, "disk", Received("n2", VoteReply(0, 1, True, True)), "disk",
                        Received("n2", VoteReply(1, 1, True, False)), Received("n2", AppendReply(1, 9)),
                        Received("n3", AppendReply(1, 9))])  # fmt: skip
def test_whatever_peers_say_a_raft_node_keeps_a_sound_log_and_stops_only_for_a_named_reason(
    config: RaftConfig, happenings: list[Any]
) -> None:
    core = Raft("n1", NODES, config, Random(1))
    watch = Watch()
    try:
        driver = Driver(core)
        for what in happenings:
            driver.happen(what)
            watch.look(core)
    except (Contradiction, Unintelligible):
        pass


def alone() -> Driver:
    return Driver(Raft("n1", NODES, RaftConfig(), Random(1)))


UNKNOWN = Configuration(1, ("n1", "n9"))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Append(9, 0, 0, 5, [Entry(7, 1, b"")]), "entry 7 stands where 1 belongs"),
        (Append(1, 0, 0, 0, [Entry(1, 1, b""), Entry(3, 1, b"")]), "entry 3 stands where 2 belongs"),
        (Append(3, 0, 0, 0, [Entry(1, 2, b""), Entry(2, 1, b"")]), "entry 2 is of term 1, and the one before it of"),
        (Append(3, 0, 0, 0, [Entry(1, 4, b"")]), "an entry of term 4 in term 3"),
        (Append(3, 5, 4, 0, []), "an entry of term 4 in term 3"),
        (Append(1, 0, 0, 0, [Entry(1, 1, b"\xc1\xc1")]), "entry 1 is no configuration: "),
        (Append(1, 0, 0, 0, [Entry(1, 1, b"\xc1" + msgspec.msgpack.encode([1, []]))]), "entry 1 is no configuration: "),
        (
            Append(1, 0, 0, 0, [Entry(1, 1, configuration_entry(1, Configuration(2, NODES)).command)]),
            "entry 1 holds the",
        ),
        (Append(1, 0, 0, 0, [configuration_entry(1, UNKNOWN)]), "a configuration with n9, whom nobody knows"),
        (InstallSnapshot(1, 5, 2, 0, 3, 0, b"abc", Configuration(0, NODES)), "a snapshot of term 2 in term 1"),
        (InstallSnapshot(1, 5, 1, 0, 3, 1, b"abc", Configuration(0, NODES)), "bytes up to 4 of a snapshot of 3"),
        (InstallSnapshot(1, 5, 1, 0, 3, 0, b"abc", Configuration(6, NODES)), "a snapshot at 5 with the configuration"),
        (InstallSnapshot(1, 5, 1, 0, 3, 0, b"abc", UNKNOWN), "a configuration with n9, whom nobody knows"),
        (
            InstallSnapshot(1, 5, 1, 1, 3, 0, b"abc", Configuration(0, NODES)),
            "the checksum of the snapshot at 5 differs",
        ),
        (
            InstallSnapshot(1, 5, 1, crc32c(b"abc"), 3, 0, b"abc", Configuration(0, NODES)),
            "the snapshot at 5 cannot be",
        ),
    ],
    ids=lambda found: found if isinstance(found, str) else type(found).__name__,
)
def test_what_no_leader_can_mean_is_rejected_and_left_as_evidence(message: Any, why: str) -> None:
    driver = alone()
    driver.happen(Received("n2", message))
    core = driver.core
    assert isinstance(core, Raft)
    assert (core.log.last, core.commit, core.store.dump()) == (0, 0, kv.Store().dump())
    (rejected,) = (event for event in driver.traced if isinstance(event, trace.Rejected))
    assert (rejected.sender, rejected.message, rejected.count) == ("n2", type(message).__name__, 1)
    assert rejected.why.startswith(why)
    assert core.rejected == {"n2": 1}


def test_what_a_leader_is_told_of_the_future_is_rejected() -> None:
    driver = alone()
    core = driver.core
    assert isinstance(core, Raft)
    for what in (300 * MS, "disk", Received("n2", VoteReply(0, 1, True, True)), "disk",
                 Received("n2", VoteReply(1, 1, True, False)), "disk"):  # fmt: skip
        driver.happen(what)
    assert core.role is Role.LEADER
    for peer in PEERS:
        driver.happen(Received(peer, AppendReply(1, 9)))
        driver.happen(Received(peer, HeartbeatReply(1, 9)))
    assert core.commit == 0
    assert [event.why for event in driver.traced if isinstance(event, trace.Rejected)] == [
        "it has entry 9, and 1 is the last of its leader's",
        "it has heard round 9, and 0 was the last",
    ] * 2


def test_rejected_messages_are_all_counted_and_told_of_ever_more_rarely() -> None:
    driver = alone()
    for _ in range(100):
        driver.happen(Received("n2", Append(1, 0, 0, 0, [Entry(7, 1, b"")])))
    assert isinstance(driver.core, Raft)
    assert driver.core.rejected == {"n2": 100}
    counts = [event.count for event in driver.traced if isinstance(event, trace.Rejected)]
    assert counts == [1, 2, 3, 4, 5, 8, 16, 32, 64]


def test_a_committed_command_that_nobody_can_read_stops_the_node_and_is_named() -> None:
    driver = alone()
    with pytest.raises(
        Unintelligible, match=r"^n1: entry 1 of term 1 is committed, and is no command .*Expected `array`"
    ):
        driver.happen(Received("n2", Append(1, 0, 0, 1, [Entry(1, 1, b"\x93\xa3")])))


@pytest.mark.parametrize("message", [TimeoutNow(2**62 + 1), TimeoutNow(0), Heartbeat(1, -1, 1), AppendReply(2**63, 1)])
def test_numbers_beyond_what_can_be_counted_on_are_not_decoded(message: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Raft.Message)


# ---------------------------------------------------------------------------------------------------------------------
# A quorum store

keys = st.sampled_from(["a", "b", ""])
wild = st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**64 - 1))
parts = st.one_of(st.integers(0, 3), st.sampled_from([2**40, 2**63 - 1]))
times = st.builds(HybridTime, parts, parts)
contexts = st.dictionaries(texts, wild, max_size=2)
versions = st.lists(
    st.builds(Version, st.sampled_from(["n2#1", "n1#1", "?"]), wild, contexts, times, values, st.booleans()), max_size=2
).map(tuple)
operations_of = st.one_of(st.integers(2**32, 2**32 + 3), wild)
quorum_said = st.one_of(
    st.builds(quorum_messages.Fetch, wild, keys),
    st.builds(quorum_messages.Fetched, operations_of, versions),
    st.builds(quorum_messages.Store, wild, keys, versions, st.none() | st.sampled_from([*NODES, "n9"])),
    st.builds(quorum_messages.Stored, operations_of),
    st.builds(
        quorum_messages.Digests,
        st.integers(-1, 10) | wild,
        st.dictionaries(st.integers(-1, 300) | wild, st.binary(max_size=16), max_size=3),
    ),
    st.builds(
        quorum_messages.Exchange,
        st.lists(wild, max_size=3),
        st.dictionaries(keys, versions, max_size=2),
        st.booleans(),
    ),
)
asked_of_a_store = st.one_of(
    commands,
    st.builds(quorum_messages.Get, keys),
    st.builds(quorum_messages.Put, keys, values, contexts),
)
stores = st.sampled_from(
    [
        QuorumConfig(),
        QuorumConfig(quorum="sloppy", versions="siblings"),
        QuorumConfig(linearizable=True),
    ]
)


@given(stores, happenings(said_by_peers(quorum_said, Quorum.Message), asked_of_a_store))
@settings(deadline=None)
def test_whatever_peers_say_a_store_goes_on_and_what_it_keeps_can_be_written_down(
    config: QuorumConfig, happenings: list[Any]
) -> None:
    core = Quorum("n1", NODES, config, Random(1))
    driver = Driver(core)
    for what in happenings:
        driver.happen(what)
        assert set(core.hints) <= set(PEERS)


# ---------------------------------------------------------------------------------------------------------------------
# SWIM

updates = st.builds(
    Update, st.sampled_from([*NODES, "n9"]), st.sampled_from(Standing), counts, st.sampled_from([*NODES, "n9"])
)
gossip = st.lists(updates, max_size=3)
sequences = st.one_of(st.integers(1, 9), wild)
swim_said = st.one_of(
    st.builds(Ping, sequences, gossip),
    st.builds(PingRequest, sequences, st.sampled_from([*NODES, "n9"]), gossip),
    st.builds(Ack, sequences, gossip),
    st.builds(Nack, sequences),
)


@given(happenings(said_by_peers(swim_said, Swim.Message), st.none()))
@settings(deadline=None)
def test_whatever_peers_say_a_member_of_a_group_goes_on_and_believes_only_in_members(happenings: list[Any]) -> None:
    core = Swim("n1", Roster(NODES), SwimConfig(interval=100 * MS, probe_timeout=50 * MS), Random(1))
    driver = Driver(core)
    incarnation = 0
    for what in happenings:
        driver.happen(what)
        assert set(core._beliefs) <= set(PEERS)
        assert 0 <= core.health <= 8
        assert core.incarnation >= incarnation
        incarnation = core.incarnation
