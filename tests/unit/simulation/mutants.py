"""How many seeds the simulator needs to find each mutant: the tables in ``docs/mutants.md``.

``python -m tests.unit.simulation.mutants [SEEDS] [MUTANT …]`` plays random faults against each mutant, at most SEEDS
seeds from 0 on, and prints the first that fails, and why. What they are mutants of is played too, under the names
``Raft``, ``Quorum`` and ``Swim``, and must not fail at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from experiments.checking.results import Valid
from experiments.scenario import Expect, Raft, Register, Scenario
from experiments.simulation.campaign import play_seeds
from tests.unit.detectors.mutants import MUTANTS as OF_SWIM
from tests.unit.quorum.mutants import MUTANTS as OF_QUORUM
from tests.unit.raft.mutants import MUTANTS as OF_RAFT
from tests.unit.simulation import leaderless
from topologies.leaf_spine import LeafSpine

MS = 1_000_000

#: Contested elections and few keys: short timeouts close to each other, and nothing that keeps the peace.
SYSTEM = Raft(
    nodes=3, election_timeout=(50 * MS, 60 * MS), heartbeat_interval=15 * MS, pre_vote=False, check_quorum=False
)
WORKLOAD = Register(clients=4, rate=100.0, keys=2)


def scenario(implementation: str = "") -> Scenario:
    system = Raft(
        SYSTEM.nodes,
        election_timeout=SYSTEM.election_timeout,
        heartbeat_interval=SYSTEM.heartbeat_interval,
        pre_vote=SYSTEM.pre_vote,
        check_quorum=SYSTEM.check_quorum,
        implementation=implementation,
    )
    return Scenario("mutants", "", 0, 5000 * MS, LeafSpine(2, 3, 4), system, WORKLOAD, (), Expect())


#: What is mutated: its scenario for an implementation, and its mutants.
FAMILIES: dict[str, tuple[Callable[[str], Scenario], Sequence[type]]] = {
    "Raft": (scenario, OF_RAFT),
    "Quorum": (leaderless.store, OF_QUORUM),
    "Swim": (leaderless.group, OF_SWIM),
}


def find(family: str, name: str, seeds: int) -> tuple[int, Valid, str]:
    """The first seed that fails, and why; ``seeds`` if none does."""
    implementation = "" if name == family else f"tests.unit.simulation.mutant_kinds:{name}"
    for outcome in play_seeds(FAMILIES[family][0](implementation), range(seeds), random_faults=True):
        if outcome.valid is False:
            return outcome.seed, False, outcome.broken[0]
    return seeds, True, ""


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| mutant | what it does | seeds until found | what showed it |\n|---|---|---|---|")
    for family, (_, mutants) in FAMILIES.items():
        for mutant in mutants:
            if not sys.argv[2:] or mutant.__name__ in sys.argv[2:]:
                seed, valid, why = find(family, mutant.__name__, seeds)
                said = f"{seed + 1:,}" if valid is False else f"not in {seeds:,}"
                what = " ".join((mutant.__doc__ or "").split("\n\n")[0].split())
                print(f"| `{mutant.__name__}` | {what} | {said} | {why.partition(': ')[0]} |", flush=True)
    for family in FAMILIES:
        if not sys.argv[2:] or family in sys.argv[2:]:
            seed, valid, why = find(family, family, seeds)
            print(f"\n{family} itself: {'no seed fails' if valid else f'seed {seed} fails: {why}'} in {seeds:,}.")


if __name__ == "__main__":
    main()
