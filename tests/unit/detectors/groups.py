"""Groups of detectors in virtual time, and their faults."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from apps.detectors import (
    FixedTimeout,
    HeartbeatConfig,
    Heartbeats,
    Quality,
    Roster,
    Standing,
    Swim,
    SwimConfig,
    quality,
)
from apps.process import Nanoseconds, NodeId
from experiments.simulation.group import Conditions, Group

MS = 1_000_000
SECOND = 1_000 * MS

_SWIM, _HEARTBEATS, _CALM = SwimConfig(), HeartbeatConfig(), Conditions()


def names(count: int) -> list[NodeId]:
    return [f"m{number}" for number in range(count)]


def swim(
    count: int,
    config: SwimConfig = _SWIM,
    *,
    seed: int = 0,
    conditions: Conditions = _CALM,
    make: type[Swim] = Swim,
) -> Group:
    """Members that start within one period of each other."""
    roster, random = Roster(names(count)), Random(f"{seed} starts")
    starts = {name: int(random.random() * config.interval) for name in roster.names}
    return Group(
        roster.names,
        lambda name, random: make(name, roster, config, random),
        seed=seed,
        conditions=conditions,
        starts=starts,
    )


def heartbeats(count: int, config: HeartbeatConfig = _HEARTBEATS, *, seed: int = 0) -> Group:
    members = names(count)
    return Group(
        members,
        lambda name, random: Heartbeats(name, members, config.interval, lambda: FixedTimeout(config.timeout)),
        seed=seed,
    )


def judged(group: Group, crashes: Mapping[NodeId, Nanoseconds] = {}, standing: Standing = Standing.FAILED) -> Quality:
    return quality(group.evidence, group.names, crashes, standing=standing)


def opinions(group: Group, member: NodeId) -> set[Standing]:
    """What the living others take ``member`` for."""
    return {group.process(name).standing(member) for name in group.alive if name != member}
