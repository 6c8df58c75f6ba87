from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apps import kv
from apps.process import Event, Persist, Persisted, Received, Requested, Send, SetTimer, Started, TimerFired, step
from apps.raft import Contradiction, Entry, HardState, Raft, RaftConfig, RecoveryError, Role, trace
from apps.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    RequestVote,
    VoteReply,
)
from tests.unit.raft import scripts
from tests.unit.raft.cluster import MS, Cluster, Conditions
from tests.unit.raft.scripts import PLAIN, entries

THREE = ["n1", "n2", "n3"]
MODES = {
    "plain": PLAIN,
    "PreVote": RaftConfig(pre_vote=True, check_quorum=False),
    "CheckQuorum": RaftConfig(pre_vote=False, check_quorum=True),
    "both": RaftConfig(),
}


def led_by(name: str, config: RaftConfig | None = None, **more: Any) -> Cluster:
    cluster = Cluster(THREE, config, **more)
    cluster.elect(name)
    cluster.run_until(lambda: cluster.core(name).commit > 0)
    return cluster


class FirstOfRange:
    """A generator whose every draw is the lowest: election timeouts are the shortest."""

    def random(self) -> float:
        return 0.0


def alone(records: list[Any] | None = None, voters: list[str] | None = None, config: RaftConfig = PLAIN) -> Raft:
    core = Raft("n1", voters or THREE, config, FirstOfRange())  # type: ignore[arg-type]
    step(core, 0, [Started(records or [])])
    return core


def sent(effects: list[Any]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


# ---- elections


def test_a_leader_is_elected_and_makes_itself_known_to_all() -> None:
    cluster = Cluster(THREE)
    cluster.run(1000)
    assert [core.leader for core in cluster.cores] == [cluster.leader] * 3
    assert [core.commit for core in cluster.cores] == [1] * 3


@pytest.mark.parametrize("mode", MODES)
def test_without_faults_the_first_leader_stays(mode: str) -> None:
    cluster = Cluster(THREE, MODES[mode], conditions=Conditions(delay=(1 * MS, 5 * MS)))
    cluster.run(20_000)
    leaders = [event for name in THREE for event in cluster.trace(name, trace.RoleChanged) if event.role == "leader"]
    assert len(leaders) == 1


def test_a_vote_is_on_disk_before_it_is_cast() -> None:
    core = alone()
    effects = step(core, 0, [Received("n2", RequestVote(1, 0, 0, False))])
    assert sent(effects) == []
    assert [effect.records for effect in effects if isinstance(effect, Persist)] == [
        [HardState(1, None), HardState(1, "n2")]
    ]
    assert sent(step(core, 0, [Persisted(1)])) == [VoteReply(1, 1, True, False)]


def test_a_candidate_writes_its_term_and_vote_before_it_asks_for_others() -> None:
    core = alone()
    effects = step(core, 200 * MS, [TimerFired("election")])
    assert core.role is Role.CANDIDATE
    assert sent(effects) == []
    assert sent(step(core, 200 * MS, [Persisted(1)])) == [RequestVote(1, 0, 0, False)] * 2


def test_the_election_timer_counts_from_the_last_word_of_the_leader() -> None:
    core = alone()
    step(core, 100 * MS, [Received("n2", Heartbeat(1, 0, 1))])
    assert step(core, 150 * MS, [TimerFired("election")]) == [SetTimer("election", 100 * MS)]
    step(core, 250 * MS, [TimerFired("election")])
    assert core.role is Role.CANDIDATE


def test_a_voter_that_restarts_does_not_vote_again_in_the_same_term() -> None:
    cluster = scripts.forgotten_vote(Raft)
    assert cluster.core("n3").vote == "n1"
    assert not cluster.violations


def test_a_node_that_rejoins_deposes_the_leader_without_pre_vote() -> None:
    cluster = led_by("n1", PLAIN)
    cluster.isolate("n3")
    cluster.run(2000)
    assert cluster.core("n3").term > 3
    cluster.heal()
    cluster.run(1000)
    assert cluster.core("n1").term > 3


def test_a_node_that_rejoins_does_no_harm_with_pre_vote() -> None:
    cluster = led_by("n1", MODES["PreVote"])
    cluster.isolate("n3")
    cluster.run(2000)
    assert cluster.core("n3").role is Role.PRE_CANDIDATE
    cluster.heal()
    cluster.run(1000)
    assert cluster.leader == "n1"
    assert {core.term for core in cluster.cores} == {1}
    assert {core.leader for core in cluster.cores} == {"n1"}


def test_a_log_that_lacks_committed_entries_cannot_win() -> None:
    cluster = led_by("n1", PLAIN)
    cluster.isolate("n3")
    cluster.write("n1", "x", 1)
    cluster.run(50)
    cluster.partition(["n2", "n3"])
    cluster.elect("n3")
    cluster.run(20)
    assert cluster.core("n3").role is not Role.LEADER
    cluster.elect("n2")
    cluster.run(20)
    assert cluster.leader == "n2"


# ---- partial partitions (decentralizedthoughts 2020-12-12, on Cloudflare's outage)


def changes(cluster: Cluster, milliseconds: int) -> int:
    before = sum(len(cluster.trace(name, trace.RoleChanged)) for name in cluster.names)
    cluster.run(milliseconds)
    return sum(len(cluster.trace(name, trace.RoleChanged)) for name in cluster.names) - before


MESH = [("n1", "n2", "n3"), ("n4", "n2")]


def test_nodes_that_miss_the_leader_but_reach_its_followers_unsettle_plain_raft_and_not_pre_vote() -> None:
    links = [*MESH, ("n5", "n3")]
    assert changes(scripts.partial_partition(PLAIN, links, leader="n3"), 5000) > 20
    settled = scripts.partial_partition(MODES["PreVote"], links, leader="n3")
    settled.run(1000)
    assert settled.leader == "n3"
    assert settled.core("n3").term == 1


@pytest.mark.parametrize(("mode", "recovers"), [("PreVote", False), ("both", True)])
def test_a_leader_that_reaches_one_follower_blocks_pre_vote_until_it_checks_its_quorum(
    mode: str, recovers: bool
) -> None:
    cluster = scripts.partial_partition(MODES[mode], MESH, leader="n4", dead="n5")
    cluster.run(5000)
    assert (cluster.leader in ("n1", "n2", "n3")) is recovers
    if recovers:
        number = cluster.write(str(cluster.leader), "x", 1)
        cluster.run(50)
        assert cluster.replies[number] == kv.Done()


# ---- logs (paper §5.3, §5.4.2)


def test_figure_7_every_follower_comes_to_hold_the_leaders_log() -> None:
    logs = {
        "leader": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6),
        "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
        "b": (1, 1, 1, 4),
        "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        "e": (1, 1, 1, 4, 4, 4, 4),
        "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    }
    cluster = Cluster(
        list(logs), PLAIN, records={name: [*entries(*terms), HardState(7, None)] for name, terms in logs.items()}
    )
    rejections: list[str] = []

    def count(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, AppendRejected):
            rejections.append(sender)
        return True

    cluster.passes = count
    cluster.elect("leader")
    cluster.run(140)
    for name in logs:
        assert cluster.terms(name) == [*logs["leader"], 8]
    # A probe skips a term at a time: f has two whole terms that the leader never saw.
    assert {name: rejections.count(name) for name in logs} == {
        "leader": 0,
        "a": 1,
        "b": 1,
        "c": 0,
        "d": 0,
        "e": 1,
        "f": 1,
    }
    assert not cluster.violations


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() -> None:
    cluster = scripts.figure_8(Raft)
    assert cluster.core("s1").commit == 0
    assert cluster.terms("s3")[:2] == [1, 3]
    assert not cluster.violations


def test_an_overtaken_append_removes_nothing() -> None:
    cluster = scripts.overtaken_append(Raft)
    assert cluster.leader == "n2"
    assert cluster.core("n2").store.read("x") == 2
    assert not cluster.trace("n2", trace.Truncated)
    assert not cluster.violations


def test_what_was_lost_on_the_way_is_sent_again() -> None:
    cluster = led_by("n1")
    cluster.run(20)
    lost: list[Any] = []

    def lose_one(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, Append) and message.entries and len(lost) < 2:
            lost.append(message)
            return False
        return True

    cluster.passes = lose_one
    numbers = []
    for value in range(5):
        numbers.append(cluster.write("n1", "x", value))
        cluster.run(1)
    cluster.run(150)
    assert len(lost) == 2
    assert all(cluster.replies[number] == kv.Done() for number in numbers)
    assert cluster.terms("n1") == cluster.terms("n2") == cluster.terms("n3")


def test_no_more_messages_are_in_flight_than_the_window_allows() -> None:
    cluster = led_by("n1", RaftConfig(check_quorum=False, max_inflight=3, max_batch_entries=2))
    cluster.run(20)
    taken: list[Append] = []

    def swallow(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, Append) and message.entries and to == "n2":
            taken.append(message)
        return not isinstance(message, Append | AppendReply)

    cluster.passes = swallow
    for value in range(20):
        cluster.write("n1", "x", value)
    cluster.run(30)
    assert [len(message.entries) for message in taken] == [2, 2, 2]


def test_an_append_holds_no_more_bytes_than_allowed_unless_one_entry_does() -> None:
    cluster = led_by("n1", RaftConfig(max_batch_bytes=1000))
    cluster.run(20)
    sizes: list[list[int]] = []

    def note(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, Append) and message.entries and to == "n2":
            sizes.append([len(entry.command) for entry in message.entries])
        return True

    cluster.passes = note
    for length in (400, 400, 400, 5000, 10):
        cluster.write("n1", "x", "v" * length)
    cluster.run(20)
    assert [len(batch) for batch in sizes] == [2, 1, 1, 1]
    assert all(sum(batch) <= 1000 or len(batch) == 1 for batch in sizes)


def test_a_node_stops_when_a_leader_denies_what_it_has_committed() -> None:
    core = alone(entries(1, 1))
    step(core, 0, [Received("n2", Append(1, 2, 1, 2, []))])
    assert core.applied == 2
    with pytest.raises(Contradiction, match="entry 2 is committed, but n3 leads with another"):
        step(core, 0, [Received("n3", Append(2, 1, 1, 1, [Entry(2, 2, b"")]))])


# ---- durability


def test_a_follower_acknowledges_only_what_is_on_its_disk() -> None:
    core = alone([HardState(1, None)])
    first, second = Entry(1, 1, b""), Entry(2, 1, b"")
    assert sent(step(core, 0, [Received("n2", Append(1, 0, 0, 0, [first]))])) == []
    assert sent(step(core, 0, [Received("n2", Append(1, 1, 1, 0, [second]))])) == []
    assert sent(step(core, 0, [Persisted(1)])) == [AppendReply(1, 1)]
    assert sent(step(core, 0, [Persisted(2)])) == [AppendReply(1, 2)]


def test_what_was_written_of_a_removed_entry_says_nothing_about_its_successor() -> None:
    core = alone([HardState(1, None)])
    step(core, 0, [Received("n2", Append(1, 0, 0, 0, [Entry(1, 1, b"a"), Entry(2, 1, b"b")]))])
    step(core, 0, [Received("n3", Append(2, 1, 1, 0, [Entry(2, 2, b"c")]))])
    assert sent(step(core, 0, [Persisted(1)])) == []
    assert sent(step(core, 0, [Persisted(2)]))[-1] == AppendReply(2, 2)


def test_a_leader_commits_what_a_majority_of_others_has_before_its_own_disk_is_done() -> None:
    cluster = led_by("n1")
    cluster.run(20)
    cluster.nodes["n1"].written_at = cluster.now + 80 * MS
    number = cluster.write("n1", "x", 1)
    cluster.run(10)
    assert cluster.nodes["n1"].writing
    assert cluster.replies[number] == kv.Done()


def test_a_leader_does_not_count_itself_before_its_own_disk_is_done() -> None:
    cluster = led_by("n1")
    cluster.run(20)
    cluster.cut("n1", "n3")
    cluster.nodes["n1"].written_at = cluster.now + 40 * MS
    number = cluster.write("n1", "x", 1)
    cluster.run(30)
    assert number not in cluster.replies
    cluster.run(30)
    assert cluster.replies[number] == kv.Done()


def test_a_cluster_of_one_answers_after_its_own_disk_and_not_before() -> None:
    core = alone(voters=["n1"], config=RaftConfig())
    roles = []
    for event in (TimerFired("election"), Persisted(1), Persisted(2)):
        step(core, 200 * MS, [event])
        roles.append(core.role)
    assert roles == [Role.CANDIDATE, Role.LEADER, Role.LEADER]
    write = Requested("c", 1, kv.Command("s", 1, 0, kv.Write("x", 1)))
    effects = step(core, 201 * MS, [write])
    assert [type(effect).__name__ for effect in effects] == ["Trace", "Persist"]
    assert [effect.result for effect in step(core, 202 * MS, [Persisted(3)]) if hasattr(effect, "result")] == [
        kv.Done()
    ]
    read = Requested("c", 2, kv.Command("s", 2, 0, kv.Read("x")))
    assert [effect.result for effect in step(core, 203 * MS, [read]) if hasattr(effect, "result")] == [kv.Done(1)]


def test_what_was_answered_survives_a_power_cut() -> None:
    cluster, read = scripts.power_cut(Raft)
    assert cluster.replies[read] == kv.Done("precious")


def test_a_node_recovers_its_term_its_vote_and_the_log_as_it_was_last_replaced() -> None:
    records = [HardState(1, "n2"), Entry(1, 1, b"a"), Entry(2, 1, b"b"), HardState(2, "n3"), Entry(2, 2, b"c")]
    core = alone(records)
    assert (core.term, core.vote) == (2, "n3")
    assert core.log.slice(1, core.log.last) == [Entry(1, 1, b"a"), Entry(2, 2, b"c")]


def test_a_durable_log_with_a_gap_is_refused() -> None:
    with pytest.raises(RecoveryError, match="entry 3 was recovered, but none at 2"):
        alone([Entry(1, 1, b""), Entry(3, 1, b"")])


def test_the_whole_cluster_restarts_with_everything_that_was_acknowledged() -> None:
    cluster = led_by("n1")
    numbers = [cluster.write("n1", f"k{value}", value) for value in range(10)]
    cluster.run_until(lambda: all(number in cluster.replies for number in numbers))
    for name in THREE:
        cluster.crash(name)
    for name in THREE:
        cluster.restart(name)
    cluster.run(2000)
    reads = [cluster.read(str(cluster.leader), f"k{value}") for value in range(10)]
    cluster.run(20)
    assert [cluster.replies[number] for number in reads] == [kv.Done(value) for value in range(10)]


# ---- clients


def test_a_node_that_does_not_lead_names_the_leader_at_once() -> None:
    cluster = led_by("n1")
    cluster.run(10)
    number = cluster.write("n2", "x", 1)
    cluster.run(0)
    assert cluster.replies[number] == kv.NotLeader("n1")


def test_check_quorum_makes_an_isolated_leader_step_down_and_answer_its_clients() -> None:
    cluster = led_by("n1")
    cluster.run(10)
    cluster.isolate("n1")
    write, read = cluster.write("n1", "x", 1), cluster.read("n1", "x")
    cluster.run(299)
    assert cluster.core("n1").role is Role.LEADER
    cluster.run(200)
    assert cluster.core("n1").role is not Role.LEADER
    assert isinstance(cluster.replies[write], kv.Unsure)
    assert cluster.replies[read] == kv.NotLeader(None)


def test_without_check_quorum_an_isolated_leader_goes_on_in_vain_until_it_hears_of_the_next() -> None:
    cluster = led_by("n1", PLAIN)
    cluster.isolate("n1")
    write, read = cluster.write("n1", "x", 1), cluster.read("n1", "x")
    cluster.run(3000)
    assert cluster.core("n1").role is Role.LEADER
    assert not {write, read} & set(cluster.replies)
    cluster.heal()
    cluster.run(100)
    assert isinstance(cluster.replies[write], kv.Unsure)
    assert cluster.replies[read] == kv.NotLeader(cluster.leader)


def test_a_request_that_never_reached_the_log_is_not_left_in_doubt() -> None:
    cluster = led_by("n1")
    core = cluster.core("n1")
    write = Requested("c", 1, kv.Command("s", 1, 0, kv.Write("x", 1)))
    effects = step(core, cluster.now, [write, Received("n2", Heartbeat(core.term + 1, 0, 1))])
    assert [effect.result for effect in effects if hasattr(effect, "result")] == [kv.NotLeader("n2")]


def test_a_deposed_leader_does_not_answer_a_read() -> None:
    cluster = led_by("n1", PLAIN)
    cluster.write("n1", "x", "old")
    cluster.run(100)
    cluster.isolate("n1")
    cluster.elect("n2")
    cluster.run(20)
    cluster.write("n2", "x", "new")
    cluster.run(20)
    stale, fresh = cluster.read("n1", "x"), cluster.read("n2", "x")
    cluster.run(20)
    assert stale not in cluster.replies
    assert cluster.replies[fresh] == kv.Done("new")


def test_an_answer_to_a_heartbeat_sent_before_the_read_does_not_vouch_for_it() -> None:
    cluster, read = scripts.late_heartbeat_reply(Raft)
    assert read not in cluster.replies
    cluster.run(200)
    assert isinstance(cluster.replies[read], kv.NotLeader)


def test_a_read_waits_until_an_entry_of_the_leaders_term_is_committed() -> None:
    cluster = led_by("n1", PLAIN)
    write = cluster.write("n1", "x", 1)
    # n1 answers its client, but nobody hears from it any more that the write is committed.
    cluster.run_until(lambda: write in cluster.replies)
    cluster.crash("n1")
    cluster.passes = lambda sender, to, message: not isinstance(message, AppendReply)
    cluster.elect("n2")
    cluster.run(50)
    assert cluster.leader == "n2"
    assert cluster.core("n2").applied < 2
    read = cluster.read("n2", "x")
    cluster.run(20)
    assert read not in cluster.replies
    cluster.passes = lambda sender, to, message: True
    cluster.run(200)
    assert cluster.replies[read] == kv.Done(1)


def test_a_retried_write_takes_effect_once_across_a_change_of_leader() -> None:
    cluster, seen = scripts.answer_lost_with_the_leader(Raft)
    assert seen == ["first", "second", "second"]
    assert not cluster.violations


# ---- what a driver sees


def test_a_thousand_requests_at_hand_together_make_one_write_and_one_message_that_all_peers_share() -> None:
    cluster = led_by("n1")
    cluster.run(20)
    requests = [Requested("c", number, kv.Command("s", number, 0, kv.Write("x", number))) for number in range(1000)]
    effects = step(cluster.core("n1"), cluster.now, requests)
    assert [type(effect).__name__ for effect in effects] == ["Trace", "Persist", "Send", "Send"]
    assert [len(effect.records) for effect in effects if isinstance(effect, Persist)] == [1000]
    one, other = sent(effects)
    assert one is other


def test_the_trace_has_the_keys_its_document_names() -> None:
    cluster = led_by("n1")
    cluster.write("n1", "x", 1)
    cluster.run(100)
    keys: dict[str, set[str]] = {}
    for event in [*cluster.nodes["n1"].trace, trace.Truncated(1), trace.Installed(1, 1)]:
        line = msgspec.json.decode(msgspec.json.encode(event))
        keys.setdefault(line["ev"], set()).update(line)
        if line["ev"] in ("append", "apply"):
            assert len(line["terms"]) == len(line["digests"])
            assert all(len(digest) == 8 for digest in line["digests"])
    assert keys == {
        "started": {"ev", "term", "vote", "last", "last_term"},
        "role": {"ev", "role", "term", "last", "last_term"},
        "vote": {"ev", "term", "candidate"},
        "truncate": {"ev", "from"},
        "append": {"ev", "first", "terms", "digests"},
        "commit": {"ev", "index", "term"},
        "apply": {"ev", "first", "terms", "digests"},
        "install": {"ev", "index", "term"},
        "configure": {"ev", "index", "voters", "learners", "outgoing"},
    }


def test_a_timer_that_fires_in_the_step_that_cancelled_it_is_ignored() -> None:
    cluster = led_by("n1")
    core = cluster.core("n1")
    deposed: list[Event] = [Received("n2", Heartbeat(core.term + 1, 0, 1)), TimerFired("heartbeat")]
    assert not [message for message in sent(step(core, cluster.now, deposed)) if isinstance(message, Heartbeat)]
    leader = led_by("n1").core("n1")
    step(leader, 10_000 * MS, [TimerFired("election")])
    assert leader.role is Role.LEADER


def test_strangers_are_not_heard() -> None:
    core = alone()
    assert step(core, 0, [Received("n9", RequestVote(5, 9, 9, False))]) == []
    assert core.term == 0


def test_a_message_of_an_earlier_term_is_answered_with_the_present_one() -> None:
    core = alone([HardState(5, None)])
    assert sent(step(core, 0, [Received("n2", Append(4, 0, 0, 0, []))])) == [AppendRejected(5, 0, 0, 0)]
    assert sent(step(core, 0, [Received("n2", Heartbeat(4, 0, 7))])) == [HeartbeatReply(5, 0)]
    assert sent(step(core, 0, [Received("n2", RequestVote(4, 0, 0, False))])) == [VoteReply(5, 4, False, False)]


@pytest.mark.parametrize("voters", [["n2", "n3"], ["n1", "n1", "n2"]])
def test_nodes_that_cannot_be_a_cluster_are_refused(voters: list[str]) -> None:
    with pytest.raises(ValueError, match="must name each node once"):
        alone(voters=voters)


@pytest.mark.parametrize("voters", [("n2", "n9"), ("n1", "n1", "n2")])
def test_voters_that_are_no_nodes_are_refused(voters: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must name each once, and none but nodes"):
        alone(config=RaftConfig(voters=voters))
