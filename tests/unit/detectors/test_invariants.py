"""What must hold of detectors as they run: of those that are shipped it does, and of broken ones it does not."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from apps.detectors import FixedTimeout, HeartbeatConfig, Heartbeats, Swim, SwimConfig
from apps.detectors.invariants import HeartbeatInvariants, SwimInvariants
from experiments.simulation.group import Conditions, Group
from tests.unit.detectors import groups, mutants

MS = 1_000_000
SWIM = SwimConfig(interval=200 * MS, probe_timeout=100 * MS, suspicion_max_multiplier=2.0, reconnect_every=5)
BEATS = HeartbeatConfig(interval=100 * MS, timeout=400 * MS)
ROUGH = Conditions(delay=(MS, 60 * MS), loss=0.1, duplicate=0.05)
SEEDS = 45  # 300 were played when this was written


def stormy(group: Group, seed: int, observe: Callable[[Any], list[Any]], spells: int = 8) -> set[str]:
    """Crashes, pauses, partitions and one-way cuts, one after another; the properties that were violated meanwhile."""
    found: set[str] = set()

    def look(name: str) -> None:
        found.update(violation.property for violation in observe(group.process(name)))

    group.on_step = look
    draw = Random(f"{seed} storm").random
    for _ in range(spells):
        victim, other = (group.names[int(draw() * len(group.names))] for _ in range(2))
        kind = int(draw() * 4)
        if kind == 0 and victim in group.alive:
            group.crash(victim)
        elif kind == 1:
            group.partition([victim, other], [name for name in group.names if name not in (victim, other)])
        elif kind == 2:
            group.block([victim], group.names)
        elif victim in group.alive:
            group.pause(victim)
        group.run(int(draw() * 3_000 * MS))
        group.heal()
        group.resume(victim)
        if victim not in group.alive:
            group.restart(victim)
        group.run(500 * MS)
    return found


def swims(make: type[Swim], seed: int) -> set[str]:
    return stormy(groups.swim(6, SWIM, seed=seed, conditions=ROUGH, make=make), seed, SwimInvariants().observe)


def hearts(make: type[Heartbeats], seed: int) -> set[str]:
    names = groups.names(4)
    group = Group(
        names,
        lambda name, random: make(name, names, BEATS.interval, lambda: FixedTimeout(BEATS.timeout)),
        seed=seed,
        conditions=ROUGH,
    )
    watched = HeartbeatInvariants()
    return stormy(group, seed, lambda process: watched.observe(group.now, process), spells=4)


def test_whatever_happens_to_the_network_beliefs_come_about_by_the_rules() -> None:
    assert [seed for seed in range(SEEDS) if swims(Swim, seed)] == []
    assert [seed for seed in range(SEEDS // 3) if hearts(Heartbeats, seed)] == []


@pytest.mark.parametrize(
    ("mutant", "broken"),
    [
        (mutants.BelievesTheLatest, "BeliefsGoForward"),
        (mutants.RefutesForOthers, "IncarnationsAreOwn"),
    ],
)
def test_a_mutant_of_swim_breaks_the_invariant_that_is_about_its_rule(mutant: type[Swim], broken: str) -> None:
    assert broken in swims(mutant, 0) | swims(mutant, 1) | swims(mutant, 2)


def test_who_goes_by_half_of_the_silence_breaks_the_invariant_of_it() -> None:
    assert hearts(mutants.IsImpatient, 0) == {"SilenceHasLasted"}
