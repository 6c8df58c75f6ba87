"""How many seeds the simulator needs to find each mutant: the tables in ``docs/mutants.md``.

``python -m tests.unit.simulation.mutants [SEEDS] [MUTANT …]`` plays random faults against each mutant, at most SEEDS
seeds from 0 on, and prints the first that fails, and why. What they are mutants of is played too, under the names
``Raft``, ``Quorum`` and ``Swim``, and must not fail at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from random import Random

import msgspec

from experiments.nemesis import sample
from experiments.scenario import Drift, Expect, Raft, Reconfigure, Register, Scenario
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import Outcome, play_seed
from tests.unit.detectors.mutants import MUTANTS as OF_SWIM
from tests.unit.quorum.mutants import MUTANTS as OF_QUORUM
from tests.unit.raft.mutants import MUTANTS as OF_RAFT
from tests.unit.simulation import leaderless
from topologies.leaf_spine import LeafSpine

MS = 1_000_000

#: Contested elections: short timeouts close to each other, and nothing that keeps the peace.
SYSTEM = Raft(
    nodes=3, election_timeout=(50 * MS, 60 * MS), heartbeat_interval=15 * MS, pre_vote=False, check_quorum=False
)

#: Few keys, and clients that soon ask another node.
WORKLOAD = Register(clients=4, rate=200.0, keys=2, timeout=200 * MS)

#: A seed has one of these, in turn: what is not turned on cannot fail.
SYSTEMS = (
    SYSTEM,
    msgspec.structs.replace(SYSTEM, reads="lease"),
    msgspec.structs.replace(SYSTEM, follower_reads=True, snapshot_entries=10),
    msgspec.structs.replace(SYSTEM, nodes=5, voters=("n1", "n2", "n3"), pre_vote=True),
)

#: Kinds of faults in a schedule of Raft's.
MOST_KINDS = 4


def scenario(implementation: str = "") -> Scenario:
    system = msgspec.structs.replace(SYSTEM, implementation=implementation)
    return Scenario("mutants", "", 0, 5000 * MS, LeafSpine(2, 3, 4), system, WORKLOAD, (), Expect())


def _of_raft(implementation: str, seed: int) -> Scenario:
    system = msgspec.structs.replace(SYSTEMS[seed % len(SYSTEMS)], implementation=implementation)
    blank = msgspec.structs.replace(scenario(), system=system, seed=seed)
    drawn = with_random_faults(blank, MOST_KINDS)
    # Leases promise nothing where clocks drift by more than their bound.
    kept = [fault for fault in drawn.faults if system.reads != "lease" or not isinstance(fault, Drift)]
    return msgspec.structs.replace(drawn, faults=(*kept, *_changes(system, seed)))


def _changes(system: Raft, seed: int) -> Iterator[Reconfigure]:
    """Changes of members all the while, where there are nodes in reserve."""
    random = Random(f"{seed} changes")
    for moment in range(500, 3500, 500) if system.voters else ():
        voters = sample(random, system.names, 1 + int(random.random() * system.nodes))
        learners = [name for name in system.names if name not in voters and random.random() < 0.3]
        yield Reconfigure(tuple(voters), tuple(learners), moment * MS, 500 * MS)


def _of_quorum(implementation: str, seed: int) -> Scenario:
    return with_random_faults(leaderless.store(implementation).with_seed(seed))


def _of_swim(implementation: str, seed: int) -> Scenario:
    return with_random_faults(leaderless.group(implementation).with_seed(seed))


#: What is mutated: its scenario for an implementation and a seed, and its mutants.
FAMILIES: dict[str, tuple[Callable[[str, int], Scenario], Sequence[type]]] = {
    "Raft": (_of_raft, OF_RAFT),
    "Quorum": (_of_quorum, OF_QUORUM),
    "Swim": (_of_swim, OF_SWIM),
}


def play(asked: tuple[str, str, int]) -> Outcome:
    family, implementation, seed = asked
    return play_seed(FAMILIES[family][0](implementation, seed))


def find(family: str, name: str, seeds: int) -> tuple[int, str]:
    """The first seed that fails, and why; ``seeds`` if none does."""
    implementation = "" if name == family else f"tests.unit.simulation.mutant_kinds:{name}"
    with ProcessPoolExecutor() as pool:
        for outcome in pool.map(play, ((family, implementation, seed) for seed in range(seeds)), chunksize=2):
            if outcome.valid is False:
                pool.shutdown(wait=False, cancel_futures=True)
                return outcome.seed, outcome.broken[0]
    return seeds, ""


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| mutant | what it does | seeds until found | what showed it |\n|---|---|---|---|")
    for family, (_, mutants) in FAMILIES.items():
        for mutant in mutants:
            if not sys.argv[2:] or mutant.__name__ in sys.argv[2:]:
                seed, why = find(family, mutant.__name__, seeds)
                said = f"{seed + 1:,}" if why else f"not in {seeds:,}"
                what = " ".join((mutant.__doc__ or "").split("\n\n")[0].split())
                print(f"| `{mutant.__name__}` | {what} | {said} | {why.partition(': ')[0]} |", flush=True)
    for family in FAMILIES:
        if not sys.argv[2:] or family in sys.argv[2:]:
            seed, why = find(family, family, seeds)
            print(f"\n{family} itself: {f'seed {seed} fails: {why}' if why else 'no seed fails'} in {seeds:,}.")


if __name__ == "__main__":
    main()
