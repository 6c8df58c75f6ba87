"""What ``splitbrain simulate`` does: many seeds, or one of them replayed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console

from apps.process import Nanoseconds
from experiments.checking.results import exit_status
from experiments.scenario import Scenario
from experiments.simulation.campaign import play_seeds, prepared, summarise
from experiments.simulation.seed import Outcome, play_traced
from experiments.simulation.shrink import shrink, to_toml
from experiments.simulation.telling import follow, show_summary, show_trace


def simulate(
    console: Console,
    scenario: Scenario,
    first: int,
    seeds: int,
    random_faults: bool,
    as_json: bool,
    small: Path | None = None,
) -> int:
    """Play ``seeds`` seeds from ``first`` on and say what came of them; interrupted, what came of those that are done.

    ``small``: where the first seed that fails is written to, made small.

    Returns the exit status: 0 valid, 1 a promise was broken, 2 unknown.
    """
    outcomes: list[Outcome] = []
    began = time.monotonic()
    interrupted = False
    try:
        playing = play_seeds(scenario, range(first, first + seeds), random_faults)
        follow(console, f"{scenario.name}, simulated", seeds, playing, outcomes)
    except KeyboardInterrupt:
        interrupted = True
    took = time.monotonic() - began
    summary = summarise(outcomes)
    status = exit_status(summary.verdict)
    following = first + len(outcomes)
    if as_json:
        failures = [outcome for outcome in outcomes if outcome.valid is not True]
        figures = {"seconds": took, "next": following, "summary": summary, "failures": failures}
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode({"scenario": scenario.name, **figures})) + b"\n"
        )
        sys.stdout.flush()
    else:
        show_summary(console, scenario.name, outcomes, summary, took)
        if interrupted:
            console.print(f"  interrupted; go on with --from {following}")
    if small is not None and summary.failed:
        shrink_first(console, scenario, summary.failed[0], random_faults, small)
    return 130 if interrupted and status == 0 else status


def shrink_first(console: Console, scenario: Scenario, seed: int, random_faults: bool, file: Path) -> None:
    """Make the scenario of a failing ``seed`` small, and write it to ``file``."""
    failing = prepared(scenario, seed, random_faults)
    small = shrink(failing) or failing
    said = f"{len(small.faults)} of {len(failing.faults)} faults, {len(small.workload.names)} clients"
    file.write_text(to_toml(small, f"Seed {seed} of {scenario.name}, made small."), encoding="utf-8")
    console.print(f"  seed {seed} made small: {said}; see {file}", soft_wrap=True)


def replay(
    console: Console, scenario: Scenario, seed: int, random_faults: bool, until: Nanoseconds | None, show: bool
) -> None:
    """Play one seed, up to ``until`` of the scenario's time; show its evidence if asked for, and the hash of it."""
    recorder, epoch = play_traced(prepared(scenario, seed, random_faults), until)
    if show:
        show_trace(console, recorder, epoch)
    lines = sum(map(len, recorder.files.values()))
    console.print(f"seed {seed}: {lines:,} lines, sha256 {recorder.digest()}", soft_wrap=True)
