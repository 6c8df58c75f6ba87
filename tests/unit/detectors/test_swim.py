from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.detectors import DetectorConfigError, Roster, Standing, Swim, SwimConfig, quality
from apps.detectors.swim import Ack, Ping, PingRequest, Update, _Walk
from apps.detectors.trace import Believed
from apps.process import Received, Send, Started, Trace
from experiments.simulation.group import Conditions
from tests.unit.detectors.groups import MS, SECOND, judged, names, opinions, swim
from tests.unit.detectors.mutants import (
    BelievesTheLatest,
    IgnoresIncarnations,
    ProbesByItselfOnly,
    RefutesWithTheSameIncarnation,
)

PLAIN = SwimConfig(local_health=False, dynamic_suspicion=False, buddy=False)
updates = st.builds(
    Update, st.sampled_from(["a", "b"]), st.sampled_from(Standing), st.integers(0, 3), st.sampled_from(["b", "c"])
)


# ---- scripts that the protocol passes and a mutant of it does not ----------------------------------------------------


def told(make: type[Swim], news: list[Update]) -> Swim:
    """A member to which ``news`` came, one message each."""
    member = make("me", Roster(["me", "a", "b", "c"]), SwimConfig(), Random(1))
    member.handle(0, Started())
    for number, update in enumerate(news):
        member.handle(number, Received("c", Ack(0, [update])))
    return member


def back_after_a_pause(make: type[Swim]) -> set[Standing]:
    """What others take a member for that was paused until they suspected it, and goes on before they gave it up."""
    group = swim(8, PLAIN, seed=3, make=make)
    group.run(3 * SECOND)
    group.pause("m0")
    while Standing.SUSPECT not in opinions(group, "m0"):
        group.run(SECOND // 4)
    group.resume("m0")
    group.run(20 * SECOND)
    return opinions(group, "m0")


def one_link_cut(make: type[Swim]) -> int:
    group = swim(8, PLAIN, seed=3, make=make)
    group.block(["m0"], ["m1"])
    group.block(["m1"], ["m0"])
    group.run(60 * SECOND)
    return judged(group, standing=Standing.SUSPECT).mistakes


@settings(deadline=None)
@given(st.permutations([Update("a", standing, incarnation, "b") for standing in Standing for incarnation in range(3)]))
def test_news_in_any_order_end_in_the_same_belief(news: list[Update]) -> None:
    assert told(Swim, news).belief("a") == (2, Standing.FAILED)


def test_a_mutant_that_believes_the_latest_ends_where_the_network_likes() -> None:
    news = [Update("a", Standing.FAILED, 1, "b"), Update("a", Standing.ALIVE, 0, "b")]
    assert told(Swim, news).standing("a") is Standing.FAILED
    assert told(BelievesTheLatest, news).standing("a") is Standing.ALIVE


def test_a_suspected_member_that_lives_is_trusted_again() -> None:
    assert back_after_a_pause(Swim) == {Standing.ALIVE}


@pytest.mark.parametrize("mutant", [IgnoresIncarnations, RefutesWithTheSameIncarnation])
def test_without_incarnations_a_false_suspicion_is_never_put_right(mutant: type[Swim]) -> None:
    assert Standing.FAILED in back_after_a_pause(mutant)


def test_a_cut_between_two_members_is_bridged_by_those_who_reach_both() -> None:
    assert one_link_cut(Swim) == 0
    assert one_link_cut(ProbesByItselfOnly) > 0


# ---- what it promises ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.1), st.booleans(), st.booleans(), st.booleans())
def test_a_crash_is_known_to_all_whatever_is_lost(
    seed: int, loss: float, health: bool, dynamic: bool, buddy: bool
) -> None:
    config = SwimConfig(local_health=health, dynamic_suspicion=dynamic, buddy=buddy)
    group = swim(8, config, seed=seed, conditions=Conditions(delay=(MS, 30 * MS), loss=loss, duplicate=0.05))
    group.run(3 * SECOND)
    group.crash("m3")
    group.run(120 * SECOND)
    assert opinions(group, "m3") == {Standing.FAILED}


@settings(deadline=None)
@given(st.lists(updates, max_size=20))
def test_no_belief_goes_back(news: list[Update]) -> None:
    member = told(Swim, [])
    for number, update in enumerate(news):
        before = member.belief(update.member)
        member.handle(100 + number, Received("c", Ack(0, [update])))
        assert member.belief(update.member) >= before


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_nobody_knows_a_later_incarnation_than_the_member_itself(seed: int) -> None:
    group = swim(6, SwimConfig(), seed=seed, conditions=Conditions(loss=0.4))
    for _ in range(20):
        group.run(SECOND)
        for member in group.names:
            known = [group.process(name).belief(member).incarnation for name in group.names if name != member]
            assert max(known) <= group.process(member).incarnation


def test_a_quiet_group_makes_no_mistakes_and_says_one_ping_and_one_ack_a_period_whatever_its_size() -> None:
    for count in (8, 64):
        group = swim(count)
        group.run(31 * SECOND)
        result = judged(group)
        assert result.mistakes == 0
        assert 1.8 < result.messages_per_second < 2.1
        assert max(group.sent.values()) < 1.5 * min(group.sent.values())


def test_a_member_that_restarts_without_memory_is_taken_in_again() -> None:
    group = swim(8)
    group.run(3 * SECOND)
    group.crash("m2")
    group.run(90 * SECOND)
    assert opinions(group, "m2") == {Standing.FAILED}
    group.restart("m2")
    group.run(30 * SECOND)
    assert opinions(group, "m2") == {Standing.ALIVE}
    assert group.process("m2").incarnation > 0


def test_two_sides_of_a_healed_partition_find_each_other() -> None:
    group = swim(8, SwimConfig(reconnect_every=5))
    group.partition(names(8)[:4], names(8)[4:])
    group.run(90 * SECOND)
    assert opinions(group, "m0") == {Standing.ALIVE, Standing.FAILED}
    group.heal()
    group.run(60 * SECOND)
    assert all(opinions(group, name) == {Standing.ALIVE} for name in group.names)


def test_each_part_of_lifeguard_makes_fewer_mistakes_about_the_healthy_and_all_of_it_hardly_any() -> None:
    """As in the paper's experiments (§V): some members are slow, and others pay for it."""

    def mistakes_about_the_healthy(config: SwimConfig) -> int:
        group = swim(24, config, seed=5)
        slow = group.names[:4]
        for name in slow:
            group.slow(name, (0, 6 * SECOND))
        group.run(60 * SECOND)
        found = [evidence for evidence in group.evidence if getattr(evidence.event, "member", "m0") not in slow]
        return quality(found, group.names, {}).mistakes

    plain = mistakes_about_the_healthy(PLAIN)
    assert plain >= 40
    for part in ("local_health", "dynamic_suspicion", "buddy"):
        assert mistakes_about_the_healthy(msgspec.structs.replace(PLAIN, **{part: True})) <= plain / 2
    assert mistakes_about_the_healthy(SwimConfig()) <= plain / 20


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000))
def test_a_walk_comes_past_everyone_once_a_round(size: int, seed: int) -> None:
    walk = _Walk(size, Random(seed))
    for _ in range(3):
        assert sorted(walk.next() for _ in range(size)) == list(range(size))


def test_the_suspicion_timeout_is_memberlists() -> None:
    config = SwimConfig()
    assert config.confirmations(100) == 2
    assert config.suspicion_timeout(100, 0) == 4 * 2 * 6 * SECOND
    assert config.suspicion_timeout(100, 2) == 4 * 2 * SECOND
    assert config.suspicion_timeout(5, 2) == 4 * SECOND
    assert PLAIN.suspicion_timeout(1000, 0) == 12 * SECOND


def test_messages_of_strangers_and_about_strangers_are_ignored() -> None:
    member = told(Swim, [Update("stranger", Standing.FAILED, 5, "b")])
    assert member.standing("stranger") is Standing.ALIVE
    assert member.handle(9, Received("stranger", Ping(1, []))) == []
    answered = [effect for effect in member.handle(9, Received("a", Ping(1, []))) if isinstance(effect, Send)]
    assert [effect.to for effect in answered] == ["a"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"interval": 0}, "interval is 0; it must be above 0"),
        ({"probe_timeout": SECOND}, "must be shorter than the interval"),
        ({"indirect_probes": -1}, "indirect_probes"),
        ({"suspicion_max_multiplier": 0.5}, "at least 1"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(DetectorConfigError, match=words):
        SwimConfig(**settings)  # type: ignore[arg-type]


def test_what_a_member_said_in_its_last_life_is_what_others_tell_it() -> None:
    member = told(Swim, [Update("a", Standing.SUSPECT, 0, "b")])
    effects = member.handle(MS, Received("c", Ack(0, [Update("a", Standing.FAILED, 0, "me")])))
    assert [effect.event for effect in effects if isinstance(effect, Trace)] == [Believed("a", "failed", 0, None)]


def test_who_missed_a_refutation_gets_it_with_the_next_message() -> None:
    member = Swim("me", Roster(["me", "a", "b", "c"]), SwimConfig(), Random(1))
    member.handle(0, Started())
    accusation = Update("me", Standing.SUSPECT, 0, "c")
    member.handle(1, Received("c", Ack(0, [accusation])))
    refutation = Update("me", Standing.ALIVE, 1, "me")
    for number in range(40):  # until it has been told to as many as it is told to
        member.handle(2 + number, Received("a", Ping(number, [])))
    effects = member.handle(50, Received("b", Ack(0, [accusation])))
    told = [effect.message.gossip for effect in effects if isinstance(effect, Send) and effect.to == "b"]
    assert [refutation] in [list(gossip) for gossip in told]


def test_who_asks_a_member_to_ping_itself_is_answered_and_nothing_is_sent_to_itself() -> None:
    member = told(Swim, [])
    effects = member.handle(1, Received("c", PingRequest(7, "me", [])))
    assert effects == [Send("c", Ack(7, []))]
