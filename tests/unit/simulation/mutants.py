"""How many seeds the simulator needs to find each mutant: the tables in ``docs/mutants.md``.

``python -m tests.unit.simulation.mutants [SEEDS] [MUTANT …]`` plays schedules of faults against each mutant, at most
SEEDS seeds from 0 on, and prints the first that fails, and why. What they are mutants of is played too, under the names
``Raft``, ``Quorum`` and ``Swim``, and must not fail at all. ``JOBS`` in the environment: how many seeds are played at a
time, as many as there are processors if it is not there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from experiments.scenario import Scenario
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import Outcome, play_seed
from tests.unit.detectors.mutants import MUTANTS as OF_SWIM
from tests.unit.quorum.mutants import MUTANTS as OF_QUORUM
from tests.unit.raft.mutants import MUTANTS as OF_RAFT
from tests.unit.simulation import leaderless, swarm


def _of_quorum(implementation: str, seed: int) -> Scenario:
    """Linearizable stores under random faults, such with siblings, `bare` ones, and `power_cuts`, in turn."""
    match seed % 4:
        case 2:
            return leaderless.bare(implementation, seed)
        case 3:
            return leaderless.power_cuts(implementation, seed)
        case turn:
            make = leaderless.siblings if turn else leaderless.store
            return with_random_faults(make(implementation).with_seed(seed))


def _of_swim(implementation: str, seed: int) -> Scenario:
    return with_random_faults(leaderless.group(implementation).with_seed(seed))


#: What is mutated: its scenario for an implementation and a seed, and its mutants.
FAMILIES: dict[str, tuple[Callable[[str, int], Scenario], Sequence[type]]] = {
    "Raft": (swarm.scenario, OF_RAFT),
    "Quorum": (_of_quorum, OF_QUORUM),
    "Swim": (_of_swim, OF_SWIM),
}


def play(asked: tuple[str, str, int]) -> Outcome:
    family, implementation, seed = asked
    return play_seed(FAMILIES[family][0](implementation, seed))


def named(name: str) -> str:
    """The implementation to play for a mutant, or for what it is one of."""
    return "" if name in FAMILIES else f"tests.unit.simulation.mutant_kinds:{name}"


def find(family: str, name: str, seeds: int) -> tuple[int, str]:
    """The first seed that fails, and why; ``seeds`` if none does."""
    with ProcessPoolExecutor(int(os.environ.get("JOBS", "0")) or None) as pool:
        for outcome in pool.map(play, ((family, named(name), seed) for seed in range(seeds)), chunksize=2):
            if outcome.valid is False:
                pool.shutdown(wait=False, cancel_futures=True)
                return outcome.seed, outcome.broken[0]
    return seeds, ""


def where(family: str, seed: int) -> str:
    """What the system of ``seed`` was about."""
    if family == "Raft":
        return swarm.theme(seed)
    return FAMILIES[family][0]("", seed).name


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| mutant | what it does | seeds until found | in | what showed it |\n|---|---|---|---|---|")
    for family, (_, mutants) in FAMILIES.items():
        for mutant in mutants:
            if not sys.argv[2:] or mutant.__name__ in sys.argv[2:]:
                seed, why = find(family, mutant.__name__, seeds)
                said = f"{seed + 1:,} | {where(family, seed)}" if why else f"not in {seeds:,} | "
                what = " ".join((mutant.__doc__ or "").split("\n\n")[0].split())
                print(f"| `{mutant.__name__}` | {what} | {said} | {why.partition(': ')[0]} |", flush=True)
    for family in FAMILIES:
        if not sys.argv[2:] or family in sys.argv[2:]:
            began = time.monotonic()
            seed, why = find(family, family, seeds)
            found = f"seed {seed} fails: {why}" if why else "no seed fails"
            print(f"\n{family} itself: {found} in {seeds:,} ({time.monotonic() - began:.0f} s).", flush=True)


if __name__ == "__main__":
    main()
