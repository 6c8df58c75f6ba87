"""The simulator shows what the fabric shows: the same faults, the same words, and times that do not drift apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.checking.results import Results
from experiments.run import WorldName, play
from experiments.scenario import load
from experiments.simulation.campaign import play_seeds
from tests.end_to_end.scenarios import write

pytestmark = [pytest.mark.network, pytest.mark.timeout(300), pytest.mark.xdist_group("fabric")]

FAULTS = (
    '[[fault]]\nkind = "partition"\nat = "1s"\nfor = "2s"\ngroups = [["leader"], ["others"]]\n',
    '[[fault]]\nkind = "partition"\nat = "4s"\nfor = "1s"\ngroups = [["minority"], ["majority"]]\n',
)
FABRIC_SEEDS, SIMULATED_SEEDS = range(1, 3), range(100, 124)

#: How much longer or shorter things may take on a noisy machine than in the simulator.
SLACK = 3.0


def played(folder: Path, seed: int, world: WorldName) -> tuple[Path, Results]:
    scenario = load(write(folder, "parity", *FAULTS, seed=seed, duration="7s"))
    run = play(scenario, folder / world, "test", lambda stage, detail: None, world)
    return run.path, run.results


def asked(run: Path) -> list[Any]:
    steps = [msgspec.json.decode(line) for line in (run / "faults.jsonl").read_bytes().splitlines()]
    return [
        (step["fault"], step["kind"], step["asked"]) if step["step"] == "asked" else step["resolved"]["groups"]
        for step in steps
        # Whom a role of leadership means depends on who leads; what the seed draws does not.
        if step["step"] == "asked" or (step["step"] == "applied" and step["fault"] == 1)
    ]


def words(run: Path) -> dict[str, list[str]]:
    """What kinds of events traces and histories hold, and with which keys."""
    found: dict[str, list[str]] = {}
    for path in [*run.glob("nodes/*/trace/[0-9]*.ndjson"), *run.glob("clients/*/trace/history.ndjson")]:
        for line in path.read_bytes().splitlines():
            event = msgspec.json.decode(line)
            found.setdefault(event.get("ev") or event["type"], sorted(set(event) - {"error"}))
    return found


def median_ns(times: list[int]) -> float:
    return float(sorted(times)[len(times) // 2])


def test_both_worlds_have_the_same_faults_the_same_words_and_the_same_times(tmp_path: Path) -> None:
    fabric = [played(tmp_path, seed, "emulated") for seed in FABRIC_SEEDS]
    run, _ = played(tmp_path, FABRIC_SEEDS[0], "simulated")
    assert asked(run) == asked(fabric[0][0])
    for kind, keys in words(run).items():
        assert words(fabric[0][0]).get(kind, keys) == keys

    simulated = list(play_seeds(load(tmp_path / "parity.toml"), SIMULATED_SEEDS))
    assert all(outcome.valid is True for outcome in simulated)
    expected = [outcome.election_times[0] for outcome in simulated]
    elections = [results.availability.new_leader["0"] for _, results in fabric if results.availability]
    assert None not in expected
    assert None not in elections
    ratio = median_ns(elections) / median_ns(expected)  # type: ignore[arg-type]
    assert 1 / SLACK < ratio < SLACK, (elections, expected)

    shares = [results.availability.share for _, results in fabric if results.availability]
    least = min(outcome.availability.share or 0.0 for outcome in simulated if outcome.availability)
    assert min(share or 0.0 for share in shares) > least - 0.05
    assert not any(
        check.name == "acknowledged_writes" and not check.valid for _, found in fabric for check in found.checks
    )
