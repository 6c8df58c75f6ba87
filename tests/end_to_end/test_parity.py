"""The simulator shows what the fabric shows: the same faults, the same words, and figures that do not drift apart.

Three scenarios (tests/parity.py), a few seeds of each on the fabric, and more in the simulator. What is compared and
by how much it may differ is said there; here is on what runs. A run on the fabric that is not to be believed because
the machine had other things to do is played once more, if there is time; where too few are left nothing is compared,
and the test is skipped with the reasons.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from experiments.checking.results import Results
from experiments.run import play
from experiments.scenario import parse
from tests.parity import DETECTOR, QUORUM, RAFT, Shown, asked, compared, shown, unshared, vocabulary

pytestmark = [pytest.mark.network, pytest.mark.timeout(400), pytest.mark.xdist_group("fabric")]

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))

#: By the scenario's name: the scenario, its seeds on the fabric, and in the simulator, which plays those too.
PLAYED = {
    "raft": (RAFT, range(1, 4), range(1, 7)),
    "quorum": (QUORUM, range(1, 3), range(1, 3)),
    "detector": (DETECTOR, range(1, 3), range(1, 7)),
}

#: What plays on the fabric side by side: five Raft nodes with clients want a third of a processor.
BATCHES = (("raft",), ("quorum", "detector"))

#: After so many seconds nothing is played a second time: a machine that was too busy so far will be.
PATIENCE = 60.0

#: A machine that always had more than this share of its processors' time left was not busy: a run there that is not to
#: be believed is the fabric's own fault.
BUSY = 0.1

#: Kinds of events that a run may have or not have.
CHANCE = {
    "history fail": "a read that nobody answered, or a compare-and-set that found another value",
    "history info": "a write that nobody answered",
    "trace truncate": "a leader that was cut off had entries that nobody else had",
    "trace install": "a follower was so far behind that it got a snapshot",
    "trace handoff": "a hint was kept for who was cut off",
    "trace repair": "a read found a replica behind",
    "trace short": "a quorum did not come together",
    "trace sync": "two replicas compared themselves, and differed",
}


class Played(msgspec.Struct, frozen=True):
    """A run in its folder ``path``. ``doubts``: why it is not to be believed."""

    scenario: str
    seed: int
    path: Path
    results: Results
    shown: Shown
    doubts: list[str]

    def mood(self) -> str:
        found = self.results.fidelity
        return f"{self.scenario} {self.seed}: {found.cpu_headroom or 0:.0%} of the processors left, loops " + (
            f"{(found.loop_lag_p99 or 0) / 1e6:.1f} ms late"
        )


def seen(scenario: str, seed: int, path: Path) -> Played:
    results = msgspec.json.decode((path / "results.json").read_bytes(), type=Results)
    broken = [f"{check.name}: {check.summary}" for check in results.checks if check.valid is False]
    assert not broken, (path, broken)
    return Played(scenario, seed, path, results, shown(path, results), results.believable.reasons)


def on_the_fabric(folder: Path, wanted: Sequence[tuple[str, int]]) -> list[Played]:
    """One run each of scenarios and seeds, side by side, as a person starts them."""
    running = []
    for name, seed in wanted:
        file = folder / f"{name}-{seed}.toml"
        file.write_text(f'name = "{name}"\nseed = {seed}\n{PLAYED[name][0]}')
        command = [SPLITBRAIN, "run", str(file), "--json", "--out", str(folder / "runs")]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=150) for process in running]
    assert all(process.returncode in (0, 1, 2) for process in running), said
    return [seen(name, seed, Path(json.loads(out)["run"])) for (name, seed), (out, _) in zip(wanted, said, strict=True)]


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Played]]:
    """Runs on the fabric by their scenario: believed ones if they could be had in two attempts."""
    folder = tmp_path_factory.mktemp("fabric")
    runs: dict[str, list[Played]] = {name: [] for name in PLAYED}
    began = time.monotonic()
    for batch in BATCHES:
        wanted = [(name, seed) for name in batch for seed in PLAYED[name][1]]
        first = on_the_fabric(folder, wanted)
        in_time = time.monotonic() - began < PATIENCE
        again = [(run.scenario, run.seed) for run in first if run.doubts and in_time]
        second = {(run.scenario, run.seed): run for run in (on_the_fabric(folder, again) if again else [])}
        for run in first:
            runs[run.scenario].append(second.get((run.scenario, run.seed), run))
    return runs


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Played]]:
    folder = tmp_path_factory.mktemp("simulated")

    def played(name: str, seed: int) -> Played:
        scenario = parse(f"seed = {seed}\n{PLAYED[name][0]}", name)
        return seen(name, seed, play(scenario, folder, "test", lambda stage, detail: None, "simulated").path)

    return {name: [played(name, seed) for seed in seeds] for name, (_, _, seeds) in PLAYED.items()}


def believed(runs: Sequence[Played], least: int) -> list[Played]:
    """Those to be believed. Skips the test where a busy machine left fewer than ``least``; fails it where that was
    not busy.
    """
    good = [run for run in runs if not run.doubts]
    if len(good) < least:
        reasons = "; ".join(f"{run.mood()}: {', '.join(run.doubts)}" for run in runs if run.doubts)
        idle = [run for run in runs if run.doubts and (run.results.fidelity.cpu_headroom_min or 0) >= BUSY]
        assert not idle, f"not to be believed, though the machine was not busy: {reasons}"
        pytest.skip(f"the machine was too busy: {reasons}")
    return good


def check(what: str, fabric: Sequence[Played], simulated: Sequence[Played], paired: bool = False) -> None:
    found = compared(what, [run.shown for run in fabric], [run.shown for run in simulated], paired)
    print(found)
    assert found.is_alike, f"{found}; on the fabric: {'; '.join(run.mood() for run in fabric)}"


def test_a_scenario_and_its_seed_give_the_same_schedule_of_faults_in_both_worlds(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    for name, runs in fabric.items():
        in_simulator = {run.seed: asked(run.path) for run in simulated[name]}
        for run in runs:
            assert asked(run.path) == in_simulator[run.seed], (name, run.seed)
    drawn = {repr(asked(run.path)) for run in simulated["quorum"]}
    assert len(drawn) == len(simulated["quorum"]), "another seed draws another schedule"


@pytest.mark.parametrize("name", PLAYED)
def test_both_worlds_tell_of_the_same_events_with_the_same_fields(
    name: str, fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    good = believed(fabric[name], 1)
    problems = unshared(vocabulary(run.path for run in good), vocabulary(run.path for run in simulated[name]), CHANCE)
    assert not problems


def test_a_leader_that_is_cut_off_is_replaced_as_soon_in_both_worlds(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    good = believed(fabric["raft"], 3)
    check("time to a new leader", good, simulated["raft"])
    check("upper quartile of times to a new leader", good, simulated["raft"])


def test_an_election_costs_as_many_operations_in_both_worlds(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    check("share of operations lost", believed(fabric["raft"], 3), simulated["raft"])


def test_a_strict_quorum_refuses_as_many_operations_in_both_worlds(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    good = believed(fabric["quorum"], 2)
    of_seed = {run.seed: run for run in simulated["quorum"]}
    # Who is cut off makes the difference, and the seed draws that.
    check("share of operations refused", good, [of_seed[run.seed] for run in good], paired=True)


def test_no_read_of_a_strict_quorum_is_stale_in_either_world(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    for run in (*fabric["quorum"], *simulated["quorum"]):
        assert run.results.staleness is not None
        assert (run.results.staleness.stale, run.results.staleness.reads > 100) == (0, True)


def test_reads_and_writes_across_slow_links_take_as_long_in_both_worlds(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    good = believed(fabric["quorum"], 1)
    check("latency of reads across slow links", good, simulated["quorum"])
    check("latency of writes across slow links", good, simulated["quorum"])


def test_a_member_that_falls_silent_is_found_as_soon_in_both_worlds(
    fabric: dict[str, list[Played]], simulated: dict[str, list[Played]]
) -> None:
    check("time to a detection", believed(fabric["detector"], 1), simulated["detector"])
