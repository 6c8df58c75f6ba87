"""How many seeds the simulator needs to find each mutant of Raft: the table in ``docs/mutants.md``.

``python -m tests.unit.simulation.mutants [SEEDS] [MUTANT …]`` plays random faults against each mutant, at most SEEDS
seeds from 0 on, and prints the first that fails, and why. Raft itself is played too, and must not fail at all.
"""

from __future__ import annotations

import sys

from experiments.checking.results import Valid
from experiments.scenario import Expect, Raft, Register, Scenario
from experiments.simulation.campaign import play_seeds
from tests.unit.raft.mutants import MUTANTS
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


def find(name: str, seeds: int) -> tuple[int, Valid, str]:
    """The first seed that fails, and why; ``seeds`` if none does."""
    implementation = "" if name == "Raft" else f"tests.unit.simulation.mutant_kinds:{name}"
    for outcome in play_seeds(scenario(implementation), range(seeds), random_faults=True):
        if outcome.valid is False:
            return outcome.seed, False, outcome.broken[0]
    return seeds, True, ""


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| mutant | what it does | seeds until found | what showed it |\n|---|---|---|---|")
    for mutant in MUTANTS:
        if not sys.argv[2:] or mutant.__name__ in sys.argv[2:]:
            seed, valid, why = find(mutant.__name__, seeds)
            said = f"{seed + 1:,}" if valid is False else f"not in {seeds:,}"
            what = (mutant.__doc__ or "").strip().splitlines()[0]
            print(f"| `{mutant.__name__}` | {what} | {said} | {why.partition(': ')[0]} |", flush=True)
    if not sys.argv[2:]:
        seed, valid, why = find("Raft", seeds)
        print(f"\nRaft itself: {'no seed fails' if valid else f'seed {seed} fails: {why}'} in {seeds:,}.")


if __name__ == "__main__":
    main()
