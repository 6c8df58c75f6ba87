"""What ``splitbrain simulate`` does: many seeds, or one of them replayed."""

from __future__ import annotations

import sys
import time

import msgspec
from rich.console import Console

from apps.process import Nanoseconds
from experiments.results import exit_status
from experiments.scenario import Scenario
from experiments.simulation.campaign import play_seeds, prepared, summarise
from experiments.simulation.seed import Outcome, play_traced
from experiments.simulation.telling import follow, show_summary, show_trace


def simulate(console: Console, scenario: Scenario, first: int, seeds: int, random_faults: bool, as_json: bool) -> int:
    """Play ``seeds`` seeds from ``first`` on and say what came of them; interrupted, what came of those that are done.

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
    return 130 if interrupted and status == 0 else status


def replay(
    console: Console, scenario: Scenario, seed: int, random_faults: bool, until: Nanoseconds | None, show: bool
) -> None:
    """Play one seed, up to ``until`` of the scenario's time; show its evidence if asked for, and the hash of it."""
    recorder, epoch = play_traced(prepared(scenario, seed, random_faults), until)
    if show:
        show_trace(console, recorder, epoch)
    lines = sum(map(len, recorder.files.values()))
    console.print(f"seed {seed}: {lines:,} lines, sha256 {recorder.digest()}", soft_wrap=True)
