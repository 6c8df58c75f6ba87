"""Work is taken over and given back, and never done twice."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.failover import Failover, FailoverConfig, FailoverConfigError, assign
from apps.failover.core import _Worker
from apps.failover.invariants import violations
from apps.failover.messages import Beat
from apps.failover.trace import Leased, Weighed
from apps.process import Nanoseconds, NodeId
from experiments.checking.fault_record import FaultRecord, Step
from experiments.checking.takeover import Held, OneOwner, running, service
from experiments.checking.trace import Header, Lease, Witness
from experiments.simulation.group import Conditions, Evidence, Group

MS = 1_000_000
NAMES = ("n1", "n2", "n3", "n4", "n5")
CONFIG = FailoverConfig(shards=32, interval=100 * MS, lease=500 * MS, ramp=2_000 * MS)


class GivesAwayAtOnce(Failover):
    """Moves a shard without waiting until its holder has let it go."""

    def _is_free(self, now: Nanoseconds, shard: int, other: _Worker) -> bool:
        return True


def group(seed: int = 0, make: type[Failover] = Failover) -> Group:
    conditions = Conditions(delay=(MS, 30 * MS), loss=0.02, duplicate=0.02)
    return Group(NAMES, lambda name, random: make(name, NAMES, CONFIG), seed=seed, conditions=conditions)


def serving(cluster: Group) -> Counter[NodeId]:
    """How many shards each worker that lives serves now."""
    held = {name: cluster.process(name).serving(cluster.now) for name in cluster.alive}
    assert len({shard for shards in held.values() for shard in shards}) == sum(map(len, held.values()))
    return Counter({name: len(shards) for name, shards in held.items()})


def twice(cluster: Group) -> list[str]:
    """Shards that two workers served at the same time, by the evidence that they left."""
    properties = OneOwner()
    found: list[str] = []
    for t, node, event in cluster.evidence:
        match event:
            case Leased(shards, lasts, _):
                witness = Witness(node, 0, 1, Lease(t, list(shards), lasts))
                found += [violation.message for violation in properties.feed(witness)]
            case Header():
                properties.feed(Witness(node, 0, 1, event))
    return found


def invariants(cluster: Group) -> set[str]:
    """The invariants that the nodes which run violate now."""
    coordinator, *workers = (cluster.process(name) if name in cluster.alive else None for name in NAMES)
    running = [worker for worker in workers if worker is not None]
    return {found.property for found in violations(cluster.now, coordinator, running)}


def broken_in(make: type[Failover], seed: int) -> set[str]:
    """The invariants that are violated after any step, while nodes crash and are cut off one after another."""
    cluster = group(seed, make)
    found: set[str] = set()
    cluster.on_step = lambda name: found.update(invariants(cluster))
    draw = Random(f"{seed} storm").random
    for _ in range(8):
        victim = NAMES[int(draw() * len(NAMES))]
        if draw() < 0.5:
            cluster.crash(victim)
        else:
            cluster.partition([victim], [name for name in NAMES if name != victim])
        cluster.run(int(draw() * 2_000 * MS))
        cluster.heal()
        if victim not in cluster.alive:
            cluster.restart(victim)
        cluster.run(int(draw() * 2_000 * MS))
    return found


class GrantsWithoutABook(Failover):
    """Forgets at once what it has granted."""

    def _grant(self, now: Nanoseconds, sender: NodeId, worker: _Worker, beat: Beat) -> None:
        super()._grant(now, sender, worker, beat)
        worker.shards.clear()


def test_whatever_happens_a_shard_has_one_holder_and_that_holder_is_in_the_coordinators_book() -> None:
    assert [seed for seed in range(20) if broken_in(Failover, seed)] == []
    assert "OneOwner" in broken_in(GivesAwayAtOnce, 0) | broken_in(GivesAwayAtOnce, 1)
    assert "ServedIsGranted" in broken_in(GrantsWithoutABook, 0)


def restart(cluster: Group, name: NodeId) -> None:
    """What the one before served is served no more, as the trace of the new one shows."""
    cluster.evidence.append(Evidence(cluster.now, name, Header(cluster.now, 1, name, 1, "failover")))
    cluster.restart(name)


def test_every_shard_is_served_by_one_worker_and_by_another_soon_after_it_is_gone() -> None:
    cluster = group()
    cluster.run(4_000 * MS)
    before = serving(cluster)
    assert before.total() == CONFIG.shards
    assert before["n1"] == 0
    cluster.crash("n3")
    cluster.run(2 * CONFIG.lease + 2 * CONFIG.interval)
    assert serving(cluster).total() == CONFIG.shards


def test_who_is_back_begins_with_few_shards_and_comes_to_its_part() -> None:
    cluster = group()
    cluster.run(4_000 * MS)
    part = serving(cluster)["n3"]
    cluster.crash("n3")
    cluster.run(2_000 * MS)
    cluster.restart("n3")
    cluster.run(400 * MS)
    assert serving(cluster)["n3"] < part / 2
    cluster.run(3_000 * MS)
    assert serving(cluster)["n3"] == part
    weights = [event.weight for _, _, event in cluster.evidence if isinstance(event, Weighed) and event.member == "n3"]
    failed = weights.index(0.0)
    assert weights == [*sorted(weights[:failed]), 0.0, *sorted(weights[failed + 1 :])]


def test_a_worker_that_hears_nothing_stops_by_itself_before_others_take_over() -> None:
    cluster = group()
    cluster.run(4_000 * MS)
    cluster.partition(["n4"], ["n1", "n2", "n3", "n5"])
    for _ in range(20):
        cluster.run(100 * MS)
        serving(cluster)
    assert serving(cluster)["n4"] == 0
    assert twice(cluster) == []


def test_a_coordinator_that_comes_back_waits_until_what_it_has_forgotten_is_over() -> None:
    cluster = group()
    cluster.run(4_000 * MS)
    cluster.crash("n1")
    cluster.run(50 * MS)
    cluster.restart("n1")
    cluster.run(5_000 * MS)
    assert serving(cluster).total() == CONFIG.shards
    assert twice(cluster) == []


def play(seed: int, make: type[Failover] = Failover) -> Group:
    cluster, random = group(seed, make), Random(f"{seed} faults")
    for _ in range(40):
        draw, name = random.random(), NAMES[int(random.random() * len(NAMES))]
        if draw < 0.2:
            cluster.heal()
            cluster.partition([name], [other for other in NAMES if other != name])
        elif draw < 0.4:
            cluster.heal()
        elif draw < 0.5 and name in cluster.alive:
            cluster.crash(name)
        elif draw < 0.7 and name not in cluster.alive:
            restart(cluster, name)
        cluster.run(int(random.random() * 400 * MS))
    return cluster


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whatever_breaks_no_shard_is_served_twice(seed: int) -> None:
    assert twice(play(seed)) == []


def test_giving_away_what_may_still_be_served_is_found() -> None:
    assert any(twice(play(seed, GivesAwayAtOnce)) for seed in range(20))


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0.01, 1.0), min_size=2), st.data())
def test_a_weight_that_rises_moves_shards_to_its_worker_only(weights: dict[str, float], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    before = assign(64, weights, 32)
    after = assign(64, {**weights, name: 1.0}, 32)
    assert {new for old, new in zip(before, after, strict=True) if old != new} <= {name}
    assert assign(64, {}, 32) == ()


def test_a_lease_between_two_beats_is_refused() -> None:
    with pytest.raises(FailoverConfigError, match="twice the interval"):
        FailoverConfig(interval=100 * MS, lease=150 * MS)


def test_gaps_in_service_are_measured_and_a_restart_ends_what_was_held() -> None:
    properties = OneOwner()
    for witness in (
        Witness("n2", 0, 1, Lease(0, [0], 500)),
        Witness("n2", 1, 1, Header(100, 1, "n2", 1, "failover")),
        Witness("n3", 0, 1, Lease(400, [0], 600)),
    ):
        assert properties.feed(witness) == []
    properties.finish()
    found = service(properties.held, 1, 0, 1000)
    assert (found.longest, found.at, found.share, found.moves) == (300, 100, 0.7, 1)


def test_who_is_stopped_serves_nothing_though_its_lease_goes_on() -> None:
    applied = Step(0, "pause", "applied", 100, resolved={"nodes": ["n2"]})
    paused = FaultRecord(0, "pause", applied=applied, healed=Step(0, "pause", "healed", 300))
    held = [Held("n2", 0, 0, 500), Held("n3", 1, 0, 500)]
    assert running(held, [paused], 0) == [Held("n2", 0, 0, 100), Held("n2", 0, 300, 500), Held("n3", 1, 0, 500)]
    killed = FaultRecord(0, "kill", applied=applied)
    assert running(held[:1], [killed], 50) == [Held("n2", 0, 0, 150)]
