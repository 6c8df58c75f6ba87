"""Who takes part is changed by joint consensus, and nothing that was promised is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from apps import kv
from apps.raft import HardState, Raft, RaftConfig, Role, trace
from apps.raft.messages import Append, RequestVote, TimeoutNow, configuration_entry
from apps.raft.quorum import Configuration
from tests.unit.raft import mutants
from tests.unit.raft.cluster import Cluster

FIVE = ["n1", "n2", "n3", "n4", "n5"]
OF_THREE = RaftConfig(voters=("n1", "n2", "n3"))


def led(config: RaftConfig = OF_THREE, names: list[str] = FIVE, make: type[Raft] = Raft) -> Cluster:
    """A cluster whose voters in the beginning are n1, n2 and n3, led by n1."""
    cluster = Cluster(names, config, make=make)
    cluster.run(151)
    cluster.elect("n1")
    cluster.run(20)
    assert cluster.leader == "n1"
    cluster.write("n1", "x", "before")
    cluster.run(20)
    return cluster


def change(cluster: Cluster, voters: str, learners: str = "", at: str = "n1") -> int:
    return cluster.change(at, voters.split(), learners.split())


def members(cluster: Cluster, name: str) -> tuple[Any, ...]:
    configuration = cluster.core(name).configuration
    return configuration.voters, configuration.learners, configuration.outgoing


# ---- how it goes when all goes well


def test_nodes_are_added_and_removed_by_way_of_a_joint_configuration() -> None:
    cluster = led()
    asked = change(cluster, "n1 n4 n5")
    cluster.run(100)
    assert cluster.replies[asked] == kv.Done()
    seen = [(event.voters, event.outgoing) for event in cluster.trace("n4", trace.Configured)]
    old, new = ("n1", "n2", "n3"), ("n1", "n4", "n5")
    assert seen == [(old, ()), (new, old), (new, ())]
    assert cluster.core("n5").store.read("x") == "before"
    cluster.crash("n2")
    cluster.crash("n3")
    write = cluster.write("n1", "x", "after")
    cluster.run(100)
    assert cluster.replies[write] == kv.Done()
    assert not cluster.violations


def test_a_node_that_is_no_member_waits_and_stands_for_no_election() -> None:
    cluster = Cluster(FIVE, OF_THREE)
    cluster.isolate("n4")
    cluster.run(3000)
    assert cluster.core("n4").term == 0
    assert cluster.leader in ("n1", "n2", "n3")


def test_a_learner_gets_the_log_and_has_no_say() -> None:
    cluster = led()
    asked = change(cluster, "n1 n2 n3", "n4")
    cluster.run(100)
    assert cluster.replies[asked] == kv.Done()
    assert [event.outgoing for event in cluster.trace("n4", trace.Configured)] == [(), ()]
    cluster.crash("n2")
    cluster.crash("n3")
    write = cluster.write("n1", "x", "lost?")
    cluster.run(100)
    assert write not in cluster.replies
    assert cluster.core("n4").log.last == cluster.core("n1").log.last
    cluster.run(2000)
    assert cluster.leader is None
    assert cluster.core("n4").role is Role.FOLLOWER


def test_a_learner_is_promoted_and_a_voter_made_a_learner() -> None:
    cluster = led()
    change(cluster, "n1 n2 n3", "n4")
    cluster.run(100)
    asked = change(cluster, "n1 n2 n4", "n3")
    cluster.run(100)
    assert cluster.replies[asked] == kv.Done()
    assert {members(cluster, name) for name in ("n1", "n2", "n3", "n4")} == {(("n1", "n2", "n4"), ("n3",), ())}


def test_a_new_voter_gets_the_snapshot_first_if_the_log_is_gone() -> None:
    cluster = led(RaftConfig(voters=("n1", "n2", "n3"), snapshot_entries=10, max_batch_bytes=100))
    for value in range(40):
        cluster.write("n1", f"k{value % 3}", value)
        cluster.run(5)
    asked = change(cluster, "n1 n2 n4")
    cluster.run(500)
    assert cluster.replies[asked] == kv.Done()
    assert cluster.trace("n4", trace.Installed)
    assert cluster.core("n4").store.dump() == cluster.core("n1").store.dump()


# ---- catching up (thesis §4.2.1)


def test_nothing_changes_before_the_new_voter_has_caught_up() -> None:
    cluster = led()
    cluster.passes = lambda sender, to, message: not (isinstance(message, Append) and to == "n4")
    asked = change(cluster, "n1 n2 n3 n4")
    cluster.run(500)
    assert asked not in cluster.replies
    assert members(cluster, "n1") == (("n1", "n2", "n3"), (), ())
    write = cluster.write("n1", "x", 1)
    cluster.run(20)
    assert cluster.replies[write] == kv.Done()
    cluster.passes = lambda sender, to, message: True
    cluster.run(200)
    assert cluster.replies[asked] == kv.Done()
    assert members(cluster, "n1")[0] == ("n1", "n2", "n3", "n4")


def test_a_new_voter_that_does_not_answer_is_given_up_and_nothing_is_changed() -> None:
    cluster = led()
    cluster.crash("n4")
    asked = change(cluster, "n1 n2 n3 n4")
    cluster.run(3500)
    assert cluster.replies[asked] == kv.Refused("n4 does not answer; nothing was changed")
    assert members(cluster, "n1") == (("n1", "n2", "n3"), (), ())
    again = change(cluster, "n1 n2 n3 n5")
    cluster.run(200)
    assert cluster.replies[again] == kv.Done()


# ---- what is refused


@pytest.mark.parametrize(
    ("voters", "learners", "reason"),
    [
        ("", "n1", "a cluster needs at least one voter"),
        ("n1 n8", "n9", "n8, n9: no such node; there are n1, n2, n3, n4, n5"),
        ("n1 n2 n1", "", "n1 is named twice; a member is a voter or a learner, once"),
        ("n1 n2", "n2", "n2 is named twice; a member is a voter or a learner, once"),
    ],
)
def test_a_membership_that_cannot_be_is_refused(voters: str, learners: str, reason: str) -> None:
    cluster = led()
    asked = change(cluster, voters, learners)
    cluster.run(0)
    assert cluster.replies[asked] == kv.Refused(reason)


def test_a_node_that_does_not_lead_names_the_leader() -> None:
    cluster = led()
    cluster.run(60)
    asked = change(cluster, "n1 n2", at="n2")
    cluster.run(0)
    assert cluster.replies[asked] == kv.NotLeader("n1")


def test_one_change_at_a_time() -> None:
    cluster = led()
    first, second = change(cluster, "n1 n2 n4"), change(cluster, "n1 n2 n5")
    cluster.run(100)
    assert cluster.replies[first] == kv.Done()
    assert cluster.replies[second] == kv.Busy("another change of membership is under way")
    assert members(cluster, "n1")[0] == ("n1", "n2", "n4")


def test_no_change_begins_before_an_entry_of_the_leaders_term_is_committed() -> None:
    cluster = led()
    cluster.passes = lambda sender, to, message: not isinstance(message, Append)
    cluster.transfer("n1", "n2")
    cluster.run(20)
    assert cluster.leader == "n2"
    asked = change(cluster, "n1 n2 n4", at="n2")
    cluster.run(0)
    assert cluster.replies[asked] == kv.Busy(f"no entry of term {cluster.core('n2').term} is committed yet")


def test_leadership_is_transferred_to_voters_only() -> None:
    cluster = led()
    change(cluster, "n1 n2 n3", "n4")
    cluster.run(100)
    asked = cluster.transfer("n1", "n4")
    cluster.run(0)
    assert cluster.replies[asked] == kv.Refused("n4 is not a voter; the voters are n1, n2, n3")


# ---- majorities of both


@pytest.mark.parametrize("missing", [("n2", "n3"), ("n4", "n5")])
def test_while_it_is_joint_each_set_of_voters_can_hold_up_a_commit_and_an_election(missing: tuple[str, str]) -> None:
    cluster = led()
    asked = change(cluster, "n1 n4 n5")
    cluster.run_until(lambda: bool(cluster.core("n1").configuration.outgoing))
    for name in missing:
        cluster.crash(name)
    write = cluster.write("n1", "x", "held up")
    cluster.run(100)
    assert write not in cluster.replies
    assert asked not in cluster.replies
    cluster.run(2000)
    assert cluster.leader is None
    cluster.restart(missing[0])
    cluster.run(2000)
    assert cluster.leader is not None
    assert members(cluster, str(cluster.leader))[2] == ()
    assert not cluster.violations


def test_the_next_leader_finishes_a_change_that_it_finds_half_done() -> None:
    cluster = led()
    asked = change(cluster, "n1 n4 n5")
    cluster.run_until(lambda: all(cluster.core(name).configuration.outgoing for name in FIVE))
    cluster.crash("n1")
    cluster.run(2000)
    assert asked not in cluster.replies
    assert cluster.leader in ("n4", "n5")
    assert members(cluster, str(cluster.leader)) == (("n1", "n4", "n5"), (), ())
    cluster.restart("n1")
    cluster.run(500)
    assert members(cluster, "n1") == (("n1", "n4", "n5"), (), ())
    assert not cluster.violations


def test_a_configuration_that_is_overwritten_is_out_of_force_again() -> None:
    cluster = led()
    cluster.isolate("n1")
    asked = change(cluster, "n1 n2")  # nobody is new, so that it begins at once
    cluster.run(20)
    assert members(cluster, "n1") == (("n1", "n2"), (), ("n1", "n2", "n3"))
    cluster.run(1000)
    cluster.heal()
    cluster.run(1000)
    assert cluster.core("n1").configuration == Configuration(0, ("n1", "n2", "n3"))
    assert isinstance(cluster.replies[asked], kv.Unsure)
    assert cluster.trace("n1", trace.Configured)[-1].index == 0


def test_a_node_recovers_the_configuration_from_its_log_and_from_its_snapshot() -> None:
    for often in (50_000, 10):
        cluster = led(RaftConfig(voters=("n1", "n2", "n3"), snapshot_entries=often))
        change(cluster, "n1 n2 n4", "n5")
        cluster.run(100)
        for value in range(30):
            cluster.write("n1", "x", value)
            cluster.run(5)
        for name in FIVE:
            cluster.crash(name)
        for name in FIVE:
            cluster.restart(name)
        assert {members(cluster, name) for name in ("n1", "n2", "n4", "n5")} == {(("n1", "n2", "n4"), ("n5",), ())}
        cluster.run(2000)
        assert cluster.leader in ("n1", "n2", "n4")
        assert not cluster.violations


# ---- who is left out


@pytest.mark.parametrize("config", [OF_THREE, RaftConfig(voters=("n1", "n2", "n3"), reads="lease")])
def test_a_leader_that_is_left_out_steps_aside_when_that_is_committed_and_another_takes_over(
    config: RaftConfig,
) -> None:
    cluster = led(config)
    asked = change(cluster, "n2 n3 n4")
    cluster.run(60)
    assert cluster.replies[asked] == kv.Done()
    assert cluster.core("n1").role is not Role.LEADER
    assert cluster.leader in ("n2", "n3", "n4")
    cluster.run(3000)
    assert cluster.core("n1").role is Role.FOLLOWER
    assert not cluster.violations


def test_a_leader_that_is_left_out_does_not_count_itself() -> None:
    cluster = led()
    asked = change(cluster, "n2 n3")
    cluster.run_until(lambda: members(cluster, "n1") == (("n2", "n3"), (), ()))
    cluster.crash("n3")
    cluster.run(100)
    assert asked not in cluster.replies
    cluster.restart("n3")
    cluster.run(300)
    assert members(cluster, "n2") == (("n2", "n3"), (), ())
    assert cluster.leader in ("n2", "n3")


def test_a_node_that_is_left_out_by_what_is_not_committed_stands_if_only_it_can_win() -> None:
    """Thesis, Figure 4.6: n2 and n3 alone hold the last configuration, which does without them, and n1 is gone."""
    joint = configuration_entry(1, Configuration(1, ("n1", "n4", "n5"), (), ("n1", "n2", "n3")))
    after = configuration_entry(1, Configuration(2, ("n1", "n4", "n5")))
    records: dict[str, Sequence[Any]] = {name: [joint, HardState(1, None)] for name in ("n4", "n5")}
    records |= {name: [joint, after, HardState(1, None)] for name in ("n2", "n3")}
    cluster = Cluster(FIVE, OF_THREE, records=records)
    cluster.crash("n1")
    cluster.run(3000)
    assert cluster.leader in ("n4", "n5")
    assert members(cluster, "n4") == (("n1", "n4", "n5"), (), ())
    assert not cluster.violations


def test_who_is_left_out_learns_of_it_and_keeps_quiet() -> None:
    cluster = led(RaftConfig(voters=("n1", "n2", "n3"), pre_vote=False, check_quorum=False))
    change(cluster, "n1 n2 n4")
    cluster.run(500)
    term = cluster.core("n1").term
    cluster.run(3000)
    assert (cluster.leader, cluster.core("n1").term) == ("n1", term)


def test_who_is_left_out_and_does_not_know_disturbs_nobody_with_pre_vote() -> None:
    cluster = led()
    cluster.isolate("n3")
    change(cluster, "n1 n2 n4")
    cluster.run(1000)
    cluster.heal()
    term = cluster.core("n1").term
    cluster.run(3000)
    assert cluster.core("n3").configuration.index == 0
    assert (cluster.leader, cluster.core("n1").term) == ("n1", term)


def test_a_leader_sends_nothing_more_to_those_who_left_some_time_ago() -> None:
    cluster = led()
    change(cluster, "n1 n2 n4")
    cluster.run(1000)
    said: list[str] = []

    def note(sender: str, to: str, message: Any) -> bool:
        said.append(to)
        return True

    cluster.passes = note
    cluster.run(500)
    assert "n3" not in said
    assert "n2" in said


def test_a_vote_is_asked_of_both_sets_of_voters_and_of_no_learner() -> None:
    asked: list[str] = []

    def note(sender: str, to: str, message: Any) -> bool:
        asked.append(to) if isinstance(message, RequestVote | TimeoutNow) else None
        return True

    joint = configuration_entry(1, Configuration(1, ("n1", "n4"), ("n5",), ("n1", "n2", "n3")))
    cluster = Cluster(FIVE, OF_THREE, records={"n1": [joint, HardState(1, None)]})
    cluster.passes = note
    cluster.elect("n1")
    cluster.run(2)
    assert sorted(asked) == ["n2", "n3", "n4"]


# ---- the rules are looked after


def test_a_change_of_voters_in_one_step_is_noticed() -> None:
    cluster = led(make=mutants.ChangesVotersAtOnce)
    change(cluster, "n1 n4 n5")
    cluster.run(30)
    assert {violation.property for violation in cluster.violations} == {"ConfigurationSafety"}


def test_a_change_that_begins_before_the_term_has_committed_is_noticed() -> None:
    cluster = led(make=mutants.ChangesBeforeItsTermCommits)
    cluster.passes = lambda sender, to, message: not isinstance(message, Append)
    cluster.transfer("n1", "n2")
    cluster.run(20)
    change(cluster, "n1 n2", at="n2")
    cluster.run(0)
    assert {violation.property for violation in cluster.violations} == {"ConfigurationSafety"}


def test_a_mutant_for_which_the_new_voters_are_enough_goes_on_without_the_old_ones() -> None:
    cluster = led(make=mutants.CountsOneMajority)
    asked = change(cluster, "n1 n4 n5")
    cluster.run_until(lambda: bool(cluster.core("n1").configuration.outgoing))
    cluster.crash("n2")
    cluster.crash("n3")
    cluster.run(100)
    assert cluster.replies[asked] == kv.Done()
