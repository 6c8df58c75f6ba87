"""What ``splitbrain simulate`` does: many seeds, or one of them replayed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from apps.process import Nanoseconds
from experiments.checking.results import exit_status
from experiments.folder import FolderError
from experiments.phrases import count
from experiments.scenario import Scenario
from experiments.simulation.campaign import play_seeds, prepared, summarise
from experiments.simulation.ledger import Ledger
from experiments.simulation.seed import Outcome, play_seed, replay_seed
from experiments.simulation.shrink import shrink, to_toml
from experiments.simulation.standing import standing
from experiments.simulation.telling import (
    Pace,
    evidence_rows,
    follow,
    show_replay,
    show_standing,
    show_summary,
    show_trace,
)


def simulate(
    console: Console,
    scenario: Scenario,
    first: int,
    seeds: int,
    random_faults: bool,
    as_json: bool,
    small: Path | None = None,
    out: Path | None = None,
) -> int:
    """Play ``seeds`` seeds from ``first`` on and say what came of them; interrupted, what came of those that are done.

    ``small``: where the first seed that fails is written to, made small. ``out``: a folder that keeps the outcomes;
    seeds that it has are not played again. Raises `FolderError` where one of both cannot be written, before any is
    played.

    Returns the exit status: 0 valid, 1 a promise was broken, 2 unknown.
    """
    if small is not None:
        _require_writable(small)
    asked = range(first, first + seeds)
    with Ledger(out, scenario, random_faults) if out is not None else contextlib.nullcontext() as ledger:
        kept = [ledger.outcomes[seed] for seed in asked if seed in ledger.outcomes] if ledger else []
        had = len(kept)
        began = time.monotonic()
        interrupted = False
        try:
            playing = play_seeds(scenario, ledger.missing(asked) if ledger else asked, random_faults)
            follow(console, f"{scenario.name}, simulated", seeds, _noted(playing, ledger), kept)
        except KeyboardInterrupt:
            interrupted = True
    pace = Pace(len(kept) - had, sum(one.events for one in kept[had:]), max(time.monotonic() - began, 1e-9))
    kept.sort(key=lambda outcome: outcome.seed)
    summary = summarise(kept)
    status = exit_status(summary.verdict)
    following = next((seed for seed, one in zip(asked, kept, strict=False) if seed != one.seed), first + len(kept))
    if as_json:
        failures = [outcome for outcome in kept if outcome.valid is not True]
        figures = {"seconds": pace.seconds, "next": following, "summary": summary, "failures": failures}
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode({"scenario": scenario.name, **figures})) + b"\n"
        )
        sys.stdout.flush()
    else:
        show_summary(console, scenario, kept, summary, pace)
        if interrupted:
            how = f"--out {out}" if out is not None else f"--from {following}"
            console.print(f"  interrupted; go on with {how}", soft_wrap=True)
    if small is not None and summary.failed:
        shrink_first(console, scenario, summary.failed[0], random_faults, small)
    return 130 if interrupted and status == 0 else status


def _noted(outcomes: Iterable[Outcome], ledger: Ledger | None) -> Iterator[Outcome]:
    for outcome in outcomes:
        if ledger is not None:
            ledger.add(outcome)
        yield outcome


def shrink_first(console: Console, scenario: Scenario, seed: int, random_faults: bool, file: Path) -> None:
    """Make the scenario of a failing ``seed`` small, and write it to ``file``."""
    failing = prepared(scenario, seed, random_faults)
    small = shrink(failing) or failing
    broken = next(iter(play_seed(small).broken), "it fails no more").replace("\n", " ")
    said = f"{len(small.faults)} of {len(failing.faults)} faults, {count(len(small.workload.names), 'client')}"
    file.write_text(to_toml(small, f"Seed {seed} of {scenario.name}, made small. {broken}"), encoding="utf-8")
    console.print(f"  seed {seed} made small: {said}; see {file}\n    {broken}", soft_wrap=True, markup=False)


def _require_writable(file: Path) -> None:
    """Raise `FolderError` where no file can be written, before anybody waits for what is to be in it."""
    there = file.exists()
    try:
        file.open("a").close()
    except OSError as error:
        raise FolderError(f"{file}: cannot be written ({error.strerror}); choose another --shrink FILE") from error
    if not there:
        file.unlink()


def replay(
    console: Console,
    scenario: Scenario,
    seed: int,
    random_faults: bool,
    until: Nanoseconds | None,
    show: bool,
    as_json: bool,
) -> int:
    """Play one seed, up to ``until`` of the scenario's time, and say what came of it: the verdict with what contradicts
    what, the hash of the evidence, and where every node stood when it was stopped; all the evidence, too, if ``show``.

    Returns the exit status: 0 valid, 1 a promise was broken, 2 unknown, as where it was stopped before its end.
    """
    found = replay_seed(prepared(scenario, seed, random_faults), until)
    played, outcome = found.played, found.outcome
    nodes = None
    if played.stopped is not None:
        nodes = standing(found.seen.witnesses, played.nodes, played.epoch + played.stopped)
    lines = sum(map(len, found.text.files.values()))
    if as_json:
        said: dict[str, Any] = {
            "scenario": scenario.name,
            "stopped": played.stopped,
            "lines": lines,
            "outcome": outcome,
        }
        if nodes is not None:
            said["nodes"] = nodes
        if show:
            said["trace"] = [
                {"t": row.moment, "who": row.who, "what": row.what, **row.facts} for row in evidence_rows(found)
            ]
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(said)) + b"\n")
        sys.stdout.flush()
        return exit_status(outcome.valid)
    if show:
        show_trace(console, found)
    if nodes is not None:
        show_standing(console, nodes)
    show_replay(console, found)
    console.print(f"seed {seed}: {lines:,} lines, sha256 {outcome.evidence_sha256}", soft_wrap=True)
    return exit_status(outcome.valid)
