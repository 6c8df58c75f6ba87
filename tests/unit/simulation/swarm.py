"""Scenarios of Raft in which the simulator looks for mutants: each is about something, and the rest is drawn.

Seeds take the `THEMES` in turn. A theme is a system that has what it is about, clients that would see it go wrong, and
faults that lead there: what is not turned on cannot fail, and what is beside the point hides the rest (swarm testing;
Groce et al., ISSTA 2012). Within a theme a seed draws everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, TypeAlias, TypeVar

import msgspec

from experiments.nemesis import sample
from experiments.scenario import (
    CrashPoint,
    Disorder,
    Drift,
    Expect,
    Impair,
    Kill,
    Mute,
    Partition,
    Pause,
    Raft,
    Reconfigure,
    Register,
    Scenario,
    SlowDisk,
    Transfer,
)
from experiments.simulation.random_faults import with_random_faults
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine

T = TypeVar("T")

MS = 1_000_000

#: When things begin to go wrong.
BEGIN = 250 * MS

#: Nodes are spread over the leaves, and clients beside them, so that some share a leaf with a node.
LEAVES = 3

#: Kinds of random faults in one schedule.
MOST_KINDS = 4


#: Faults for a scenario.
Maker: TypeAlias = Callable[[Random, Scenario], Iterable[Any]]


class Theme(msgspec.Struct, frozen=True):
    """``system``: what its Raft has that is not drawn. Of what follows a seed has one each. ``shortest``: the shortest
    election timeout, in milliseconds. ``clients``, with ``rates`` of all together; ``writes``: the share of writes.

    ``faults``: what goes wrong all the while; ``perhaps``: one more of these. ``seconds`` of virtual time.
    """

    system: dict[str, Any] = {}
    shortest: tuple[int, ...] = (50,)
    clients: tuple[int, ...] = (4, 7)
    rates: tuple[float, ...] = (200.0,)
    writes: tuple[float, ...] = (0.4,)
    faults: tuple[Maker, ...] = ()
    perhaps: tuple[Maker, ...] = ()
    seconds: int = 5


def theme(seed: int) -> str:
    """What the seed is about."""
    return list(THEMES)[seed % len(THEMES)]


def scenario(implementation: str, seed: int) -> Scenario:
    """The scenario of ``seed``, with our Raft or the ``implementation``."""
    random = Random(f"{seed} theme")
    drawn = THEMES[theme(seed)]
    system = _system(random, drawn, implementation)
    workload = _workload(random, drawn)
    plan = LeafSpine(2, LEAVES, -(-(system.nodes + workload.clients) // LEAVES))
    blank = Scenario("mutants", "", seed, drawn.seconds * 1000 * MS, plan, system, workload, (), Expect())
    makers = [*drawn.faults, *([_pick(random, drawn.perhaps)] if drawn.perhaps else [])]
    faults = [fault for make in makers for fault in make(random, blank)]
    # Leases promise nothing where clocks drift by more than their bound.
    kept = [fault for fault in faults if system.reads != "lease" or not isinstance(fault, Drift)]
    return msgspec.structs.replace(blank, faults=tuple(sorted(kept, key=lambda fault: fault.at)))


def _system(random: Random, theme: Theme, implementation: str) -> Raft:
    shortest = _pick(random, theme.shortest)
    system = Raft(
        nodes=3,
        # Close to each other, so that elections are contested.
        election_timeout=(shortest * MS, shortest * MS * 6 // 5),
        heartbeat_interval=int(shortest * MS * _pick(random, (0.2, 0.6))),
        pre_vote=random.random() < 0.2,
        check_quorum=random.random() < 0.2,
        implementation=implementation,
    )
    return msgspec.structs.replace(system, **theme.system)


def _workload(random: Random, theme: Theme) -> Register:
    """Clients of few keys, who ask another node soon, or not so soon."""
    writes = _pick(random, theme.writes)
    return Register(
        clients=_pick(random, theme.clients),
        rate=_pick(random, theme.rates),
        keys=_pick(random, (1, 2)),
        mix={"read": 1 - writes, "write": 0.8 * writes, "cas": 0.2 * writes},
        timeout=_pick(random, (100, 200, 400)) * MS,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong: again and again, and much of it shorter than can be proved


def _end(scenario: Scenario) -> int:
    """When no more begins to go wrong: as with random faults, the last quarter is for recovery."""
    return scenario.duration * 3 // 4


def random_faults(random: Random, scenario: Scenario) -> Sequence[Any]:
    """Of every kind there is, by the scenario's own seed."""
    return with_random_faults(scenario, MOST_KINDS).faults


def isolations(random: Random, scenario: Scenario) -> Iterator[Any]:
    """The leader is cut off for about as long as it takes to elect another, or two nodes miss each other."""
    longest = scenario.system.timeouts[1]
    moment = BEGIN
    while moment < _end(scenario):
        lasts = int(longest * (0.5 + 2.5 * random.random()))
        one, other = sample(random, scenario.system.names, 2)
        cut = Partition((("leader",), ("others",)), moment, lasts)
        missed = Partition(((one,), (other,)), moment, lasts)
        yield _pick(
            random, (cut, cut, cut, missed, Mute(("leader",), moment, lasts), Pause(("leader",), moment, lasts))
        )
        moment += int(lasts * (0.5 + 2 * random.random()))


def losses(random: Random, scenario: Scenario) -> Iterator[Any]:
    """Who was asked to lead loses one other and then all, and those it lost last may be restarted then."""
    longest, names = scenario.system.timeouts[1], scenario.system.names
    moment = BEGIN
    while moment < _end(scenario):
        lonely = _pick(random, names)
        first = _pick(random, [name for name in names if name != lonely])
        last = tuple(name for name in names if name not in (lonely, first))
        meanwhile, after = (int(longest * (0.3 + share * random.random())) for share in (0.6, 2.0))
        yield Transfer((lonely,), moment, longest)
        moment += longest
        yield Partition(((lonely,), (first,)), moment, meanwhile + after)
        moment += meanwhile
        yield Partition(((lonely,), last), moment, after)
        if random.random() < 0.7:
            yield Kill(last, moment, int(random.random() * 5 * MS))
        moment += after + int(longest * random.random())


def lags(random: Random, scenario: Scenario) -> Iterator[Impair]:
    """What goes into one leaf and then another, or comes out of it, is late by up to some election timeouts."""
    longest = scenario.system.timeouts[1]
    moment = BEGIN
    while moment < _end(scenario):
        leaf = 1 + int(random.random() * LEAVES)
        way = _pick(random, (f"spine*>leaf{leaf}", f"spine*>leaf{leaf}", f"leaf{leaf}>spine*"))
        lasts = int(longest * (1 + 4 * random.random()))
        yield Impair((way,), Impairment(delay=int(longest * (0.2 + 1.8 * random.random()))), moment, lasts)
        moment += int(lasts * (0.5 + random.random()))


def disorder(random: Random, scenario: Scenario) -> Iterator[Disorder]:
    """Many messages stray all the while, by up to some election timeouts."""
    late = int(scenario.system.timeouts[1] * (0.2 + 2 * random.random()))
    loss, repeat, stray = (_pick(random, shares) for shares in ((0.0, 0.1), (0.0, 0.1), (0.1, 0.3, 0.5)))
    yield Disorder(loss, repeat, stray, late, BEGIN, _end(scenario) - BEGIN)


def strays(random: Random, scenario: Scenario) -> Iterator[Disorder]:
    """Many messages stray all the while, by as much as a node may live in `double_restarts`; none is lost."""
    late = int(scenario.system.timeouts[1] * (0.5 + random.random()))
    yield Disorder(0.0, 0.0, _pick(random, (0.2, 0.3, 0.5)), late, BEGIN, _end(scenario) - BEGIN)


def deaths(random: Random, scenario: Scenario) -> Iterator[CrashPoint]:
    """Nodes die of what they do, and most are back at once."""
    event, share = _pick(random, (("vote", 0.5), ("role", 0.3), ("append", 0.05), ("commit", 0.05), ("apply", 0.05)))
    down = int(scenario.system.timeouts[1] * _pick(random, (0.05, 0.05, 2.0)))
    yield CrashPoint(event, share, down, BEGIN, _end(scenario) - BEGIN)


def restarts(random: Random, scenario: Scenario) -> Iterator[Kill]:
    """One node and then another is killed and is back at once, and perhaps again before long."""
    pace = _pick(random, (100, 500)) * MS
    for moment in range(BEGIN, _end(scenario), pace):
        nodes = tuple(sample(random, scenario.system.names, 1))
        at = moment + int(pace * random.random())
        for _ in range(1 + int(random.random() * 3)):
            yield Kill(nodes, at, int(random.random() * 5 * MS))
            at += int((30 + 120 * random.random()) * MS)


def double_restarts(random: Random, scenario: Scenario) -> Iterator[Kill]:
    """One node after another is killed and back at once, and again when it has asked few questions: they outlive it."""
    names = scenario.system.names
    for count, moment in enumerate(range(BEGIN, _end(scenario), 450 * MS)):
        for at in (moment, moment + int((70 + 110 * random.random()) * MS)):
            yield Kill((names[count % len(names)],), at, int(random.random() * 2 * MS))


def transfers(random: Random, scenario: Scenario) -> Iterator[Any]:
    """Another node is asked to lead, again and again, and who led before may be cut off while it hands over."""
    pace = _pick(random, (100, 300)) * MS
    for moment in range(BEGIN, _end(scenario), pace):
        yield Transfer(("followers",), moment, pace)
        if random.random() < 0.5:
            at = moment + int(80 * random.random() * MS)
            yield Partition((("leader",), ("others",)), at, int(scenario.system.timeouts[1] * 1.2))


def changes(random: Random, scenario: Scenario) -> Iterator[Reconfigure]:
    """Other voters or only other learners are asked for, again and again, whether or not it is done."""
    names, pace = scenario.system.names, _pick(random, (100, 250, 500)) * MS
    voters: list[str] = []
    for moment in range(BEGIN, _end(scenario), pace):
        if not voters or random.random() < 0.6:
            voters = sample(random, names, 1 + int(random.random() * len(names)))
        learners = [name for name in names if name not in voters and random.random() < 0.3]
        yield Reconfigure(tuple(voters), tuple(learners), moment, pace)


def slow_disks(random: Random, scenario: Scenario) -> Iterator[SlowDisk]:
    """It takes long until anything is written, all the while."""
    factor = _pick(random, (5.0, 20.0))
    yield SlowDisk(scenario.system.names, factor, BEGIN, _end(scenario) - BEGIN)


#: What the seeds are about, in turn.
THEMES = {
    "anything": Theme(writes=(0.5,), perhaps=(random_faults,)),
    "elections": Theme(writes=(0.2, 0.5), faults=(isolations,), perhaps=(deaths, restarts, disorder)),
    "reads": Theme(clients=(18,), rates=(400.0,), writes=(0.1,), faults=(lags, isolations)),
    "leases": Theme(
        {"reads": "lease"},
        shortest=(50, 150),
        clients=(9, 30),
        rates=(300.0,),
        writes=(0.1, 0.2),
        faults=(lags, isolations),
    ),
    "leases and restarts": Theme(
        {"reads": "lease"}, shortest=(150,), clients=(9, 30), rates=(400.0,), writes=(0.05, 0.1), faults=(losses,)
    ),
    "leases and transfers": Theme(
        {"reads": "lease"}, shortest=(150,), clients=(9,), writes=(0.1, 0.2), faults=(transfers,)
    ),
    "reads at followers": Theme(
        {"follower_reads": True},
        shortest=(150,),
        clients=(30,),
        rates=(200.0, 300.0),
        writes=(0.1,),
        faults=(strays, double_restarts),
        seconds=40,
    ),
    "snapshots": Theme(
        {"snapshot_entries": 3}, writes=(0.5,), faults=(isolations,), perhaps=(disorder, lags, restarts)
    ),
    # Who is left out and does not know of it disturbs the others for ever, unless they ask before they vote.
    "members": Theme(
        {"nodes": 5, "voters": ("n1", "n2", "n3"), "pre_vote": True},
        writes=(0.5,),
        faults=(changes,),
        perhaps=(isolations, losses, lags, deaths, random_faults),
    ),
    "members and elections": Theme(
        {"nodes": 5, "voters": ("n1", "n2", "n3"), "pre_vote": True},
        shortest=(150,),
        writes=(0.2,),
        faults=(changes, slow_disks, isolations),
    ),
}


def _pick(random: Random, choices: Sequence[T]) -> T:
    return choices[int(random.random() * len(choices))]
