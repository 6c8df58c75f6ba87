"""Whether the failure detectors do what their papers say, and what they cost: in virtual time, so exact and repeatable.

The papers' figures are of the protocols alone, so these are too: no fabric, no loss, a millisecond for each message.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from random import Random

from apps.detectors import (
    Accrual,
    Beat,
    FixedTimeout,
    HeartbeatConfig,
    Heartbeats,
    PhiConfig,
    Roster,
    Standing,
    Swim,
    SwimConfig,
    quality,
)
from apps.process import Nanoseconds, NodeId, Received, SetTimer, Started
from experiments.bench import Figure, figure
from experiments.simulation.group import Group

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND

#: So that the standard error of the mean is below 2 %: a detection takes 1.58 ± 0.96 periods.
MEMBERS, CRASHES = 50, 1_000
#: How much of the evidence of φ's σ is drawn anew: each time a window's estimate of σ is off by 1/√2000 = 2 %.
WINDOWS = 30
LOADS, LOAD_SECONDS = (16, 128), 30
DETECTIONS = 11


def bench() -> list[Figure]:
    loads = {count: _load(count) for count in LOADS}
    figures = [
        figure("swim_detection_periods", _detection_periods(aligned=True), "periods", aim="1.58 ± 5 %"),
        figure("swim_detection_periods_unaligned", _detection_periods(aligned=False), "periods"),
        figure("phi8_sigma", _phi_sigma(8.0), "σ", aim="5.61 ± 5 %"),
    ]
    figures += [figure(f"swim_messages_per_s_{count}", load, "1/s") for count, load in loads.items()]
    small, large = (loads[count] for count in LOADS)
    figures.append(figure("swim_load_growth", large / small, f"{LOADS[1]} over {LOADS[0]} members", aim="1 ± 5 %"))
    for name, group in (("heartbeat", _heartbeats), ("phi", _phi)):
        figures.append(figure(f"{name}_detection_ms", _time_to_failed(group) / MILLISECOND, "ms"))
    figures.append(figure("swim_detection_ms", _time_to_failed(swim) / MILLISECOND, "ms"))
    return figures


def _detection_periods(*, aligned: bool) -> float:
    """Periods from a crash until the first suspicion. ``aligned``: all periods begin together, the crash just before.

    That is how the paper counts (§3.1): in each period someone pings the crashed member with probability 1 − 1/e, and
    suspects it when the period ends. When each member has a phase of its own, it takes a period until the first ping,
    on average, and one more until its end.
    """
    config, taken = SwimConfig(), list[float]()
    for seed in range(CRASHES):
        random = Random(f"{seed} crash")
        group = swim(seed, MEMBERS, aligned=aligned)
        group.run(config.interval * 3 // 2 if not aligned else config.interval - 1)
        crashed, victim = group.now + aligned, group.names[int(random.random() * MEMBERS)]
        group.crash(victim)
        while not (found := _first(group, victim, crashed)):
            group.run(config.interval)
        taken.append(found[0] / config.interval)
    return statistics.fmean(taken)


def _first(group: Group, victim: NodeId, crashed: Nanoseconds) -> list[Nanoseconds]:
    judged = quality(group.evidence, group.names, {victim: crashed}, standing=Standing.SUSPECT)
    return list(judged.first_detection.values())


def _phi_sigma(threshold: float) -> float:
    """How many deviations beyond the mean of the intervals a member is given up that has fallen silent."""
    mean, deviation = 1_000 * MILLISECOND, 50 * MILLISECOND
    config = PhiConfig(interval=mean, threshold=threshold, least_deviation=MILLISECOND)
    found = []
    for window in range(WINDOWS):
        random = Random(f"{window} intervals")
        node = Heartbeats("a", ["a", "b"], mean, lambda: Accrual(config))
        node.handle(0, Started())
        now, given_up = 0, 0
        for number in range(config.window + 2):
            now += round(random.gauss(mean, deviation))
            for effect in node.handle(now, Received("b", Beat(0, number))):
                if isinstance(effect, SetTimer):
                    given_up = effect.after
        found.append((given_up - mean) / deviation)
    return statistics.fmean(found)


def _load(members: int) -> float:
    """Messages a member sends in a second while nothing happens."""
    group = swim(0, members)
    group.run(LOAD_SECONDS * SECOND + SECOND)
    return quality(group.evidence, group.names, {}).messages_per_second


def _time_to_failed(make: Callable[[int], Group]) -> Nanoseconds:
    """From a crash until all others take the member for failed, in a group of 16 with the defaults: the median."""
    taken: list[Nanoseconds] = []
    for seed in range(DETECTIONS):
        group = make(seed)
        group.run(5 * SECOND + int(Random(f"{seed} crash").random() * SECOND))
        victim, crashed = group.names[seed % len(group.names)], group.now
        group.crash(victim)
        while not (found := quality(group.evidence, group.names, {victim: crashed}).last_detection):
            group.run(SECOND)
        taken += found.values()
    return int(statistics.median(taken))


def _names(count: int) -> list[NodeId]:
    return [f"m{number}" for number in range(count)]


def swim(seed: int, members: int = 16, *, aligned: bool = False) -> Group:
    config, roster = SwimConfig(), Roster(_names(members))
    random = Random(f"{seed} starts")
    starts = {name: 0 if aligned else int(random.random() * config.interval) for name in roster.names}
    return Group(roster.names, lambda name, random: Swim(name, roster, config, random), seed=seed, starts=starts)


def _heartbeats(seed: int) -> Group:
    config, names = HeartbeatConfig(), _names(16)
    return Group(
        names,
        lambda name, random: Heartbeats(name, names, config.interval, lambda: FixedTimeout(config.timeout)),
        seed=seed,
    )


def _phi(seed: int) -> Group:
    config, names = PhiConfig(), _names(16)
    return Group(
        names, lambda name, random: Heartbeats(name, names, config.interval, lambda: Accrual(config)), seed=seed
    )
