"""Properties of the core's parts: majorities, the log, messages, the tests' own judge."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.raft import Entry, HardState, Raft, RaftConfig, RaftConfigError, quorum
from apps.raft.invariants import Invariants, parting
from apps.raft.log import Log
from apps.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotRecord,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
)
from apps.raft.progress import MOST_ROUNDS, CatchUp, Progress
from apps.raft.quorum import Configuration, Outcome
from tests.unit.raft.history import FOREVER, Operation, contradictions

terms = st.lists(st.integers(1, 5), max_size=12).map(sorted)
numbers = st.integers(0, 2**62)
ordinals = st.integers(1, 2**62)


def log_of(terms: list[int]) -> Log:
    log = Log()
    log.extend([Entry(index, term, b"") for index, term in enumerate(terms, 1)])
    return log


# ---- majorities


names = st.sets(st.sampled_from("abcdefg"), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
configurations = st.builds(Configuration, st.integers(0, 9), names, st.just(()), st.one_of(st.just(()), names))


def is_majority(of: tuple[str, ...], those: set[str]) -> bool:
    return 2 * len(those & set(of)) > len(of)


def is_quorum(configuration: Configuration, those: set[str]) -> bool:
    return all(is_majority(voters, those) for voters in (configuration.voters, configuration.outgoing) if voters)


@given(configurations, st.dictionaries(st.sampled_from("abcdefghi"), numbers))
def test_a_quorum_has_reached_what_is_reached_and_none_has_come_further(
    configuration: Configuration, positions: dict[str, int]
) -> None:
    reached = quorum.reached(configuration, positions)
    everybody = dict.fromkeys("abcdefghi", 0) | positions
    assert is_quorum(configuration, {name for name, position in everybody.items() if position >= reached})
    assert not is_quorum(configuration, {name for name, position in everybody.items() if position > reached})


@given(configurations, configurations)
def test_quorums_of_configurations_that_may_follow_each_other_share_a_voter(
    before: Configuration, after: Configuration
) -> None:
    if quorum.may_follow(before, after):
        for one in powerset("abcdefg"):
            if is_quorum(before, one):
                assert not is_quorum(after, set("abcdefg") - one)


def powerset(names: str) -> Iterator[set[str]]:
    for size in range(len(names) + 1):
        yield from map(set, itertools.combinations(names, size))


@given(names, names, names)
def test_voters_are_changed_by_a_joint_configuration_and_never_at_once(
    old: tuple[str, ...], new: tuple[str, ...], learners: tuple[str, ...]
) -> None:
    learners, left = without(learners, new), without(old, new)
    before, joint, after = Configuration(0, old), Configuration(1, new, learners, old), Configuration(2, new, learners)
    assert quorum.may_follow(before, joint)
    assert quorum.may_follow(joint, after)
    assert quorum.may_follow(before, after) == (set(old) == set(new))
    assert quorum.may_follow(after, Configuration(3, new, left))
    assert not quorum.may_follow(joint, Configuration(2, old, (), new))


def without(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


@pytest.mark.parametrize(
    "named", [((),), (("a", "a"),), (("a", "b"), ("b",)), (("a",), ("c", "c")), (("a",), (), ("b", "b"))], ids=str
)
def test_a_configuration_without_voters_or_with_somebody_twice_is_none(named: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(ValueError, match="a configuration"):
        Configuration(1, *named)
    with pytest.raises(msgspec.ValidationError, match="a configuration"):
        msgspec.msgpack.decode(msgspec.msgpack.encode([1, *named]), type=Configuration)


@given(st.integers(1, 50))
def test_two_majorities_share_a_voter_and_one_less_would_not(voters: int) -> None:
    assert 2 * quorum.majority(voters) > voters
    assert 2 * (quorum.majority(voters) - 1) <= voters


@given(configurations, st.dictionaries(st.sampled_from("abcdefg"), st.booleans()))
def test_an_election_is_decided_when_no_further_vote_could_change_it(
    configuration: Configuration, votes: dict[str, bool]
) -> None:
    granted = {name for name, answer in votes.items() if answer}
    could_win = is_quorum(configuration, set("abcdefg") - (set(votes) - granted))
    expected = Outcome.PENDING if could_win else Outcome.LOST
    if is_quorum(configuration, granted):
        expected = Outcome.WON
    assert quorum.outcome(configuration, votes) is expected


def test_strangers_and_learners_have_no_vote() -> None:
    configuration = Configuration(0, ("a", "b", "c"), ("x",))
    assert quorum.outcome(configuration, {"a": True, "x": True, "y": True}) is Outcome.PENDING


# ---- catching up


def test_a_node_is_near_the_end_of_the_log_when_a_round_took_no_longer_than_an_election() -> None:
    catch_up = CatchUp(100, now=0)
    catch_up.update(99, 150, 900, 300)
    assert (catch_up.rounds, catch_up.is_near) == (0, False)
    catch_up.update(100, 160, 1000, 300)
    assert (catch_up.rounds, catch_up.is_near) == (1, False)
    catch_up.update(160, 170, 1300, 300)
    assert (catch_up.rounds, catch_up.is_near) == (2, True)


def test_a_node_that_never_comes_near_is_given_up_after_some_rounds() -> None:
    catch_up = CatchUp(0, now=0)
    for number in range(1, MOST_ROUNDS + 1):
        assert not catch_up.has_failed
        catch_up.update(number, number + 1, 301 * number, 300)
    assert catch_up.has_failed


# ---- the log


@given(terms, st.integers(0, 15), st.integers(0, 6))
def test_the_last_agreeing_position_is_the_last_whose_term_is_not_later(log: list[int], index: int, term: int) -> None:
    positions = [position for position in range(1, min(index, len(log)) + 1) if log[position - 1] <= term]
    last = max(positions, default=0)
    assert log_of(log).last_agreeing(index, term) == (last, log[last - 1] if last else 0)


@given(terms, st.integers(0, 12), st.integers(0, 15), st.integers(0, 6))
def test_a_compacted_log_agrees_no_further_than_it_is_asked_and_holds_the_rest(
    log: list[int], base: int, index: int, term: int
) -> None:
    compacted, base = log_of(log), min(base, len(log))
    compacted.compact(base)
    found, _ = compacted.last_agreeing(index, term)
    exact, _ = log_of(log).last_agreeing(index, term)
    assert exact <= found <= index
    assert found == exact if exact >= base else found <= base
    assert found < base or base == 0 or log[base - 1] <= term
    assert [compacted.term(position) for position in range(base + 1, len(log) + 2)] == [*log[base:], None]
    assert (compacted.last, compacted.last_term) == (len(log), log[-1] if log else 0)


@given(terms, terms, st.integers(0, 12))
def test_entries_are_held_up_to_the_first_of_another_term(log: list[int], other: list[int], after: int) -> None:
    entries = [Entry(index, term, b"") for index, term in enumerate(other, 1)][after:]
    held = log_of(log).held(entries)
    assert all(log[entry.index - 1] == entry.term for entry in entries[:held])
    if held < len(entries):
        assert log_of(log).term(entries[held].index) != entries[held].term


@given(terms, terms)
def test_of_two_logs_at_least_one_is_up_to_date_for_the_other(one: list[int], other: list[int]) -> None:
    a, b = log_of(one), log_of(other)
    assert a.is_up_to_date(b.last, b.last_term) or b.is_up_to_date(a.last, a.last_term)


# ---- flow control


def test_a_stalled_stream_is_noticed_on_the_second_look_and_not_before() -> None:
    progress = Progress(1, now=0)
    progress.accepted(0)
    progress.sent(5)
    assert [progress.has_stalled(), progress.has_stalled()] == [True, True]
    progress.accepted(3)
    assert [progress.has_stalled(), progress.has_stalled()] == [False, True]
    progress.accepted(5)
    assert not progress.has_stalled()


def test_an_old_rejection_changes_nothing() -> None:
    progress = Progress(10, now=0)
    progress.rejected(5, 4)
    assert (progress.next, progress.streaming) == (10, False)
    progress.accepted(9)
    progress.rejected(9, 3)
    assert (progress.next, progress.streaming) == (10, True)


def test_after_a_loss_a_stream_goes_back_to_what_is_known_and_probes() -> None:
    progress = Progress(1, now=0)
    progress.accepted(0)
    for last in (3, 6, 9):
        progress.sent(last)
    progress.accepted(3)
    progress.rejected(6, 3)
    assert (progress.next, progress.streaming, progress.may_send(8)) == (4, False, True)
    progress.rejected(9, 3)
    assert progress.next == 4


# ---- messages


entries = st.builds(Entry, ordinals, ordinals, st.binary())
messages = st.one_of(
    st.builds(RequestVote, ordinals, numbers, numbers, st.booleans()),
    st.builds(VoteReply, numbers, ordinals, st.booleans(), st.booleans()),
    st.builds(Append, ordinals, numbers, numbers, numbers, st.lists(entries, max_size=3)),
    st.builds(AppendReply, numbers, numbers),
    st.builds(AppendRejected, numbers, numbers, numbers, numbers),
    st.builds(Heartbeat, ordinals, numbers, ordinals),
    st.builds(HeartbeatReply, numbers, numbers),
    st.builds(ReadIndex, ordinals, numbers),
    st.builds(ReadIndexReply, numbers, numbers, numbers),
    st.builds(TimeoutNow, ordinals),
    st.builds(InstallSnapshot, ordinals, ordinals, ordinals, numbers, numbers, numbers, st.binary(), configurations),
    st.builds(SnapshotReply, numbers, numbers, numbers),
)
records = st.one_of(
    st.builds(HardState, numbers, st.none() | st.text()),
    entries,
    st.builds(SnapshotRecord, ordinals, ordinals, numbers, numbers, numbers, st.binary(), configurations),
)


@given(messages)
def test_every_message_survives_the_wire(message: Any) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Raft.Message) == message


@given(records)
def test_every_record_survives_the_disk(record: Any) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Raft.Record) == record


# ---- configuration


def test_a_configuration_survives_json() -> None:
    config = RaftConfig(election_timeout=(1000, 2000), heartbeat_interval=100, pre_vote=False)
    assert msgspec.json.decode(msgspec.json.encode(config), type=RaftConfig) == config


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"election_timeout": (300, 150)}, "election_timeout is 300 to 150 ns"),
        ({"election_timeout": (0, 150)}, "must rise, and start above 0"),
        ({"heartbeat_interval": 150_000_000}, "below the shortest election_timeout"),
        ({"heartbeat_interval": 0}, "must be above 0"),
        ({"max_batch_entries": 0}, "max_batch_entries is 0; it must be at least 1"),
        ({"max_batch_bytes": 0}, "max_batch_bytes"),
        ({"max_inflight": -1}, "max_inflight is -1"),
    ],
)
def test_settings_that_cannot_work_are_named(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RaftConfigError, match=complaint):
        RaftConfig(**setting)


# ---- the judges: invariants and history


@given(terms, terms)
def test_logs_part_where_they_differ_below_a_common_term(one: list[int], other: list[int]) -> None:
    pairs = list(zip(one, other, strict=False))
    agreeing = max((index for index, (a, b) in enumerate(pairs, 1) if a == b), default=0)
    expected = next((index for index, (a, b) in enumerate(pairs[:agreeing], 1) if a != b), None)
    assert parting(log_of(one), log_of(other)) == expected


def test_logs_with_different_commands_in_one_term_part() -> None:
    one, other = Log(), Log()
    one.extend([Entry(1, 1, b"a"), Entry(2, 1, b"b")])
    other.extend([Entry(1, 1, b"x"), Entry(2, 1, b"b")])
    assert parting(one, other) == 1


def test_the_invariants_name_the_property_that_was_broken() -> None:
    from apps.process import Started, step
    from apps.raft import Role

    def node(name: str, *commands: bytes) -> Raft:
        core = Raft(name, ["n1", "n2"], RaftConfig(), random.Random(0))
        entries = [Entry(index, 1, command) for index, command in enumerate(commands, 1)]
        step(core, 0, [Started([HardState(1, None), *entries])])
        core.role = Role.LEADER
        return core

    one, other = node("n1", b"a", b"b"), node("n2", b"x", b"b")
    watch = Invariants()
    assert watch.observe(one) == []
    assert [violation.property for violation in watch.observe(other)] == ["ElectionSafety"]
    assert [violation.property for violation in watch.log_matching([one, other])] == ["LogMatching"]
    one.commit = one.applied = 2
    other.commit = other.applied = 2
    other.role = Role.FOLLOWER
    assert watch.observe(one) == []
    assert [violation.property for violation in watch.observe(other)] == ["StateMachineSafety"]
    other.role, other.term = Role.LEADER, 2
    assert [violation.property for violation in watch.observe(other)] == ["LeaderCompleteness"]
    other.log.truncate(2)
    other.applied = 0
    assert [violation.property for violation in watch.observe(other)] == ["LeaderAppendOnly"]


def explicable(operations: list[Operation]) -> bool:
    """Whether some order of the operations, with each unfinished write in it or not, is one a register allows."""
    done = [operation for operation in operations if operation.completed < FOREVER]
    open_writes = [one for one in operations if one.completed == FOREVER and one.kind == "write"]
    for count in range(len(open_writes) + 1):
        for chosen in itertools.combinations(open_writes, count):
            for order in itertools.permutations([*done, *chosen]):
                if any(b.completed < a.invoked for a, b in itertools.combinations(order, 2)):
                    continue
                value = None
                for operation in order:
                    if operation.kind == "write":
                        value = operation.value
                    elif operation.value != value:
                        break
                else:
                    return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    moments = draw(st.permutations(range(10)))
    operations = []
    for number in range(draw(st.integers(1, 5))):
        invoked, completed = sorted(moments[2 * number : 2 * number + 2])
        if draw(st.booleans()):
            finished = draw(st.booleans())
            operations.append(Operation("write", "x", number, invoked, completed if finished else FOREVER))
        else:
            operations.append(Operation("read", "x", draw(st.none() | st.integers(0, 4)), invoked, completed))
    return operations


@given(histories())
def test_the_tests_judge_agrees_with_trying_every_order(operations: list[Operation]) -> None:
    assert (contradictions(operations) == []) is explicable(operations)
