"""Leases, reads at followers, leadership given away, and writes that a leader does not take."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from apps import kv
from apps.process import Persisted, Received, Reply, Requested, Started, step
from apps.raft import Raft, RaftConfig, RaftConfigError, Role
from apps.raft.messages import Append, Heartbeat, ReadIndex, ReadIndexReply, TimeoutNow
from tests.unit.raft import scripts
from tests.unit.raft.cluster import Cluster
from tests.unit.raft.scripts import LEASE
from tests.unit.raft.test_classic_cases import THREE, led_by, sent


def led(config: RaftConfig) -> Cluster:
    cluster = Cluster(THREE, config)
    cluster.run(1000)
    leader = str(cluster.leader)
    cluster.write(leader, "x", 1)
    cluster.run(100)
    return cluster


def other(cluster: Cluster) -> str:
    return next(name for name in THREE if name != cluster.leader)


# ---- leases (thesis §6.4.1)


def test_a_read_within_the_lease_is_answered_at_once_and_without_a_message() -> None:
    cluster = led(LEASE)
    said: list[Any] = []

    def note(sender: str, to: str, message: Any) -> bool:
        said.append(message)
        return True

    cluster.passes = note
    read = cluster.read(str(cluster.leader), "x")
    cluster.run(0)
    assert cluster.replies[read] == kv.Done(1)
    assert said == []


def test_when_the_lease_has_run_out_a_read_waits_for_a_majority() -> None:
    cluster = led(LEASE)
    leader = str(cluster.leader)
    cluster.isolate(leader)
    cluster.run(200)
    read = cluster.read(leader, "x")
    cluster.run(20)
    assert read not in cluster.replies
    assert cluster.core(leader).role is Role.LEADER


def test_a_lease_is_shorter_than_the_shortest_election_timeout_by_the_drift_it_allows_for() -> None:
    assert RaftConfig(election_timeout=(1050, 2000), heartbeat_interval=10, clock_drift_bound=0.05).lease == 1000
    with pytest.raises(RaftConfigError, match=r"clock_drift_bound is -0.1; it must be from 0 to below 1"):
        RaftConfig(clock_drift_bound=-0.1)


@pytest.mark.parametrize(
    "script", [scripts.lease_and_late_answers, scripts.lease_and_transfer, scripts.lease_and_restarted_voter]
)
def test_a_lease_never_answers_from_the_past(script: Any) -> None:
    cluster, read = script(Raft)
    n2_has_written = cluster.core("n2").store.read("x") == "new"
    assert not (n2_has_written and cluster.replies.get(read) == kv.Done("old"))


def test_a_clock_that_drifts_beyond_the_bound_makes_a_lease_read_stale() -> None:
    cluster, read = scripts.lease_and_drift(1.5)
    assert cluster.core("n2").store.read("x") == "new"
    assert cluster.replies[read] == kv.Done("old")


# ---- reads at followers


def test_a_follower_answers_reads_when_it_has_asked_its_leader() -> None:
    cluster = led(RaftConfig(follower_reads=True))
    reads = [cluster.read(name, "x") for name in THREE]
    cluster.run(20)
    assert [cluster.replies[read] for read in reads] == [kv.Done(1)] * 3


def test_a_follower_that_lags_answers_a_read_only_when_it_has_caught_up() -> None:
    cluster = led(RaftConfig(follower_reads=True))
    behind = other(cluster)
    cluster.passes = lambda sender, to, message: not (isinstance(message, Append) and to == behind)
    cluster.write(str(cluster.leader), "x", 2)
    cluster.run(20)
    read = cluster.read(behind, "x")
    cluster.run(40)
    assert read not in cluster.replies
    cluster.passes = lambda sender, to, message: True
    cluster.run(200)
    assert cluster.replies[read] == kv.Done(2)


def test_a_follower_without_a_leader_says_so() -> None:
    cluster = led(RaftConfig(follower_reads=True))
    alone = other(cluster)
    cluster.isolate(alone)
    waiting = cluster.read(alone, "x")
    cluster.run(1000)
    assert cluster.replies[waiting] == kv.NotLeader(None)
    late = cluster.read(alone, "x")
    cluster.run(0)
    assert cluster.replies[late] == kv.NotLeader(None)


def test_a_lost_question_is_answered_with_the_next_one() -> None:
    cluster = led(RaftConfig(follower_reads=True))
    follower = other(cluster)
    cluster.passes = lambda sender, to, message: not isinstance(message, ReadIndex)
    first = cluster.read(follower, "x")
    cluster.run(20)
    assert first not in cluster.replies
    cluster.passes = lambda sender, to, message: True
    second = cluster.read(follower, "x")
    cluster.run(20)
    assert cluster.replies[first] == cluster.replies[second] == kv.Done(1)


@pytest.mark.parametrize("kind", [ReadIndex, ReadIndexReply])
def test_a_question_that_was_lost_or_whose_answer_was_is_asked_again_with_a_heartbeat(kind: type[Any]) -> None:
    cluster = led(RaftConfig(follower_reads=True))
    follower = other(cluster)
    asked: list[ReadIndex] = []
    lost: list[Any] = []

    def lose_one(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, ReadIndex):
            asked.append(message)
        if isinstance(message, kind) and not lost:
            lost.append(message)
            return False
        return True

    cluster.passes = lose_one
    read = cluster.read(follower, "x")
    cluster.run(40)
    assert read not in cluster.replies
    cluster.run(110)
    assert cluster.replies[read] == kv.Done(1)
    cluster.run(500)
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_reads_that_wait_are_bounded_at_a_follower_and_the_next_is_told_to_come_again() -> None:
    cluster = led(RaftConfig(follower_reads=True, max_waiting_reads=3))
    follower = other(cluster)
    cluster.passes = lambda sender, to, message: not isinstance(message, ReadIndex)
    reads = []
    for _ in range(5):
        reads.append(cluster.read(follower, "x"))
        cluster.run(20)
    busy = kv.Busy("too many reads are waiting")
    assert [cluster.replies.get(read) for read in reads] == [None, None, None, busy, busy]
    cluster.passes = lambda sender, to, message: True
    cluster.run(110)
    assert [cluster.replies[read] for read in reads[:3]] == [kv.Done(1)] * 3
    again = [cluster.read(follower, "x") for _ in range(3)]
    cluster.run(20)
    assert [cluster.replies[read] for read in again] == [kv.Done(1)] * 3


def test_reads_that_wait_are_bounded_at_a_leader_and_so_are_its_followers_questions() -> None:
    cluster = led(RaftConfig(follower_reads=True, max_waiting_reads=3, check_quorum=False))
    leader, follower = str(cluster.leader), other(cluster)
    cluster.passes = lambda sender, to, message: sender != leader and isinstance(message, ReadIndex)
    term = cluster.core(leader).term
    reads = []
    for number in range(20):
        reads.append(cluster.read(leader, "x"))
        cluster.receive(leader, follower, ReadIndex(term, number))
        cluster.run(1)
    assert [cluster.replies.get(read) for read in reads[:3]] == [None] * 3
    assert {cluster.replies[read] for read in reads[3:]} == {kv.Busy("too many reads are waiting")}
    assert len(cluster.core(leader)._read_rounds) <= 3


def test_an_answer_meant_for_an_earlier_incarnation_vouches_for_nothing() -> None:
    # Whichever of the two incarnations happens to begin with the lower number.
    for seed in range(10):
        cluster, read = scripts.answer_for_an_earlier_incarnation(Raft, seed)
        assert read not in cluster.replies, f"seed {seed}"


@pytest.mark.parametrize("seed", range(8))
def test_nor_does_it_when_the_earlier_incarnation_began_to_count_further_on(seed: int) -> None:
    core = Raft("n1", THREE, RaftConfig(follower_reads=True), Random(seed))
    step(core, 0, [Started()])
    step(core, 0, [Received("n2", Heartbeat(1, 0, 1))])
    step(core, 0, [Persisted(1)])
    ask = Requested("c", 1, kv.Command("s", 1, 1, kv.Read("x")))
    (question,) = sent(step(core, 0, [ask]))
    for number in (0, 2**51, 2**52, question.number + 1):
        if number != question.number:
            assert step(core, 0, [Received("n2", ReadIndexReply(1, number, 0))]) == []
    answered = step(core, 0, [Received("n2", ReadIndexReply(1, question.number, 0))])
    assert answered == [Reply("c", 1, kv.Done(None))]


# ---- transfer of leadership (thesis §3.10)


@pytest.mark.parametrize("config", [RaftConfig(), LEASE, scripts.PLAIN], ids=["both", "lease", "plain"])
def test_leadership_goes_where_it_is_sent_within_a_few_round_trips(config: RaftConfig) -> None:
    cluster = led(config)
    old, new = str(cluster.leader), other(cluster)
    term = cluster.core(old).term
    asked = cluster.transfer(old, new)
    cluster.run(15)
    assert cluster.leader == new
    assert cluster.replies[asked] == kv.Done()
    assert cluster.core(new).term == term + 1


def test_the_other_has_the_whole_log_before_it_is_told_to_take_over() -> None:
    cluster = led_by("n1")
    told: list[Any] = []

    def watch(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, TimeoutNow):
            told.append(cluster.core("n2").log.last)
        return not (isinstance(message, Append) and to == "n2") or cluster.now > late

    late = cluster.now + 60_000_000
    cluster.passes = watch
    cluster.write("n1", "x", 1)
    cluster.run(10)
    cluster.transfer("n1", "n2")
    cluster.run(30)
    assert told == []
    cluster.run(150)
    assert told
    assert told[0] == 2
    assert cluster.leader == "n2"


def test_writes_during_a_transfer_are_put_off_and_a_transfer_that_fails_ends() -> None:
    cluster = led_by("n1")
    cluster.run(20)
    cluster.cut("n1", "n2")
    asked, write, again = cluster.transfer("n1", "n2"), cluster.write("n1", "x", 1), cluster.transfer("n1", "n3")
    cluster.run(10)
    assert cluster.replies[write] == kv.Busy("leadership is on its way to n2")
    assert cluster.replies[again] == kv.Refused("leadership is on its way to n2")
    cluster.run(300)
    assert isinstance(cluster.replies[asked], kv.Unsure)
    later = cluster.write("n1", "x", 2)
    cluster.run(20)
    assert cluster.replies[later] == kv.Done()


def test_a_transfer_to_oneself_is_done_and_one_to_a_stranger_is_refused() -> None:
    cluster = led_by("n1")
    mine, strange, misplaced = cluster.transfer("n1", "n1"), cluster.transfer("n1", "n9"), cluster.transfer("n2", "n3")
    cluster.run(0)
    assert cluster.replies[mine] == kv.Done()
    assert cluster.replies[strange] == kv.Refused("n9 is not a voter; the voters are n1, n2, n3")
    assert cluster.replies[misplaced] == kv.NotLeader("n1")


# ---- back-pressure


def test_a_leader_takes_no_more_writes_than_it_may_hold_uncommitted_and_more_when_some_are() -> None:
    cluster = led_by("n1", RaftConfig(max_uncommitted_entries=3, check_quorum=False))
    cluster.run(20)
    cluster.passes = lambda sender, to, message: isinstance(message, Heartbeat)
    writes = [cluster.write("n1", "x", value) for value in range(5)]
    cluster.run(10)
    assert [number for number in writes if number in cluster.replies] == writes[3:]
    assert cluster.replies[writes[4]] == kv.Busy("too much is waiting to be committed")
    assert cluster.core("n1").log.last == 4
    cluster.passes = lambda sender, to, message: True
    cluster.run(200)
    later = cluster.write("n1", "x", 9)
    cluster.run(20)
    assert cluster.replies[later] == kv.Done()


def test_bytes_count_too_but_one_write_of_any_size_is_taken() -> None:
    cluster = led_by("n1", RaftConfig(max_uncommitted_bytes=1000))
    cluster.run(20)
    large = cluster.write("n1", "x", "v" * 5000)
    small = cluster.write("n1", "x", "v")
    cluster.run(20)
    assert cluster.replies[large] == kv.Done()
    assert isinstance(cluster.replies[small], kv.Busy)
    again = cluster.write("n1", "x", "v")
    cluster.run(20)
    assert cluster.replies[again] == kv.Done()
