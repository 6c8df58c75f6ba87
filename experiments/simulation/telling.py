"""What a person sees of a simulation: progress, the failing seeds with what contradicts what, and the rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from experiments.narrator import SIGNS
from experiments.phrases import count, seconds
from experiments.scenario import Scenario
from experiments.simulation.campaign import Spread, Summary
from experiments.simulation.recording import TextRecorder
from experiments.simulation.seed import Outcome

#: Failing seeds told of one by one.
MOST_TOLD = 10


class Pace(NamedTuple):
    """What was played now, and how long that took: less than there is, where a campaign went on."""

    seeds: int
    events: int
    seconds: float


def follow(console: Console, title: str, total: int, outcomes: Iterable[Outcome], kept: list[Outcome]) -> None:
    """Put ``outcomes`` into ``kept`` as they come, with a bar where there is a terminal.

    ``kept`` may hold some already, which ``total`` counts, too.
    """
    columns = (TextColumn("{task.description}"), BarColumn(36), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=len(kept))
        failed = sum(one.valid is False for one in kept)
        for outcome in outcomes:
            kept.append(outcome)
            failed += outcome.valid is False
            said = f"{title}, [red]{failed} failed[/]" if failed else title
            bar.update(task, completed=len(kept), description=said)


def show_summary(
    console: Console, scenario: Scenario, outcomes: Sequence[Outcome], summary: Summary, pace: Pace
) -> None:
    sign, colour = SIGNS[summary.verdict]
    said = f"{count(summary.seeds, 'seed')} of {scenario.name}: {summary.valid:,} valid"
    said += f", {len(summary.failed):,} failed, {len(summary.unknown):,} unknown"
    console.print(Text.assemble((f"{sign} ", f"bold {colour}"), (said, "bold")))
    wrong = [outcome for outcome in outcomes if outcome.valid is not True]
    for outcome in sorted(wrong, key=lambda outcome: outcome.valid is not False)[:MOST_TOLD]:
        _show_failure(console, outcome)
    if len(wrong) > MOST_TOLD:
        console.print(f"  and {len(wrong) - MOST_TOLD:,} more: {_listed([one.seed for one in wrong])}")
    simulated = summary.seeds * scenario.duration / 1e9 or 1.0
    table = Table.grid(padding=(0, 2))
    share = "" if summary.share is None else f"{summary.share:.3%}, {summary.least_share:.3%} in the worst seed"
    judged = any(outcome.detection for outcome in outcomes)
    served = [
        ("operations", f"{summary.operations:,}, {summary.operations / simulated:,.1f} a second"),
        ("served", share),
        ("failed, unknown", f"{summary.unserved:,}, {summary.in_doubt:,}"),
        ("seeds that lost acknowledged writes", f"{summary.lost_writes:,}"),
        ("elections a seed", f"{summary.elections_per_seed:.2f}"),
        ("time to a new leader", _spread(summary.new_leader)),
        ("time to recover after a heal", _spread(summary.recovery)),
        ("longest outage", _spread(summary.longest_outage)),
    ]
    stale = [
        ("stale reads", f"{summary.stale_reads:,} of {summary.reads:,}"),
        ("a seed's oldest", _spread(summary.oldest_read)),
    ]
    found = [
        ("time until all found a failure", _spread(summary.found_failed)),
        ("false positives", f"{summary.false_positives:,}"),
    ]
    rows = [
        *(served if summary.operations or not judged else []),
        *(stale if summary.reads else []),
        *(found if judged else []),
        ("simulated", f"{pace.events:,} events in {pace.seconds:.1f} s: {pace.events / pace.seconds:,.0f} a second, "
                      f"{pace.seeds * 60 / pace.seconds:,.0f} seeds a minute"),
    ]  # fmt: skip
    for label, value in rows:
        table.add_row(f"  {label}", Text(value, style="dim"))
    console.print(table)


def _show_failure(console: Console, outcome: Outcome) -> None:
    sign, colour = SIGNS[outcome.valid]
    console.print(Text.assemble((f"  {sign} seed {outcome.seed}  ", colour), "; ".join(outcome.broken)))
    for violation in outcome.violations[:1]:
        table = Table.grid(padding=(0, 3))
        table.add_row(*(_event(event) for event in violation["events"]))
        console.print(Text("      "), table)


def _event(event: dict[str, Any]) -> Text:
    place = f"{event['node']}, incarnation {event['incarnation']}, {event['t'] / 1e9:.6f} s"
    rest = {key: value for key, value in event.items() if key not in ("node", "incarnation", "line", "t", "ev")}
    facts = "\n".join(f"  {key} {value}" for key, value in rest.items())
    return Text(f"{place}\n  {event['ev']}\n{facts}", style="dim")


def _spread(found: Spread) -> str:
    if not found.count:
        return f"never, {count(found.never, 'time')}" if found.never else "nothing took it"
    assert found.p50 is not None
    assert found.p99 is not None
    assert found.max is not None
    said = f"median {_ms(found.p50)}, 99 % within {_ms(found.p99)}, longest {_ms(found.max)}, {found.count:,} times"
    return said + (f"; never, {count(found.never, 'time')}" if found.never else "")


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:,.0f} ms" if nanoseconds < 10_000_000_000 else seconds(nanoseconds)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:20])) + (", …" if len(seeds) > 20 else "")


def show_trace(console: Console, recorder: TextRecorder, epoch: int) -> None:
    """Every line of evidence in the order of time, its time counted from the start of the workload."""
    rows: list[tuple[int, int, str, dict[str, Any]]] = []
    for path, lines in sorted(recorder.files.items()):
        name = path.split("/")[1]
        for number, line in enumerate(lines):
            said = msgspec.json.decode(line)
            rows.append((said.pop("t", None) or said.pop("time"), number, name, said))
    rows.sort(key=lambda row: row[0])
    for moment, _, name, said in rows:
        what = said.pop("ev", None) or said.pop("type")
        facts = " ".join(f"{key}={_short(value)}" for key, value in said.items() if value is not None)
        console.print(f"{(moment - epoch) / 1e9:12.6f}  {name:<4} {what:<9} {facts}", markup=False, soft_wrap=True)


def _short(value: Any) -> str:
    return msgspec.json.encode(value).decode()
