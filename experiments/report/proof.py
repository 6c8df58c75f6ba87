"""What was asked of every fault and what was measured of it, side by side: times, matrices and tables for the page."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from experiments.checking.fault_record import FaultRecord, Step
from experiments.checking.results import Availability
from experiments.report import words
from experiments.report.fabric import caption
from topologies.impairment import Impairment, expected_delay
from topologies.plan import FabricPlan

#: How a fault is called in a heading.
NAMES = {
    "partition": "Partition",
    "link-down": "Link down",
    "flap": "Flapping link",
    "impair": "Impaired link",
    "kill": "Node killed",
    "reconfigure": "Members changed",
}

MISSING = "–"


class Cell(msgspec.Struct, frozen=True):
    """One pair of a matrix. ``asked``: whether packets must pass; None for a node itself, or where nothing was asked.
    ``text`` is what arrived of what was sent; ``wrong``: not what must be."""

    asked: bool | None
    text: str
    wrong: bool
    title: str


class Matrix(msgspec.Struct, frozen=True):
    """Rows receive, columns send."""

    caption: str
    names: list[str]
    rows: list[tuple[str, list[Cell]]]


class Table(msgspec.Struct, frozen=True):
    """Its first column names the rows."""

    caption: str
    head: list[str]
    rows: list[list[str]]


class Proof(msgspec.Struct, frozen=True):
    """One fault's evidence. ``proof``: it had its effect and was gone after it; None where that is not known."""

    number: int
    title: str
    summary: str
    proof: bool | None
    outcome: str
    matrices: list[Matrix]
    tables: list[Table]
    mismatches: list[str]


def prove(fault: FaultRecord, availability: Availability | None) -> Proof:
    """Everything there is to show of ``fault``, and what it cost."""
    matrices, mismatches = [], []
    for step, when in ((fault.proved, "while it lasted"), (fault.healed, "after the heal")):
        if step is None:
            continue
        if step.expected and step.measured:
            matrices.append(_matrix(step, when))
        mismatches += [f"{_mismatch(one)}, {when}" for one in step.mismatches]
    tables = [_times(fault), *_impairments(fault)]
    tables += [table for table in (_carrier(fault), _kill(fault), _cost(fault, availability)) if table is not None]
    return Proof(
        fault.index + 1,
        NAMES.get(fault.kind, fault.kind),
        caption(fault),
        fault.proof,
        _outcome(fault),
        matrices,
        tables,
        mismatches,
    )


def calibrations(measured: Mapping[str, Mapping[str, Any]], plan: FabricPlan | None) -> list[Table]:
    """What links impaired by the plan or by faults did before the workload began, beside what is asked of them."""
    planned = plan.impairments if plan else {}
    return [
        _impairment(name, found.get("asked") or msgspec.to_builtins(planned.get(name, Impairment())), found)
        for name, found in measured.items()
    ]


def _outcome(fault: FaultRecord) -> str:
    if fault.applied is None:
        return "never applied"
    if fault.proof:
        return "proved, and proved healed" if fault.healed is not None else "proved; no heal on record"
    if fault.proof is False:
        return "not what was asked"
    hidden = next((why for step in (fault.proved, fault.healed) if step for why in step.hidden.values()), "")
    return f"not measured: {hidden}" if hidden else "not measured"


def _times(fault: FaultRecord) -> Table:
    asked = fault.asked.asked if fault.asked else {}
    start = asked.get("at")
    end = start + asked["for"] if isinstance(start, int) and isinstance(asked.get("for"), int) else None
    rows = []
    for name, due, step in (
        ("applied", start, fault.applied),
        ("measured", None, fault.proved),
        ("healed and measured", end, fault.healed),
    ):
        happened = MISSING if step is None else words.moment(step.t)
        rows.append([name, "" if due is None else words.moment(due), happened])
    return Table("When", ["", "asked for", "done at"], rows)


def _matrix(step: Step, when: str) -> Matrix:
    expected, measured = step.expected, step.measured
    names = list(expected)
    rows = []
    for receiver in names:
        cells = []
        for sender in names:
            if sender == receiver:
                cells.append(Cell(None, "", False, ""))
                continue
            unjudged = (receiver, sender) in step.unjudged
            wanted = None if unjudged else expected[receiver].get(sender)
            sent, arrived = measured.get(receiver, {}).get(sender, (0, 0))
            wrong = wanted is not None and sent > 0 and (arrived > 0) != wanted
            must = {True: "must arrive", False: "must not arrive", None: "were hidden by other faults"}[wanted]
            title = f"{sender} to {receiver}: {arrived} of {sent} probes arrived; they {must}"
            cells.append(Cell(wanted, f"{arrived}/{sent}" if sent else MISSING, wrong, title))
        rows.append((receiver, cells))
    return Matrix(f"Probes that arrived, {when}", names, rows)


def _mismatch(one: Any) -> str:
    if not isinstance(one, dict) or "receiver" not in one:
        return str(one)
    hears = "hears" if one.get("arrived") else "does not hear"
    return f"{one['receiver']} {hears} {one.get('sender')} ({one.get('arrived')} of {one.get('sent')} probes)"


def _carrier(fault: FaultRecord) -> Table | None:
    during = fault.proved.carrier if fault.proved else {}
    after = fault.healed.carrier if fault.healed else {}
    if not during and not after:
        return None
    said = {True: "up", False: "down", None: MISSING}
    rows = [[name, "down", said[during.get(name)], said[after.get(name)]] for name in {**during, **after}]
    return Table("Carrier, as the switches see it", ["link", "asked", "measured", "after the heal"], rows)


def _impairments(fault: FaultRecord) -> list[Table]:
    obtained = fault.proved.obtained if fault.proved else {}
    return [
        _impairment(name, asked, obtained.get(name, {})) for name, asked in fault.resolved.get("directions", {}).items()
    ]


def _impairment(name: str, asked: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    """``asked`` an `Impairment`; ``found`` what marked probes met, and the counters of the impaired link itself."""
    wanted = _as_impairment(asked)
    counters = found.get("counters") or {}
    packets, dropped = counters.get("packets"), counters.get("dropped") or {}
    head = ["", "asked", "obtained"]
    sure = "loss_interval" in found
    if found.get("sent"):
        head[2] = f"by {words.plural(found['sent'], 'probe')}" + (", 95 % interval" if sure else "")
    if packets:
        head.append(f"by the traffic, {words.plural(packets, 'packet')}")

    lost = sum(dropped.values()) / packets if packets else None
    mean, deviation = expected_delay(wanted) if wanted else (None, None)
    rows = [
        ["mean delay", _span(mean), _mean_delay(found), _span(counters.get("delay_mean"))],
        ["standard deviation", _span(deviation), _sure(found, "jitter", _span), MISSING],
        ["99 % within", "", _span(found.get("delay_p99")), _span(counters.get("delay_p99"))],
        [
            "lost or damaged" if asked.get("corrupt") else "lost",
            _share(wanted.missing if wanted else asked.get("loss", 0.0)),
            _sure(found, "loss", _share),
            MISSING if asked.get("corrupt") else _share(lost),
        ],
    ]
    for key, counted in (("duplicate", "duplicated"), ("reorder", "reordered"), ("corrupt", "corrupted")):
        if asked.get(key):
            of = found.get("sent") or 0
            seen = _share(found[counted] / of) if of and counted in found else MISSING
            rows.append(
                [counted, _share(asked[key]), seen, _share(counters.get(counted, 0) / packets) if packets else MISSING]
            )
    if asked.get("rate"):
        rate = found.get("rate") or {}
        rows.append(
            [
                "rate",
                words.rate(asked["rate"]),
                _between(words.rate(rate["rate"]), rate.get("interval"), words.rate) if "rate" in rate else MISSING,
                MISSING,
            ]
        )
    by = f", by {found['backend']}" if "backend" in found else ""
    return Table(f"{name}{by}", head, [row[: len(head)] for row in rows])


def _as_impairment(asked: Mapping[str, Any]) -> Impairment | None:
    try:
        return msgspec.convert(asked, Impairment)
    except msgspec.ValidationError:  # recorded by a version that knew more, or less
        return None


def _mean_delay(found: Mapping[str, Any]) -> str:
    """``10.1 ms ± 50 µs``: its interval is symmetric, and far narrower than three figures of its ends could show."""
    value, interval = _span(found.get("delay_mean")), found.get("delay_mean_interval")
    return value if interval is None else f"{value} ±{words.THIN}{_span((interval[1] - interval[0]) / 2)}"


def _sure(found: Mapping[str, Any], key: str, write: Callable[[float | None], str]) -> str:
    return _between(write(found.get(key)), found.get(f"{key}_interval"), write)


def _between(value: str, interval: Sequence[float] | None, write: Callable[[float], str]) -> str:
    """A figure with its interval: ``20.1 ms (20 to 20.2 ms)``."""
    if interval is None:
        return value
    low, high = write(interval[0]), write(interval[1])
    number, _, unit = low.rpartition(words.THIN)
    return f"{value} ({number if high.endswith(words.THIN + unit) else low} to {high})"


def _span(nanoseconds: float | None) -> str:
    return MISSING if nanoseconds is None else words.span(nanoseconds)


def _share(value: float | None) -> str:
    return MISSING if value is None else words.share(value)


def _kill(fault: FaultRecord) -> Table | None:
    nodes = fault.resolved.get("nodes", ())
    if not nodes:
        return None
    exited = fault.proved.exited if fault.proved else {}
    restarted = fault.healed.restarted if fault.healed else {}
    rows = []
    for node in nodes:
        again = restarted.get(node, {})
        back = (
            f"as incarnation {again['incarnation']}, pid {again.get('pid', MISSING)}"
            if "incarnation" in again
            else MISSING
        )
        rows.append([node, "killed by SIGKILL", _status(exited.get(node)), back])
    return Table("Exit", ["node", "asked", "measured", "started again"], rows)


def _cost(fault: FaultRecord, availability: Availability | None) -> Table | None:
    if availability is None:
        return None
    name, never = str(fault.index), "not in this run"
    rows = [
        [what, never if took[name] is None else words.span(took[name] or 0)]
        for what, took in (
            ("to a new leader", availability.new_leader),
            ("to steady service", availability.interruption),
            ("from the heal to steady service", availability.recovery),
        )
        if name in took
    ]
    return Table("What it cost", ["", "time"], rows) if rows else None


def _status(status: int | None) -> str:
    if status is None:
        return MISSING
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
