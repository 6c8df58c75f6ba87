from __future__ import annotations

from random import Random

import pytest

from apps import kv
from apps.process import NodeId, Requested
from apps.quorum import Found, Get, Put, Quorum, QuorumConfig, QuorumConfigError
from apps.quorum.trace import Acknowledged, Ahead, HandedOver, Repaired, Synchronised
from experiments.checking.linearizability import check
from experiments.checking.models import model_for
from experiments.simulation.group import Conditions
from tests.unit.quorum import mutants
from tests.unit.quorum.stores import MS, NAMES, Chaos, Cluster

STRICT = QuorumConfig()
ABD = QuorumConfig(linearizable=True)
SLOPPY = QuorumConfig(quorum="sloppy")
SIBLINGS = QuorumConfig(versions="siblings")
QUIET = {"hinted_handoff": False, "anti_entropy": False}
CONFIGS = {"strict": STRICT, "linearizable": ABD, "sloppy": SLOPPY, "siblings": SIBLINGS}


def apart(cluster: Cluster) -> tuple[tuple[NodeId, ...], list[NodeId]]:
    """The replicas of ``k``, and the nodes that are none."""
    replicas = cluster.process("n1").replicas("k")
    return replicas, [name for name in NAMES if name not in replicas]


# ---- random schedules


@pytest.mark.parametrize("name", CONFIGS)
def test_no_schedule_of_faults_loses_a_write_or_leaves_replicas_apart(name: str) -> None:
    failed = {seed: found for seed in range(5) if (found := Chaos(seed, CONFIGS[name]).play())}
    assert failed == {}


def not_linearizable(make: type[Quorum], seeds: range) -> list[int]:
    failed = []
    for seed in seeds:
        chaos = Chaos(seed, ABD, make)
        chaos.play()
        history = chaos.history()
        assert len(history) > 30
        if check(model_for(history), history).valid is not True:
            failed.append(seed)
    return failed


def test_with_write_back_every_history_is_linearizable() -> None:
    assert not_linearizable(Quorum, range(12)) == []


# ---- scripts that the protocol passes and a mutant of it does not


def deleted_behind_a_cut(make: type[Quorum]) -> object:
    """A replica misses a delete; what a read finds after the heal, once it has been repaired."""
    cluster = Cluster(QuorumConfig(**QUIET), make=make)  # type: ignore[arg-type]
    replicas, _ = apart(cluster)
    assert cluster.do(replicas[0], kv.Write("k", 1)) == kv.Done()
    cluster.partition([name for name in NAMES if name != replicas[2]])
    assert cluster.do(replicas[0], kv.Delete("k")) == kv.Done()
    cluster.heal()
    cluster.do(replicas[2], kv.Read("k"))
    return cluster.do(replicas[0], kv.Read("k"))


def test_a_deleted_key_stays_deleted_when_a_replica_comes_back_that_missed_it() -> None:
    assert deleted_behind_a_cut(Quorum) == kv.Done(None)
    assert deleted_behind_a_cut(mutants.ResurrectsDeletes) == kv.Done(1)


def read_apart_from_the_write(make: type[Quorum], config: QuorumConfig) -> tuple[object, object]:
    """A write on one side of a partition, among a key's replicas; then a read on the other, which holds one of them."""
    cluster = Cluster(config, make=make)
    replicas, others = apart(cluster)
    cluster.partition(replicas[:2], [replicas[2], *others])
    written = cluster.do(replicas[0], kv.Write("k", "new"))
    return written, cluster.do(replicas[2], kv.Read("k"))


def test_a_strict_read_that_cannot_meet_the_last_write_is_refused_and_a_sloppy_one_is_stale() -> None:
    written, read = read_apart_from_the_write(Quorum, STRICT)
    assert written == kv.Done()
    assert read == kv.Refused("1 of the 2 nodes needed for k answered in time")
    assert read_apart_from_the_write(Quorum, SLOPPY) == (kv.Done(), kv.Done(None))
    weak = QuorumConfig(r=1, w=1, quorum="partial")
    assert read_apart_from_the_write(Quorum, weak) == (kv.Done(), kv.Done(None))


def test_a_mutant_that_reads_sloppily_where_it_promised_not_to_answers_in_the_past() -> None:
    assert read_apart_from_the_write(mutants.SloppyReadAsStrict, STRICT) == (kv.Done(), kv.Done(None))


def two_reads_of_half_a_write(make: type[Quorum]) -> tuple[object, object]:
    """A write reaches one replica only. One read meets it there, and the next, which begins after, asks the others."""
    cluster = Cluster(QuorumConfig(linearizable=True, read_repair=False, **QUIET), make=make)  # type: ignore[arg-type]
    replicas, _ = apart(cluster)
    cluster.do(replicas[0], kv.Write("k", "old"))
    cluster.block(replicas[1:], [replicas[0]])  # it learns the latest version, or it could not write
    cluster.heal()
    writing = cluster.command(replicas[0], kv.Write("k", "new"))
    cluster.run(5 * MS // 2)  # it has asked, and has been answered: now it stores
    cluster.partition(replicas[1:])
    cluster.run(400 * MS)
    assert isinstance(cluster.replies[writing], kv.Unsure)
    cluster.heal()
    cluster.partition(replicas[:2])
    first = cluster.do(replicas[0], kv.Read("k"))
    cluster.heal()
    cluster.partition(replicas[1:])
    return first, cluster.do(replicas[1], kv.Read("k"))


def test_a_read_that_saw_a_write_leaves_it_for_all_later_reads() -> None:
    assert two_reads_of_half_a_write(Quorum) == (kv.Done("new"), kv.Done("new"))
    assert two_reads_of_half_a_write(mutants.ReadsWithoutWriteBack) == (kv.Done("new"), kv.Done("old"))


def siblings_through_one_coordinator(make: type[Quorum]) -> object:
    """Two blind writes through one node, of which a replica misses the first: what it has then."""
    cluster = Cluster(QuorumConfig(versions="siblings", read_repair=False, **QUIET), make=make)  # type: ignore[arg-type]
    replicas, _ = apart(cluster)
    cluster.partition(replicas[:2])
    cluster.do(replicas[0], Put("k", "first", {}))
    cluster.heal()
    cluster.partition([replicas[0], replicas[2]])
    cluster.do(replicas[0], Put("k", "second", {}))
    found = cluster.process(replicas[2]).store["k"]
    return sorted(version.value for version in found)


def test_a_coordinator_never_hides_a_sibling_behind_its_next_write() -> None:
    assert siblings_through_one_coordinator(Quorum) == ["first", "second"]
    assert siblings_through_one_coordinator(mutants.ForgetsSiblings) == ["second"]


# ---- what it does


def test_siblings_are_kept_until_a_client_that_saw_them_reconciles_them() -> None:
    cluster = Cluster(SIBLINGS)
    for node, value in (("n1", "a"), ("n2", "b")):
        assert cluster.do(node, Put("k", value, {})) == kv.Done()
    found = cluster.do("n3", Get("k"))
    assert isinstance(found, Found)
    assert sorted(found.values) == ["a", "b"]
    assert cluster.do("n4", Put("k", "both", found.context)) == kv.Done()
    assert cluster.do("n5", Get("k")).values == ["both"]
    assert cluster.do("n1", kv.Read("k")) == kv.Done("both")


def test_a_read_tells_of_a_delete_beside_what_it_did_not_replace() -> None:
    cluster = Cluster(SIBLINGS)
    cluster.do("n1", Put("k", "kept", {}))
    cluster.do("n2", Put("k", None, {}))
    assert cluster.do("n3", kv.Read("k")) == kv.Done(["kept", None])
    found = cluster.do("n3", Get("k"))
    assert found.values == ["kept", None]
    assert cluster.do("n4", Put("k", None, found.context)) == kv.Done()
    assert cluster.do("n5", Get("k")).values == []
    assert cluster.do("n5", kv.Read("k")) == kv.Done(None)


def test_a_sloppy_write_is_taken_without_any_of_its_replicas_and_handed_over_later() -> None:
    cluster = Cluster(QuorumConfig(quorum="sloppy", anti_entropy=False, read_repair=False))
    replicas, others = apart(cluster)
    cluster.partition(others)
    assert cluster.do(others[0], kv.Write("k", 1)) == kv.Done()
    acknowledged = [event for _, _, event in cluster.evidence if isinstance(event, Acknowledged)]
    assert set(acknowledged[0].by) == set(others)
    assert all("k" not in cluster.process(name).store for name in replicas)
    cluster.heal()
    cluster.run(20_000 * MS)
    assert any(isinstance(event, HandedOver) for _, _, event in cluster.evidence)
    assert not any(cluster.process(name).hints for name in NAMES)
    assert sum("k" in cluster.process(name).store for name in replicas) >= 2


def test_read_repair_alone_mends_a_replica_that_was_away() -> None:
    cluster = Cluster(QuorumConfig(**QUIET))  # type: ignore[arg-type]
    replicas, _ = apart(cluster)
    cluster.partition([name for name in NAMES if name != replicas[2]])
    cluster.do(replicas[0], kv.Write("k", 1))
    cluster.heal()
    assert "k" not in cluster.process(replicas[2]).store
    cluster.do(replicas[0], kv.Read("k"))
    assert cluster.process(replicas[2]).store["k"][0].value == 1
    assert any(event == Repaired("k", replicas[2]) for _, _, event in cluster.evidence)


def test_anti_entropy_alone_mends_a_replica_that_was_away_and_is_then_quiet() -> None:
    cluster = Cluster(QuorumConfig(hinted_handoff=False, read_repair=False))
    cluster.crash("n3")
    for number in range(60):
        cluster.do("n1", kv.Write(f"k{number}", number), wait=20 * MS)
    cluster.restart("n3")
    cluster.run(20_000 * MS)
    expected = {key for node in cluster.nodes() for key in node.store if "n3" in node.replicas(key)}
    assert expected
    assert set(cluster.process("n3").store) == expected
    assert cluster.at_the_end() == []
    # Nothing differs any more: each comparison is one message, and ends there.
    cluster.evidence.clear()
    before = sum(cluster.sent.values())
    cluster.run(20_000 * MS)
    assert not any(isinstance(event, Synchronised) for _, _, event in cluster.evidence)
    assert sum(cluster.sent.values()) - before < 5 * 20 * 2


def power_cut_after_the_acknowledgement(make: type[Quorum], seed: int) -> object:
    cluster = Cluster(STRICT, seed=seed, conditions=Conditions(write=(5 * MS, 9 * MS)), make=make)
    writing = cluster.command("n1", kv.Write("k", 1))
    while writing not in cluster.replies:
        cluster.run(MS // 2)
    for name in NAMES:
        cluster.crash(name)
    for name in NAMES:
        cluster.restart(name)
    cluster.run(20 * MS)
    return cluster.do("n2", kv.Read("k"))


def test_what_was_acknowledged_survives_a_power_cut_of_all() -> None:
    assert {power_cut_after_the_acknowledgement(Quorum, seed) for seed in range(8)} == {kv.Done(1)}
    mutant = {power_cut_after_the_acknowledgement(mutants.AcksBeforeDisk, seed) for seed in range(8)}
    assert kv.Done(None) in mutant


def power_cut_between_two_reads(make: type[Quorum], seed: int) -> tuple[object, object]:
    """What two reads find of a write that is on no disk yet: one before the power fails everywhere, the other after."""
    cluster = Cluster(ABD, seed=seed, conditions=Conditions(write=(50 * MS, 90 * MS)), make=make)
    cluster.run(200 * MS)
    cluster.command("n1", kv.Write("k", 1))
    cluster.run(20 * MS)
    before = cluster.do("n2", kv.Read("k"), 20 * MS)
    for name in NAMES:
        cluster.crash(name)
    for name in NAMES:
        cluster.restart(name)
    cluster.run(200 * MS)
    return before, cluster.do("n2", kv.Read("k"))


def test_what_was_read_survives_a_power_cut_of_all() -> None:
    gone = kv.Done(1), kv.Done(None)
    assert gone not in {power_cut_between_two_reads(Quorum, seed) for seed in range(20)}
    assert gone in {power_cut_between_two_reads(mutants.TellsBeforeDisk, seed) for seed in range(20)}


def test_a_restarted_coordinator_uses_no_dot_twice() -> None:
    cluster = Cluster(SIBLINGS)
    cluster.do("n1", Put("k", "before", {}))
    cluster.crash("n1")
    cluster.restart("n1")
    cluster.run(10 * MS)
    cluster.do("n1", Put("k", "after", {}))
    assert sorted(cluster.do("n2", Get("k")).values) == ["after", "before"]
    assert cluster.at_the_end() == []


BY_CLOCKS = QuorumConfig(n=3, r=2, w=2, quorum="partial", read_repair=False, **QUIET)  # type: ignore[arg-type]


def two_writes(config: QuorumConfig) -> object:
    """One after the other, the first by a node whose time of day is 300 ms ahead; what is read then."""
    cluster = Cluster(config)
    replicas, _ = apart(cluster)
    cluster.wall[replicas[0]] = 300 * MS
    cluster.partition(replicas[:2])  # the next coordinator hears nothing of it
    assert cluster.do(replicas[0], kv.Write("k", "first"), 20 * MS) == kv.Done()
    cluster.heal()
    assert cluster.do(replicas[2], kv.Write("k", "second"), 20 * MS) == kv.Done()
    return cluster.do(replicas[2], kv.Read("k"))


def test_a_fast_clock_overtakes_a_later_write_except_in_a_strict_quorum_which_asks_before_it_writes() -> None:
    assert two_writes(BY_CLOCKS) == kv.Done("first")
    assert two_writes(QuorumConfig(**QUIET)) == kv.Done("second")  # type: ignore[arg-type]


def test_what_comes_from_a_clock_that_is_too_far_ahead_is_not_taken_until_time_has_caught_up() -> None:
    cluster = Cluster(BY_CLOCKS)
    replicas, others = apart(cluster)
    cluster.wall[replicas[0]] = 2_000 * MS
    assert isinstance(cluster.do(replicas[0], kv.Write("k", "too early")), kv.Unsure)
    refused = [event for _, _, event in cluster.evidence if isinstance(event, Ahead)]
    assert {event.peer for event in refused} == {replicas[0]}
    assert all(1_900 * MS < event.by <= 2_000 * MS for event in refused)
    assert all("k" not in cluster.process(name).store for name in NAMES if name != replicas[0])
    cluster.wall.clear()
    # It knows now that its last write was of a time yet to come, and what it is asked to write would be, too.
    said = cluster.do(replicas[0], kv.Write("k", "and again"))
    assert said == kv.Refused(f"the time of day of {replicas[0]} has gone back, by more than clocks may differ")
    assert cluster.do(others[0], kv.Write("k", "in time")) == kv.Done()
    assert cluster.do(others[0], kv.Read("k")) == kv.Done("in time")
    cluster.run(2_000 * MS)
    assert cluster.do(replicas[0], kv.Write("k", "at last")) == kv.Done()
    assert cluster.do(others[0], kv.Read("k")) == kv.Done("at last")
    assert cluster.violations == []


def test_compare_and_set_is_refused_with_the_reason() -> None:
    refused = Cluster(ABD).do("n1", kv.Cas("k", None, 1))
    assert isinstance(refused, kv.Refused)
    assert "consensus" in refused.reason


def test_a_store_with_fewer_nodes_than_copies_is_refused() -> None:
    with pytest.raises(QuorumConfigError, match="n is 3, but there are only 2 nodes"):
        Quorum("n1", ["n1", "n2"], STRICT, Random(1))


def test_a_copy_of_a_write_that_the_network_made_is_not_another_write() -> None:
    cluster = Cluster(ABD)
    first = cluster.command("n1", kv.Write("k", "old"))
    cluster.run(50 * MS)
    assert cluster.replies[first] == kv.Done()
    assert cluster.do("n2", kv.Write("k", "new")) == kv.Done()
    node: Quorum = cluster.process("n1")
    copy = Requested("client", first, kv.Command("s", 1, 0, kv.Write("k", "old")))
    assert node.handle(cluster.now, copy) == []
    assert cluster.do("n3", kv.Read("k")) == kv.Done("new")
