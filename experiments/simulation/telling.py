"""What a person sees of a simulation: progress, the failing seeds with what contradicts what, and the rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from experiments.checking.live import side_by_side
from experiments.narrator import SIGNS
from experiments.phrases import count, seconds
from experiments.scenario import Register, Scenario
from experiments.simulation.campaign import DetectionRates, Spread, Summary, TakeoverRates
from experiments.simulation.seed import Outcome, Replay

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
    rows = [
        *(_of_clients(scenario, summary, simulated) if summary.operations else ()),
        *(_of_leaders(summary)),
        *(_of_replicas(summary)),
        *(_of_detectors(summary.detection) if summary.detection else ()),
        *(_of_shards(summary.takeover) if summary.takeover else ()),
        ("simulated", f"{pace.events:,} events in {pace.seconds:.1f} s: {pace.events / pace.seconds:,.0f} a second, "
                      f"{pace.seeds * 60 / pace.seconds:,.0f} seeds a minute"),
    ]  # fmt: skip
    for label, value in rows:
        table.add_row(f"  {label}", Text(value, style="dim"))
    console.print(table)


#: A line of the table, its label and what it says.
_Row: TypeAlias = tuple[str, str]


def _of_clients(scenario: Scenario, summary: Summary, simulated: float) -> list[_Row]:
    registers = isinstance(scenario.workload, Register)
    swaps = isinstance(scenario.workload, Register) and "cas" in scenario.workload.mix
    refused = [("compare-and-sets refused", f"{summary.refused:,}")] if swaps else []
    lost = [("seeds that lost acknowledged writes", f"{summary.lost_writes:,}")] if registers else []
    return [
        ("operations", f"{summary.operations:,}, {(summary.operations or 0) / simulated:,.1f} a second"),
        ("served", f"{summary.share:.3%}, {summary.least_share:.3%} in the worst seed"),
        *refused,
        ("failed, unknown", f"{summary.unserved:,}, {summary.in_doubt:,}"),
        *lost,
        *_times("time to recover after a heal", summary.recovery),
        *_times("longest outage", summary.longest_outage),
    ]


def _of_leaders(summary: Summary) -> list[_Row]:
    if summary.elections_per_seed is None:
        return []
    return [
        ("elections a seed", f"{summary.elections_per_seed:.2f}"),
        *_times("time to a new leader", summary.new_leader),
    ]


def _of_replicas(summary: Summary) -> list[_Row]:
    rows: list[_Row] = []
    if summary.reads is not None:
        rows += [
            ("stale reads", f"{summary.stale_reads:,} of {summary.reads:,}"),
            ("reads that found siblings", f"{summary.siblings:,}"),
            *_times("a seed's oldest", summary.oldest_read),
        ]
    if (found := summary.replication) is not None:
        rows += [
            ("refused reads, writes", f"{found.refused_reads:,}, {found.refused_writes:,}"),
            ("read repairs", f"{found.repairs:,}"),
            ("hints kept, handed over", f"{found.hinted:,}, {found.handed_over:,}"),
            ("keys that differ at the end", f"{found.differing:,} of {found.keys:,}"),
        ]
    return rows


def _of_detectors(found: DetectionRates) -> list[_Row]:
    mistaken = f"{found.false_positives:,}"
    if found.false_positives:
        mistaken += f", in {count(found.mistaken_seeds, 'seed')}; {found.unresolved:,} of them to the end"
    return [
        *_times("time until the first found a failure", found.first),
        *_times("time until all found it", found.last),
        *_times("time until all took it back", found.back),
        ("false positives", mistaken),
        *_times("a seed's longest mistake", found.longest_mistake),
        *_times("still taken for failed at the end", found.unsettled),
        ("messages a member sent", f"{found.messages_per_second:,.1f} a second; "
                                   f"{found.most_messages_per_second:,.1f} the busiest"),
    ]  # fmt: skip


def _of_shards(found: TakeoverRates) -> list[_Row]:
    return [
        ("shards' time that was served", f"{found.share:.3%}, {found.least_share:.3%} in the worst seed"),
        *_times("time a shard was served by nobody", found.unserved),
        *_times("a seed's longest", found.longest),
        ("shards that went to another, a seed", f"{found.moves_per_seed:.1f}"),
        *_times("time to reintegrate who came back", found.reintegration),
    ]


def _times(label: str, found: Spread | None) -> list[_Row]:
    """No line for what there was no occasion for."""
    return [(label, _spread(found))] if found is not None and (found.count or found.never) else []


def _show_failure(console: Console, outcome: Outcome) -> None:
    sign, colour = SIGNS[outcome.valid]
    console.print(
        Text.assemble((f"  {sign} seed {outcome.seed}  ", colour), "; ".join(outcome.broken or outcome.doubts))
    )
    if outcome.evidence_sha256 is not None:
        console.print(Text(f"      evidence sha256 {outcome.evidence_sha256}", style="dim"), soft_wrap=True)
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
        return f"never, {count(found.never, 'time')}"
    assert found.p50 is not None
    assert found.p99 is not None
    assert found.max is not None
    said = f"median {_ms(found.p50)}, 99 % within {_ms(found.p99)}, longest {_ms(found.max)}, {found.count:,} times"
    return said + (f"; never, {count(found.never, 'time')}" if found.never else "")


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:,.0f} ms" if nanoseconds < 10_000_000_000 else seconds(nanoseconds)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:20])) + (", …" if len(seeds) > 20 else "")


class Row(NamedTuple):
    """A line of a replay's trace: ``moment`` in nanoseconds of the scenario's time."""

    moment: int
    who: str
    what: str
    facts: dict[str, Any]


def evidence_rows(found: Replay) -> list[Row]:
    """Every line of evidence, every step of a fault and every violation, in the order of time."""
    epoch = found.played.epoch
    rows: list[Row] = []
    for path, lines in sorted(found.text.files.items()):
        name = path.split("/")[1]
        for line in lines:
            said = msgspec.json.decode(line)
            moment = said.pop("t", None) or said.pop("time")
            rows.append(Row(moment - epoch, name, said.pop("ev", None) or said.pop("type"), said))
    for step in found.played.steps:
        facts = {key: value for key, value in step.items() if key not in ("t", "step", "fault")}
        rows.append(Row(step["t"], f"fault {step['fault']}", step["step"], facts))
    for violation in found.seen.violations:
        moment = max(witness.t for witness in violation.events) - epoch
        rows.append(Row(moment, "check", violation.property, {"message": violation.message}))
    return sorted(rows, key=lambda row: row.moment)


#: What a step of a fault says in a line: what it hit, and whether it did; the rest is in the JSON.
_TOLD_OF_FAULTS = ("kind", "asked", "resolved", "effective", "mismatches", "exited", "restarted")


def show_trace(console: Console, found: Replay) -> None:
    """`evidence_rows`, a line each."""
    for row in evidence_rows(found):
        is_fault = row.who.startswith("fault ")
        facts = " ".join(
            f"{key}={_short(value)}"
            for key, value in row.facts.items()
            if value not in (None, []) and (not is_fault or key in _TOLD_OF_FAULTS)
        )
        sign = f"{SIGNS[False][0]} " if row.who == "check" else ""
        line = f"{row.moment / 1e9:12.6f}  {row.who:<7} {sign}{row.what:<9} {facts}"
        console.print(line, markup=False, soft_wrap=True)


def show_standing(console: Console, nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Where each of ``nodes`` stood (`simulation.standing`), a line each."""
    for node, one in nodes.items():
        facts = "  ".join(
            f"{name} {_cell(value)}" for name, value in one.items() if name != "state" and value is not None
        )
        console.print(f"{node:<4} {one['state']:<7}  {facts}", markup=False, soft_wrap=True)


def _cell(value: Any) -> str:
    return (",".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def show_replay(console: Console, found: Replay) -> None:
    """The verdict on a replay, why, and the events that contradict each other side by side."""
    outcome = found.outcome
    sign, colour = SIGNS[outcome.valid]
    word = {True: "valid", False: "failed", "unknown": "unknown"}[outcome.valid]
    console.print(Text.assemble((f"{sign} ", f"bold {colour}"), (f"seed {outcome.seed}: {word}", "bold")))
    for why in (*outcome.broken, *outcome.doubts):
        console.print(Text(f"  {why}"), soft_wrap=True)
    for violation in found.seen.violations[:1]:
        console.print(Text(f"  {side_by_side(violation, found.played.epoch)}"), soft_wrap=True)


def _short(value: Any) -> str:
    return msgspec.json.encode(value).decode()
