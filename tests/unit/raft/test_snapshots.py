"""Snapshots: the log is forgotten and nothing else is."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from apps import kv
from apps.process import Persisted, Received, Snapshot, Started, step
from apps.raft import Entry, HardState, Raft, RaftConfig, RecoveryError, trace
from apps.raft.messages import Append, AppendReply, InstallSnapshot, SnapshotRecord, SnapshotReply
from apps.raft.quorum import Configuration
from tests.unit.raft import mutants
from tests.unit.raft.cluster import MS, Cluster
from tests.unit.raft.test_classic_cases import alone, led_by, sent

OFTEN = RaftConfig(snapshot_entries=20, max_batch_bytes=100, check_quorum=False)


def written(cluster: Cluster, count: int) -> Cluster:
    for value in range(count):
        cluster.write("n1", f"k{value % 7}", value)
        cluster.run(5)
    cluster.run(100)
    return cluster


STATE = kv.Store()
STATE.apply(kv.Command("s", 1, 0, kv.Write("x", "theirs")))
DATA = STATE.dump()
MEMBERS = Configuration(0, ("n1", "n2", "n3"))


def pieces(index: int, term: int, size: int = 8, leader_term: int = 3) -> list[InstallSnapshot]:
    return [
        InstallSnapshot(
            leader_term, index, term, crc32c(DATA), len(DATA), offset, DATA[offset : offset + size], MEMBERS
        )
        for offset in range(0, len(DATA), size)
    ]


# ---- compaction and recovery


def test_neither_memory_nor_disk_grow_with_the_log() -> None:
    cluster = written(led_by("n1", OFTEN), 200)
    for name in cluster.names:
        log = cluster.core(name).log
        assert log.last > 200
        assert log.last - log.base <= 20 + 2
        assert len(cluster.nodes[name].durable) < 60
    assert not cluster.violations


def test_a_node_recovers_from_its_snapshot_and_the_log_behind_it() -> None:
    cluster = written(led_by("n1", OFTEN), 90)
    before = {name: cluster.core(name).store.dump() for name in cluster.names}
    for name in cluster.names:
        cluster.crash(name)
    for name in cluster.names:
        cluster.restart(name)
    assert all(core.applied >= 60 for core in cluster.cores)
    cluster.run(2000)
    assert {name: cluster.core(name).store.dump() for name in cluster.names} == before
    assert not cluster.violations


def test_a_snapshot_that_fails_its_checksum_is_not_recovered_from() -> None:
    with pytest.raises(RecoveryError, match="the checksum of the snapshot at 5 differs"):
        alone([SnapshotRecord(5, 1, 5, 1, 0, DATA, MEMBERS)])


def test_a_snapshot_is_written_with_the_term_the_vote_and_the_log_that_goes_on() -> None:
    core = alone([HardState(3, "n2")])
    for piece in pieces(10, 2, len(DATA)):
        effects = step(core, 0, [Received("n2", piece)])
    assert [effect.records for effect in effects if isinstance(effect, Snapshot)] == [
        [HardState(3, "n2"), SnapshotRecord(10, 2, 10, 2, crc32c(DATA), DATA, MEMBERS)]
    ]
    assert sent(effects) == []
    assert sent(step(core, 0, [Persisted(1)])) == [AppendReply(3, 10)]


# ---- a follower that lacks what is gone


def test_a_follower_that_was_away_for_long_gets_the_snapshot_in_pieces_and_then_the_log() -> None:
    cluster = led_by("n1", OFTEN)
    cluster.run(20)
    cluster.crash("n3")
    written(cluster, 100)
    said: list[Any] = []

    def note(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, InstallSnapshot):
            said.append(message)
            return len(said) != 2  # one is lost
        return True

    cluster.passes = note
    cluster.restart("n3")
    cluster.run(1000)
    assert len(said) > 3
    assert max(len(message.data) for message in said) == 100
    assert cluster.trace("n3", trace.Installed)
    assert cluster.core("n3").store.dump() == cluster.core("n1").store.dump()
    assert not cluster.violations


def test_a_snapshot_that_nobody_can_install_is_sent_no_more_often_than_heartbeats() -> None:
    cluster = led_by("n1", OFTEN)
    cluster.run(20)
    cluster.crash("n3")
    written(cluster, 100)
    leader = cluster.core("n1")
    assert leader._snapshot is not None
    leader._snapshot = msgspec.structs.replace(leader._snapshot, checksum=0)
    begun = 0

    def count(sender: str, to: str, message: Any) -> bool:
        nonlocal begun
        begun += isinstance(message, InstallSnapshot) and message.offset == 0
        return True

    cluster.passes = count
    cluster.restart("n3")
    cluster.run(1000)
    assert 2 <= begun <= 1000 * MS // OFTEN.heartbeat_interval + 1
    assert leader._snapshot.index not in {event.index for event in cluster.trace("n3", trace.Installed)}


def test_a_snapshot_that_arrives_damaged_is_asked_for_again_from_its_beginning() -> None:
    core = alone([HardState(3, None)])
    whole = pieces(10, 2)
    damaged = msgspec.structs.replace(whole[1], data=b"?" * len(whole[1].data))
    answers = [sent(step(core, 0, [Received("n2", piece)]))[0] for piece in (whole[0], damaged, *whole[2:])]
    assert answers[0] == SnapshotReply(3, 10, 8)
    assert answers[-1] == SnapshotReply(3, 10, 0)
    assert core.applied == 0
    for piece in whole:
        step(core, 0, [Received("n2", piece)])
    assert (core.applied, core.store.read("x")) == (10, "theirs")


def test_pieces_may_come_twice_or_out_of_order() -> None:
    core = alone([HardState(3, None)])
    whole = pieces(10, 2)
    for piece in (whole[0], whole[2], whole[0], whole[1], *whole):
        step(core, 0, [Received("n2", piece)])
    assert core.applied == 10


def longer_log(make: type[Raft]) -> Raft:
    """A follower that has acknowledged entries up to 4 gets a snapshot that ends at 2, late."""
    core = make("n1", ["n1", "n2", "n3"], OFTEN, random.Random(0))
    log = [Entry(index, 2, b"") for index in range(1, 5)]
    step(core, 0, [Started([*log, HardState(3, None)])])
    for piece in pieces(2, 2):
        step(core, 0, [Received("n2", piece)])
    return core


def test_a_snapshot_over_a_longer_log_that_agrees_leaves_what_follows() -> None:
    core = longer_log(Raft)
    assert (core.log.base, core.log.last, core.applied) == (2, 4, 2)


def test_a_mutant_that_takes_a_snapshot_for_the_end_of_a_longer_log_loses_what_it_acknowledged() -> None:
    assert longer_log(mutants.InstallsOverALongerLog).log.last == 2


def conflicting_log(make: type[Raft]) -> Raft:
    core = make("n1", ["n1", "n2", "n3"], OFTEN, random.Random(0))
    step(core, 0, [Started([*(Entry(index, 1, b"") for index in range(1, 5)), HardState(3, None)])])
    for piece in pieces(2, 2):
        step(core, 0, [Received("n2", piece)])
    return core


def test_a_snapshot_over_a_log_that_does_not_agree_takes_its_place() -> None:
    core = conflicting_log(Raft)
    assert (core.log.base, core.log.last, core.log.last_term) == (2, 2, 2)


def test_a_mutant_that_keeps_a_log_that_does_not_agree_with_the_snapshot_has_entries_nobody_sent() -> None:
    assert conflicting_log(mutants.KeepsAConflictingLog).log.last == 4


def test_a_snapshot_of_what_is_committed_here_already_is_only_acknowledged() -> None:
    core = alone([*(Entry(index, 2, b"") for index in range(1, 5)), HardState(3, None)])
    step(core, 0, [Received("n2", Append(3, 4, 2, 4, []))])
    assert sent(step(core, 0, [Received("n2", pieces(2, 2)[0])])) == [AppendReply(3, 4)]
    assert (core.applied, core.store.read("x")) == (4, None)


def test_a_follower_asked_about_what_it_has_forgotten_says_how_far_it_agrees() -> None:
    core = alone([SnapshotRecord(10, 2, 8, 2, crc32c(DATA), DATA, MEMBERS), Entry(9, 2, b""), Entry(10, 2, b"")])
    assert sent(step(core, 0, [Received("n2", Append(3, 5, 1, 5, []))])) == []
    assert sent(step(core, 0, [Persisted(1)])) == [AppendReply(3, 8)]


# ---- the state as bytes


operations = st.one_of(
    st.builds(kv.Write, st.sampled_from("xyz"), st.none() | st.integers(0, 3) | st.binary(max_size=3)),
    st.builds(kv.Cas, st.sampled_from("xyz"), st.none() | st.integers(0, 3), st.integers(0, 3)),
    st.builds(kv.Delete, st.sampled_from("xyz")),
)
commands = st.lists(
    st.builds(kv.Command, st.sampled_from("ab"), st.integers(1, 6), st.integers(0, 6), operations), max_size=20
)


@given(commands, commands)
def test_a_state_that_went_through_bytes_goes_on_as_it_would_have(first: Any, then: Any) -> None:
    store = kv.Store()
    for command in first:
        store.apply(command)
    copy = kv.Store.load(store.dump())
    assert copy.dump() == store.dump()
    assert [copy.apply(command) for command in then] == [store.apply(command) for command in then]
    assert copy.dump() == store.dump()
