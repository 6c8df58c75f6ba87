"""The run in a sentence and a handful of figures. Nothing is said that a check or a measurement does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from experiments.checking.availability import service
from experiments.checking.client_checks import served
from experiments.checking.fault_record import FaultRecord
from experiments.checking.history import Operation
from experiments.checking.results import Check, Detection, Leader, Results, Staleness, Valid
from experiments.report import words
from experiments.report.events import succession
from experiments.report.record import Record
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
    """What the run may claim. What was broken is broken on any machine; else one not to be believed claims nothing."""
    if results is None:
        return "unjudged"
    if results.valid is False:
        return "broken"
    if results.believable.valid is not True:
        return "doubtful"
    return "held" if results.valid is True else "unknown"


def headline(record: Record, faults: Sequence[FaultRecord], led: Sequence[Leader], end: int) -> Headline:
    found = state(record.results)
    told = f"{_subject(record)} {_ordeal(faults, led, end)}"
    results = record.results
    if results is None:
        return Headline(found, f"{told}. The run was not judged; what it had recorded is below.")
    if found == "doubtful":
        reason = results.believable.reasons[0] if results.believable.reasons else "no reason is on record"
        return Headline(found, f"{_sentence(reason)} What is below is no evidence about the system.")
    if found in ("broken", "unknown"):
        blamed = first_check(results, False if found == "broken" else "unknown")
        no = "not " if found == "broken" and blamed and blamed.name == "linearizable" else ""
        why = f"{no}{words.spelled(blamed.name)}: {blamed.summary}" if blamed else results.summary
        return Headline(found, f"{told}. {_sentence(why)}")
    parts = [part for part in (_succession(record, faults, led), _safety(results)) if part]
    return Headline(found, f"{told}; {' and '.join(parts)}." if parts else f"{told}.")


def first_check(results: Results, valid: Valid) -> Check | None:
    return next((check for check in results.checks if check.valid is valid or check.valid == valid), None)


def key_figures(
    record: Record, operations: Sequence[Operation], faults: Sequence[FaultRecord], led: Sequence[Leader], end: int
) -> list[KeyFigure]:
    """Operations, their outcomes and latency, the longest outage, the new leader, the recovery."""
    figures: list[KeyFigure] = []
    found = (record.results.availability if record.results else None) or served(service(operations))
    if found.operations:
        asked = record.manifest.scenario.get("workload", {}).get("rate")
        per_second = f"{words.figures(found.operations * words.SECOND / end)} a second"
        per_second += f", {asked:g} asked" if asked else ""
        figures.append(KeyFigure("operations", f"{found.operations:,}", per_second))
        counted = ((found.refused, "refused"), (found.failed, "failed"), (found.unknown, "unknown"))
        others = [f"{number:,} {what}" for number, what in counted if number]
        figures.append(KeyFigure("answered", words.share(found.share or 0.0), ", ".join(others) or "and all succeeded"))
    latency = sorted(one.complete - one.invoke for one in operations if one.type == "ok" and one.complete is not None)
    if latency:
        tail = f"99 % within {words.span(percentile(latency, 99))}"
        figures.append(KeyFigure("median latency", words.span(percentile(latency, 50)), tail))
    if found.longest_outage is not None:
        since = f"from {words.moment(found.outage_at)}" if found.outage_at is not None else ""
        figures.append(KeyFigure("longest outage", words.span(found.longest_outage), since))
    figures += _staleness(record.results.staleness if record.results else None)
    figures += _detection(record.results.detection if record.results else None)
    if (election := _election(record, faults, led)) is not None:
        took, leader = election
        who = f"{leader.node}, term {leader.term}" if leader else "none in this run"
        figures.append(KeyFigure("to a new leader", "never" if took is None else words.span(took), who))
    elif led:
        calm = "" if len(led) > 1 else ", throughout"
        figures.append(KeyFigure("leader", led[-1].node, f"term {led[-1].term}{calm}"))
    if found.recovery:
        never = [index for index, took in found.recovery.items() if took is None]
        worst = max((took or 0, index) for index, took in found.recovery.items())
        of = f" of fault {int(never[0] if never else worst[1]) + 1}" if len(found.recovery) > 1 else ""
        figures.append(KeyFigure("steady again", "never" if never else words.span(worst[0]), f"after the heal{of}"))
    return figures


def _staleness(found: Staleness | None) -> list[KeyFigure]:
    if found is None or not found.reads:
        return []
    note = (
        f"of {found.reads:,} reads" if found.oldest is None else f"missed writes up to {words.span(found.oldest)} old"
    )
    return [KeyFigure("stale reads", f"{found.stale:,}", note)]


def _detection(found: Detection | None) -> list[KeyFigure]:
    if found is None:
        return []
    figures: list[KeyFigure] = []
    for one in found.detected[:2]:
        first = "no other did" if one.first is None else f"the first after {words.span(one.first)}"
        figures.append(
            KeyFigure(f"to find {one.member} failed", "never" if one.last is None else words.span(one.last), first)
        )
    mistaken = "" if found.longest_mistake is None else f"for {words.span(found.longest_mistake)} at most"
    figures.append(KeyFigure("false positives", f"{found.false_positives:,}", mistaken))
    sent = "" if found.bytes_per_second is None else f"{words.figures(found.bytes_per_second / 1000)} kB a second"
    figures.append(KeyFigure("messages a member", f"{words.figures(found.messages_per_second)}/s", sent))
    return figures


def _subject(record: Record) -> str:
    system = record.manifest.scenario.get("system", {})
    kind, nodes = system.get("kind"), system.get("nodes")
    if not isinstance(nodes, int):
        return "The system"
    name = str(kind).capitalize() if kind else ""
    tenant = record.manifest.scenario.get("tenant")
    where = f" in tenant {tenant}" if tenant else ""
    return f"{words.count(nodes).capitalize()} {name} node{'' if nodes == 1 else 's'}{where}".replace("  ", " ")


def _ordeal(faults: Sequence[FaultRecord], led: Sequence[Leader], end: int) -> str:
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
    if fault.kind == "flap":
        return f"had {_links(fault.resolved.get('links', ()))} come and go{lasted}"
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
    if fault.kind == "reconfigure":
        return f"had {words.listed(fault.resolved.get('voters', ()), 5)} made their voters"
    return f"went through a fault of kind {fault.kind}{lasted}"


def _noun(fault: FaultRecord) -> str:
    resolved = fault.resolved
    if fault.kind == "partition":
        return "a partition"
    if fault.kind == "link-down":
        return f"the loss of {_links(resolved.get('links', ()))}"
    if fault.kind == "flap":
        return f"the flapping of {_links(resolved.get('links', ()))}"
    if fault.kind == "impair":
        return f"{words.impairment(next(iter(resolved.get('directions', {}).values()), {}))} on a link"
    if fault.kind == "kill":
        return f"the kill of {words.listed(resolved.get('nodes', ()))}"
    if fault.kind == "reconfigure":
        return "a change of their members"
    return f"a fault of kind {fault.kind}"


def _links(links: Sequence[str]) -> str:
    names = [words.unbroken(link) for link in links]
    return f"the link {names[0]}" if len(names) == 1 else f"the links {words.listed(names, 2)}"


def _election(
    record: Record, faults: Sequence[FaultRecord], led: Sequence[Leader]
) -> tuple[int | None, Leader | None] | None:
    """After the first fault that took the leader: how long until the next one led, and who. None: no fault did."""
    judged = record.results.availability if record.results else None
    for fault in faults:
        before, after = succession(led, fault)
        if judged is not None and str(fault.index) in judged.new_leader:
            return judged.new_leader[str(fault.index)], after
        if judged is None and before in fault.nodes_hit:
            return (after.start - _struck(fault) if after else None), after
    return None


def _succession(record: Record, faults: Sequence[FaultRecord], led: Sequence[Leader]) -> str:
    election = _election(record, faults, led)
    if election is not None:
        return "nobody led after that" if election[0] is None else f"a new one led {words.span(election[0])} later"
    if len(led) == 1:
        return f"{led[0].node} led throughout" if faults else ""
    for fault in faults:
        before, after = succession(led, fault)
        if before is not None and after is not None and after.node != before:
            return f"the lead went from {before} to {after.node}"
    return ""


def _safety(results: Results) -> str:
    held = {check.name for check in results.checks if check.valid is True}
    if results.staleness is not None:
        stale = results.staleness.stale
        read = f"{words.plural(stale, 'read')} missed an acknowledged write" if stale else "no read was stale"
        return f"{read}, and none was lost" if "acknowledged_writes" in held else read
    if results.detection is not None:
        wrong = results.detection.false_positives
        return (
            f"somebody who was there was taken for failed {words.plural(wrong, 'time')}"
            if wrong
            else ("nobody who was there was taken for failed")
        )
    return "no acknowledged write was lost" if "acknowledged_writes" in held else ""


def _struck(fault: FaultRecord) -> int:
    return fault.applied.t if fault.applied else 0


def _lasted(fault: FaultRecord) -> int:
    asked = fault.asked.asked.get("for") if fault.asked else None
    return asked if isinstance(asked, int) else (fault.healed_at or 0) - _struck(fault)


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
