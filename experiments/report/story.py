"""The run in a sentence and a handful of figures. Nothing is said that a check or a measurement does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from experiments.report import words
from experiments.report.events import Fault, Operation, succession
from experiments.report.record import Check, Leader, Record, Results, Valid
from experiments.report.series import percentile

State = Literal["held", "broken", "unknown", "doubtful", "unjudged"]

WORDS: dict[State, str] = {
    "held": "Held.",
    "broken": "Broken.",
    "unknown": "Unknown.",
    "doubtful": "Not to be believed.",
    "unjudged": "No verdict.",
}


class Headline(msgspec.Struct, frozen=True):
    state: State
    sentence: str

    @property
    def word(self) -> str:
        return WORDS[self.state]


class KeyFigure(msgspec.Struct, frozen=True):
    label: str
    value: str
    note: str


def state(results: Results | None) -> State:
    """What the run may claim. A run that is not to be believed claims nothing, unless the verdict says by its exit
    status that what broke is broken all the same: no slow machine makes two leaders of one term."""
    if results is None:
        return "unjudged"
    if results.believable.valid is not True and results.exit_status != 1:
        return "doubtful"
    if results.valid is False:
        return "broken"
    return "held" if results.valid is True else "unknown"


def headline(record: Record, faults: Sequence[Fault], led: Sequence[Leader], end: int) -> Headline:
    found = state(record.results)
    told = f"{_subject(record)} {_ordeal(faults, led, end)}"
    results = record.results
    if results is None:
        return Headline(found, f"{told}. The run ended before it was judged: what it had recorded is below.")
    if found == "doubtful":
        reason = results.believable.reasons[0] if results.believable.reasons else "no reason is on record"
        return Headline(found, f"{_sentence(reason)} What is below is no evidence about the system.")
    if found in ("broken", "unknown"):
        blamed = first_check(results, False if found == "broken" else "unknown")
        why = f"{blamed.name}: {blamed.summary}" if blamed else results.summary
        return Headline(found, f"{told}. {_sentence(why)}")
    parts = [part for part in (_succession(faults, led), _safety(results)) if part]
    return Headline(found, f"{told}; {' and '.join(parts)}." if parts else f"{told}.")


def first_check(results: Results, valid: Valid) -> Check | None:
    return next((check for check in results.checks if check.valid is valid or check.valid == valid), None)


def key_figures(
    record: Record, operations: Sequence[Operation], faults: Sequence[Fault], led: Sequence[Leader], end: int
) -> list[KeyFigure]:
    """Operations, their outcomes and latency, the longest outage, the new leader, the recovery."""
    figures: list[KeyFigure] = []
    found = record.results.availability if record.results else None
    ok = found.ok if found else sum(one.type == "ok" for one in operations)
    total = found.operations if found else len(operations)
    failed = found.failed if found else sum(one.type == "fail" for one in operations)
    unknown = found.unknown if found else sum(one.type == "info" for one in operations)
    if total:
        asked = record.manifest.scenario.get("workload", {}).get("rate")
        per_second = f"{words.figures(total * words.SECOND / end)} a second" + (f", {asked:g} asked" if asked else "")
        figures.append(KeyFigure("operations", f"{total:,}", per_second))
        proportion = found.share if found and found.share is not None else ok / total
        figures.append(KeyFigure("succeeded", words.share(proportion), f"{failed:,} failed, {unknown:,} unknown"))
    latency = sorted(one.complete - one.invoke for one in operations if one.type == "ok" and one.complete is not None)
    if latency:
        tail = f"99 % within {words.span(percentile(latency, 99))}"
        figures.append(KeyFigure("median latency", words.span(percentile(latency, 50)), tail))
    if found and found.longest_outage is not None:
        since = f"from {words.moment(found.outage_at)}" if found.outage_at is not None else ""
        figures.append(KeyFigure("longest outage", words.span(found.longest_outage), since))
    if (change := _change(faults, led)) is not None:
        fault, leader = change
        figures.append(
            KeyFigure(
                "to a new leader", words.span(leader.start - _struck(fault)), f"{leader.node}, term {leader.term}"
            )
        )
    elif led:
        figures.append(
            KeyFigure("leader", led[-1].node, f"term {led[-1].term}" + ("" if len(led) > 1 else ", throughout"))
        )
    healed = {str(fault.index): fault for fault in faults if fault.healed}
    recovered = {index: took for index, took in (found.recovery if found else {}).items() if index in healed}
    if recovered:
        never = [index for index, took in recovered.items() if took is None]
        worst = max(recovered, key=lambda index: recovered[index] or 0)
        many = f", the slowest of {len(recovered)}" if len(recovered) > 1 else ""
        figures.append(
            KeyFigure("recovery", "none", f"after the heal of fault {int(never[0]) + 1}")
            if never
            else KeyFigure("recovery", words.span(recovered[worst] or 0), f"after the heal{many}")
        )
    return figures


def _subject(record: Record) -> str:
    system = record.manifest.scenario.get("system", {})
    kind, nodes = system.get("kind"), system.get("nodes")
    if not isinstance(nodes, int):
        return "The system"
    name = str(kind).capitalize() if kind else ""
    return f"{words.count(nodes).capitalize()} {name} node{'' if nodes == 1 else 's'}".replace("  ", " ")


def _ordeal(faults: Sequence[Fault], led: Sequence[Leader], end: int) -> str:
    applied = [fault for fault in faults if fault.applied is not None]
    if not applied:
        return f"ran for {words.span(end)} and nothing was broken"
    if len(applied) > 1:
        return f"went through {words.listed([_noun(fault) for fault in applied], 4)}"
    fault = applied[0]
    lasted = f" for {words.span(round(_lasted(fault), -7))}" if fault.healed else ""
    before, _ = succession(led, fault)
    if fault.kind == "partition":
        groups = fault.resolved.get("groups", ())
        if before is not None and [before] in groups:
            return f"lost their leader to a partition{lasted}"
        sides = " from ".join(words.listed(group) for group in groups)
        return f"were split, {sides},{lasted}" if lasted else f"were split, {sides}"
    if fault.kind == "link-down":
        links = fault.resolved.get("links", ())
        return f"lost {_links(links)}{lasted}"
    if fault.kind == "impair":
        directions = fault.resolved.get("directions", {})
        suffered = words.impairment(next(iter(directions.values()), {}))
        return f"ran{lasted} with {suffered} on {words.listed(directions, 2)}"
    if fault.kind == "kill":
        nodes = fault.resolved.get("nodes", ())
        who = "their leader" if before is not None and list(nodes) == [before] else words.listed(nodes)
        return f"had {who} killed" + (
            f" and started again after {words.span(round(_lasted(fault), -7))}" if fault.healed else ""
        )
    return f"went through a fault of kind {fault.kind}{lasted}"


def _noun(fault: Fault) -> str:
    resolved = fault.resolved
    if fault.kind == "partition":
        return "a partition"
    if fault.kind == "link-down":
        return f"the loss of {_links(resolved.get('links', ()))}"
    if fault.kind == "impair":
        return f"{words.impairment(next(iter(resolved.get('directions', {}).values()), {}))} on a link"
    if fault.kind == "kill":
        return f"the kill of {words.listed(resolved.get('nodes', ()))}"
    return f"a fault of kind {fault.kind}"


def _links(links: Sequence[str]) -> str:
    names = [words.unbroken(link) for link in links]
    return f"the link {names[0]}" if len(names) == 1 else f"the links {words.listed(names, 2)}"


def _change(faults: Sequence[Fault], led: Sequence[Leader]) -> tuple[Fault, Leader] | None:
    """The first fault after which another node led, and that node."""
    for fault in faults:
        before, after = succession(led, fault)
        until = fault.healed.t if fault.healed else None
        if before is not None and after is not None and after.node != before and (until is None or after.start < until):
            return fault, after
    return None


def _succession(faults: Sequence[Fault], led: Sequence[Leader]) -> str:
    change = _change(faults, led)
    if change is None:
        return f"{led[-1].node} led throughout" if len(led) == 1 and faults else ""
    fault, leader = change
    took = words.span(leader.start - _struck(fault))
    return (
        f"a new one led {took} later" if _lost_leader(fault, led) else f"{leader.node} took over the lead after {took}"
    )


def _lost_leader(fault: Fault, led: Sequence[Leader]) -> bool:
    before, _ = succession(led, fault)
    return before is not None and before in fault.nodes_hit


def _safety(results: Results) -> str:
    held = [check.name.lower() for check in results.checks if check.valid is True]
    if any("acknowledged" in name or "lost" in name for name in held):
        return "no acknowledged write was lost"
    if any("linearizab" in name for name in held):
        return "one order explains every answer"
    return ""


def _struck(fault: Fault) -> int:
    return fault.applied.t if fault.applied else 0


def _lasted(fault: Fault) -> int:
    asked = fault.asked.asked.get("for") if fault.asked else None
    return asked if isinstance(asked, int) else (fault.healed.t if fault.healed else 0) - _struck(fault)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
