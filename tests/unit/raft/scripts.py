"""Cases of the paper and of systems that got them wrong, as scripts to play on `Raft` or on a mutant of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from apps import kv
from apps.raft import Entry, HardState, Raft, RaftConfig
from apps.raft.messages import Append, HeartbeatReply, ReadIndexReply, RequestVote
from tests.unit.raft.cluster import MS, Cluster, Conditions

PLAIN = RaftConfig(pre_vote=False, check_quorum=False)


def entries(*terms: int) -> list[Any]:
    """A disk with a log of these terms, as the paper draws it, and the last of them as the node's term."""
    return [
        *(Entry(index, term, b"") for index, term in enumerate(terms, 1)),
        HardState(terms[-1] if terms else 0, None),
    ]


def figure_8(make: type[Raft]) -> Cluster:
    """The paper's Figure 8: an entry of term 2 that a majority has is still overwritten by one of term 3.

    Returns the cluster after (d), S1 having had entry 2 of term 2 on a majority while it led term 4, as in (c).
    """
    cluster = Cluster(
        ["s1", "s2", "s3", "s4", "s5"],
        RaftConfig(pre_vote=False, check_quorum=False, max_batch_entries=1),
        make=make,
        records={
            "s1": [*entries(1, 2), HardState(3, None)],
            "s2": [*entries(1), HardState(3, None)],  # the figure has it there before, which makes no difference
            "s3": [*entries(1), HardState(3, None)],
            "s4": [*entries(1), HardState(3, None)],
            "s5": [*entries(1, 3), HardState(3, None)],
        },
    )

    # (c): S1 leads term 4 and brings S2 and S3 what it has of term 2, but nobody takes anything of term 4.
    def passes(sender: str, to: str, message: Any) -> bool:
        if not isinstance(message, Append) or all(entry.term < 4 for entry in message.entries):
            return True
        return cluster.core(to).log.term(message.previous_index) != message.previous_term

    cluster.passes = passes
    cluster.partition(["s1", "s2", "s3"])
    cluster.elect("s1")
    cluster.run(100)
    assert cluster.leader == "s1"
    assert cluster.terms("s2") == cluster.terms("s3") == [1, 2]
    # (d): S1 crashes, S5 is elected by S2, S3 and S4 and brings them its own entry 2.
    cluster.crash("s1")
    cluster.partition(["s2", "s3", "s4", "s5"])
    cluster.elect("s5")
    cluster.run(10)
    cluster.elect("s5")
    cluster.run(100)
    assert cluster.leader == "s5"
    return cluster


def late_heartbeat_reply(make: type[Raft]) -> tuple[Cluster, int]:
    """A leader that was deposed gets a reply to a heartbeat it sent before a read arrived.

    Returns the cluster and the number of the read; to answer it would be to answer from the past.
    """
    cluster = Cluster(["n1", "n2", "n3"], PLAIN, make=make)
    cluster.elect("n1")
    cluster.run(10)
    cluster.write("n1", "x", "old")
    cluster.run(100)
    late: list[Any] = []

    def keep_back(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, HeartbeatReply):
            late.append((sender, to, message))
            return False
        return True

    cluster.passes = keep_back
    cluster.run_until(lambda: bool(late))
    cluster.isolate("n1")
    cluster.passes = lambda sender, to, message: True
    cluster.elect("n2")
    cluster.run(10)
    cluster.write("n2", "x", "new")
    cluster.run(10)
    read = cluster.read("n1", "x")
    cluster.run(1)
    cluster.heal()
    for sender, to, message in late:
        cluster.receive(to, sender, message)
    cluster.run(0)
    return cluster, read


def forgotten_vote(make: type[Raft]) -> Cluster:
    """Two candidates of one term ask the same voter, which crashes and restarts in between."""
    cluster = Cluster(["n1", "n2", "n3"], PLAIN, make=make)
    cluster.passes = lambda sender, to, message: not (isinstance(message, RequestVote) and (sender, to) == ("n2", "n3"))
    cluster.cut("n1", "n2")
    cluster.elect("n1")
    cluster.elect("n2")
    cluster.run_until(lambda: cluster.leader == "n1")
    cluster.crash("n3")
    cluster.restart("n3")
    cluster.receive("n3", "n2", RequestVote(1, 0, 0, False))
    cluster.run(10)
    return cluster


def overtaken_append(make: type[Raft]) -> Cluster:
    """An `Append` that a later one has overtaken comes again: what followed it was acknowledged, and must stay.

    Then the leader and its log are gone for ever, and the follower that had everything stands for election.
    """
    cluster = Cluster(["n1", "n2", "n3"], PLAIN, make=make)
    cluster.elect("n1")
    cluster.run(10)
    cluster.isolate("n3")
    repeated: list[Append] = []

    def remember(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, Append) and to == "n2":
            repeated.append(message)
        return True

    cluster.passes = remember
    for value in range(3):
        cluster.write("n1", "x", value)
        cluster.run(10)
    cluster.receive("n2", "n1", repeated[0])
    cluster.run(10)
    cluster.partition(["n2", "n3"])
    cluster.elect("n2")
    cluster.run(10)
    return cluster


def answer_lost_with_the_leader(make: type[Raft]) -> tuple[Cluster, list[Any]]:
    """A client's write takes effect, its answer is lost, others write, and it sends the command again to a new leader.

    Returns the cluster and the values ``x`` had, read after each step.
    """
    cluster = Cluster(["n1", "n2", "n3"], PLAIN, make=make)
    command = kv.Command("client", 1, 0, kv.Write("x", "first"))
    cluster.elect("n1")
    cluster.run(10)
    cluster.request("n1", command)
    cluster.run(10)
    seen = [cluster.core("n1").store.read("x")]
    cluster.write("n1", "x", "second")
    cluster.run(100)
    seen.append(cluster.core("n1").store.read("x"))
    cluster.crash("n1")
    cluster.elect("n2")
    cluster.run(10)
    again = cluster.request("n2", command)
    cluster.run(10)
    assert cluster.replies[again] == kv.Done()
    seen.append(cluster.core("n2").store.read("x"))
    return cluster, seen


def power_cut(make: type[Raft]) -> tuple[Cluster, int]:
    """A cluster of one answers a write, loses power at that moment, and comes back.

    Returns the cluster and the number of a read, made then, of what was written.
    """
    cluster = Cluster(["n1"], PLAIN, make=make)
    cluster.run(1000)
    write = cluster.write("n1", "x", "precious")
    cluster.run_until(lambda: write in cluster.replies)
    cluster.crash("n1", kept=0)
    cluster.restart("n1")
    cluster.run(1000)
    read = cluster.read("n1", "x")
    cluster.run(10)
    return cluster, read


def partial_partition(config: RaftConfig, links: Iterable[tuple[str, ...]], leader: str, dead: str = "") -> Cluster:
    """Five nodes of which only ``links`` are left, after ``leader`` was elected while all could talk."""
    cluster = Cluster(["n1", "n2", "n3", "n4", "n5"], config, seed=3, conditions=Conditions(delay=(1 * MS, 3 * MS)))
    cluster.elect(leader)
    cluster.run_until(lambda: cluster.core(leader).commit > 0)
    cluster.run(60)
    if dead:
        cluster.crash(dead)
    cluster.partition(*links)
    return cluster


LEASE = RaftConfig(reads="lease", check_quorum=False)


def lease_and_late_answers(make: type[Raft]) -> tuple[Cluster, int]:
    """A leader is cut off just after a heartbeat, the answers to it come when it is nearly forgotten, others elect.

    Returns the cluster and the number of a read at the old leader, made after the new one has taken a write.
    """
    cluster = _led_by_n1(LEASE, make)
    late: list[Any] = []

    def keep_back(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, HeartbeatReply):
            late.append((sender, to, message))
            return False
        return True

    cluster.passes = keep_back
    cluster.run_until(lambda: len(late) == 2)
    cluster.passes = lambda sender, to, message: "n1" not in (sender, to)
    cluster.run(135)
    for sender, to, message in late:
        cluster.receive(to, sender, message)
    cluster.run(18)
    return cluster, _read_at_n1_after_a_write_at_n2(cluster)


def lease_and_transfer(make: type[Raft]) -> tuple[Cluster, int]:
    """A leader hands over, and hears nothing more: not even that it has been succeeded."""
    cluster = _led_by_n1(LEASE, make)
    cluster.passes = lambda sender, to, message: to != "n1"
    cluster.transfer("n1", "n2")
    cluster.run(1)
    return cluster, _read_at_n1_after_a_write_at_n2(cluster)


def lease_and_restarted_voter(make: type[Raft]) -> tuple[Cluster, int]:
    """The one follower whose answers carry the leader's lease restarts, and another node asks it for its vote."""
    cluster = _led_by_n1(LEASE, make)
    cluster.cut("n1", "n2")
    cluster.run(200)
    cluster.crash("n3")
    cluster.restart("n3")
    cluster.isolate("n1")
    return cluster, _read_at_n1_after_a_write_at_n2(cluster)


def lease_and_drift(rate: float) -> tuple[Cluster, int]:
    """The followers' clocks run ``rate`` times as fast as the leader's, which is cut off just after a heartbeat."""
    cluster = _led_by_n1(LEASE, Raft, {"n2": rate, "n3": rate})
    cluster.run_until(lambda: cluster.clock("n3") - (cluster.core("n3")._heard or 0) < MS // 2)
    cluster.run(2)
    cluster.isolate("n1")
    cluster.run(101)
    return cluster, _read_at_n1_after_a_write_at_n2(cluster)


def _led_by_n1(config: RaftConfig, make: type[Raft], rates: dict[str, float] | None = None, seed: int = 0) -> Cluster:
    cluster = Cluster(["n1", "n2", "n3"], config, seed=seed, make=make, rates=rates)
    cluster.run(151)  # who has just started votes for nobody where leases are in use
    cluster.elect("n1")
    cluster.run(10)
    assert cluster.leader == "n1"
    cluster.write("n1", "x", "old")
    cluster.run(120)
    return cluster


def _read_at_n1_after_a_write_at_n2(cluster: Cluster) -> int:
    if cluster.leader != "n2" and not cluster.core("n1")._transfer:
        cluster.elect("n2")
    cluster.run(12)
    cluster.write("n2", "x", "new")
    cluster.run(5)
    read = cluster.read("n1", "x")
    cluster.run(1)
    return read


def answer_for_an_earlier_incarnation(make: type[Raft], seed: int = 0) -> tuple[Cluster, int]:
    """A follower asks its leader about a read and restarts; the answer comes when it has asked about another read.

    Returns the cluster and the number of that read, which began when a newer value had been acknowledged.
    """
    cluster = _led_by_n1(RaftConfig(follower_reads=True), make, seed=seed)
    late: list[Any] = []

    def keep_back(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, ReadIndexReply):
            late.append(message)
            return False
        return not (isinstance(message, Append) and to == "n2")

    cluster.passes = keep_back
    cluster.read("n2", "x")
    cluster.run_until(lambda: bool(late))
    cluster.crash("n2")
    cluster.write("n1", "x", "new")
    cluster.run(10)
    cluster.restart("n2")
    cluster.run_until(lambda: cluster.core("n2").applied > 0)
    read = cluster.read("n2", "x")
    cluster.run(0)
    cluster.receive("n2", "n1", late[0])
    cluster.run(1)
    return cluster, read
