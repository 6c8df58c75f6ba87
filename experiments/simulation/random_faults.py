"""A schedule of faults of every kind, drawn from a seed: who, what, when and how long."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any, TypeAlias, TypeVar

import msgspec

from apps.raft import RaftConfig
from experiments.nemesis import sample
from experiments.scenario import (
    BitFlip,
    CrashPoint,
    Disorder,
    Drift,
    Expect,
    Failover,
    Flap,
    FullDisk,
    Heartbeat,
    Impair,
    Kill,
    LinkDown,
    Mute,
    Partition,
    Pause,
    Phi,
    Quorum,
    Raft,
    Scenario,
    Skew,
    SlowDisk,
    Swim,
    System,
)
from experiments.scenario.process_faults import LOG_FAULTS
from topologies.impairment import Impairment

T = TypeVar("T")

#: Makes a fault for a scenario, by a generator: at a time, so long.
_Maker: TypeAlias = Callable[[Scenario, Random, int, int], Any]

_MILLISECOND = 1_000_000

#: Nothing breaks at first, and nothing is broken at the end: shares of a scenario's duration.
QUIET_START, QUIET_END = 0.05, 0.25

#: Faults of one schedule, the moments they gather around, and how near: what overlaps finds more than what does not.
MOST_FAULTS, MOST_MOMENTS, NEAR_MS = 8, 3, 600

#: How long one lasts: long enough to be proved on a fabric, by a look at who reaches whom that begins when another look
#: has ended; a kill takes no time to prove.
LASTS_MS = (600, 1000, 2000, 4000)
KILLED_MS = (5, 50, 300, 1000, 3000)


def with_random_faults(
    scenario: Scenario, most_kinds: int | None = None, possible: Collection[type[Any]] | None = None
) -> Scenario:
    """``scenario`` with a schedule drawn by its seed in place of its own.

    ``possible``: the classes of faults that the world can strike with, None for all there are. Of a log on disk there
    are none where the system keeps none.

    ``most_kinds``: a schedule has at most so many kinds of faults, drawn first, so that what needs two of them at once
    is not drowned by the others (Groce et al., Swarm Testing, ISSTA 2012); None for any. Of what the scenario expects,
    only safety and what follows the last heal are left: the rest is about its own faults.
    """
    random = Random(f"{scenario.seed} random faults")
    begin = int(scenario.duration * QUIET_START)
    end = int(scenario.duration * (1 - QUIET_END))
    moments = [begin + int(random.random() * (end - begin)) for _ in range(1 + int(random.random() * MOST_MOMENTS))]
    kinds: Sequence[_Maker] = [
        make
        for fault, make in _KINDS
        if (possible is None or fault in possible)
        and (scenario.system.keeps_log or fault not in LOG_FAULTS)
        # The time of day means nothing to the others.
        and (fault is not Skew or isinstance(scenario.system, Quorum))
    ]
    if most_kinds is not None:
        kinds = [_pick(random, kinds) for _ in range(1 + int(random.random() * most_kinds))]
    faults: list[Any] = []
    for _ in range(1 + int(random.random() * MOST_FAULTS)):
        make = _pick(random, kinds)
        lasts = _pick(random, KILLED_MS if make is _kill else LASTS_MS) * _MILLISECOND
        at = _pick(random, moments) + int(random.random() * NEAR_MS * _MILLISECOND)
        fault = make(scenario, random, at, lasts)
        faults.append(msgspec.structs.replace(fault, at=max(begin, min(at, end - fault.lasts))))
    asked = scenario.expect
    expect = Expect(asked.linearizable, asked.recovery, reinstatement=asked.reinstatement)
    return msgspec.structs.replace(scenario, faults=tuple(sorted(faults, key=lambda fault: fault.at)), expect=expect)


def _pick(random: Random, choices: Sequence[T]) -> T:
    return choices[int(random.random() * len(choices))]


def _some(scenario: Scenario, random: Random) -> tuple[str, ...]:
    """A role, or nodes by name."""
    names = scenario.system.names
    named = tuple(sample(random, names, 1 + int(random.random() * (len(names) // 2))))
    return _pick(random, (("leader",), ("leader",), ("minority",), named))


def _partition(scenario: Scenario, random: Random, at: int, lasts: int) -> Partition:
    names = scenario.system.names
    side = tuple(sample(random, names, 1 + int(random.random() * (len(names) - 1))))
    drawn = (side, tuple(name for name in names if name not in side))
    groups = _pick(random, ((("leader",), ("others",)), (("minority",), ("majority",)), drawn))
    return Partition(groups, at, lasts)


def _kill(scenario: Scenario, random: Random, at: int, lasts: int) -> Kill:
    victims = _pick(random, (_some(scenario, random), ("leader",), ("majority",), scenario.system.names))
    return Kill(victims, at, lasts)


def _link(scenario: Scenario, random: Random) -> str:
    """One between switches, where there are any."""
    links = scenario.plan.links
    return _pick(random, [link.name for link in links if link.a.port and link.b.port] or [link.name for link in links])


def _link_down(scenario: Scenario, random: Random, at: int, lasts: int) -> LinkDown:
    link = _link(scenario, random)
    near = scenario.plan.link(link).a.node
    return LinkDown((_pick(random, (link, f"{near}-*")),), at, lasts)


def _flap(scenario: Scenario, random: Random, at: int, lasts: int) -> Flap:
    period = lasts // _pick(random, (2, 5))
    return Flap((_link(scenario, random),), period, _pick(random, (0.2, 0.5, 0.8)), period // 20, at, lasts)


def _impair(scenario: Scenario, random: Random, at: int, lasts: int) -> Impair:
    delay = _pick(random, (0, 2, 20, 100)) * _MILLISECOND
    impairment = Impairment(
        delay=delay,
        jitter=int(delay * random.random()),
        loss=_pick(random, (0.01, 0.1, 0.5)),
        burst=_pick(random, (0.0, 3.0)),
        reorder=_pick(random, (0.0, 0.1)),
    )
    link = scenario.plan.link(_link(scenario, random))
    # Its probes are waited for as long as they may be late, and sent for some time before.
    lasts = max(lasts, 4 * (delay + 3 * impairment.jitter) + 600 * _MILLISECOND)
    return Impair((_pick(random, (link.name, *link.directions)),), impairment, at, lasts)


def _mute(scenario: Scenario, random: Random, at: int, lasts: int) -> Mute:
    return Mute(_some(scenario, random), at, lasts)


def _pause(scenario: Scenario, random: Random, at: int, lasts: int) -> Pause:
    return Pause(_some(scenario, random), at, lasts)


def _slow_disk(scenario: Scenario, random: Random, at: int, lasts: int) -> SlowDisk:
    return SlowDisk(_some(scenario, random), _pick(random, (5.0, 50.0, 300.0)), at, lasts)


def _full_disk(scenario: Scenario, random: Random, at: int, lasts: int) -> FullDisk:
    return FullDisk(_some(scenario, random), at, lasts)


def _bit_flip(scenario: Scenario, random: Random, at: int, lasts: int) -> BitFlip:
    return BitFlip(scenario.system.names[-1:], at, lasts)  # always the same node: it may be gone for good


def _drift(scenario: Scenario, random: Random, at: int, lasts: int) -> Drift:
    return Drift(_some(scenario, random), _pick(random, _rates(scenario.system)), at, lasts)


def _rates(system: System) -> tuple[float, ...]:
    """Rates of clocks that ``system`` is to bear. Who goes by leases takes for granted that no two clocks differ by
    more than is agreed; beyond that it promises nothing.
    """
    match system:
        case Failover(config=config):
            slowest = math.sqrt(1 - config.drift)
        case Raft(reads="lease"):
            slowest = math.sqrt(1 / (1 + RaftConfig().clock_drift_bound))
        case _:
            return 0.5, 0.9, 1.1, 2.0
    return slowest, 1 / slowest


def _skew(scenario: Scenario, random: Random, at: int, lasts: int) -> Skew:
    offset = _pick(random, (20, 200, 800)) * _pick(random, (1, -1)) * _MILLISECOND
    return Skew(_some(scenario, random), offset, _pick(random, (0, 0, 100)) * _MILLISECOND, at, lasts)


def _disorder(scenario: Scenario, random: Random, at: int, lasts: int) -> Disorder:
    late = int(scenario.system.timeouts[1] * (0.1 + 2 * random.random()))
    return Disorder(_pick(random, (0.0, 0.02, 0.2)), _pick(random, (0.0, 0.1)), 0.05, late, at, lasts)


def _crash_point(scenario: Scenario, random: Random, at: int, lasts: int) -> CrashPoint:
    down = int(scenario.system.timeouts[1] * _pick(random, (0.02, 0.2, 3.0)))
    worst = _WORST_MOMENTS.get(type(scenario.system), _WORST_MOMENTS[Raft])
    return CrashPoint(_pick(random, worst), 0.3, down, at, lasts)


#: When nodes die of a `CrashPoint`, as their traces name it.
_WORST_MOMENTS: Mapping[type[Any], Sequence[str]] = {
    Raft: ("vote", "vote", "role", "commit"),
    Quorum: ("put", "keep", "ack", "handoff"),
    Swim: ("believe",),
    Heartbeat: ("believe",),
    Phi: ("believe",),
    Failover: ("lease", "weigh"),
}

#: Partitions and kills twice: most failures of real systems need no more (Alquraan et al., OSDI 2018, §5).
_KINDS: tuple[tuple[type[Any], _Maker], ...] = (
    (Partition, _partition),
    (Partition, _partition),
    (Kill, _kill),
    (Kill, _kill),
    (LinkDown, _link_down),
    (Flap, _flap),
    (Impair, _impair),
    (Mute, _mute),
    (Pause, _pause),
    (SlowDisk, _slow_disk),
    (FullDisk, _full_disk),
    (BitFlip, _bit_flip),
    (Drift, _drift),
    (Skew, _skew),
    (Disorder, _disorder),
    (CrashPoint, _crash_point),
)
