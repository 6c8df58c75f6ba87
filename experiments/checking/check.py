"""The verdict on a run: every check put together, whether to believe it, and in one sentence what happened.

`judge` reads the folder of a run and nothing else, so it judges an old run as it does a new one; `check_path` does so
too, or judges a history of whatever origin. ``docs/run-folder.md`` has the shape of the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from experiments.checking.availability import service
from experiments.checking.binaries import binary_checks, echo_checks, read_findings
from experiments.checking.client_checks import client_checks, served, stale_checks
from experiments.checking.detection import detection_checks, measure, sent_bytes, silences
from experiments.checking.fault_record import FaultRecord, read_faults
from experiments.checking.fidelity import read_fidelity, unfaithful
from experiments.checking.history import History, HistoryError, merge_histories, operations, read_history
from experiments.checking.node_checks import trace_checks, who_led
from experiments.checking.rejections import estranged, message_checks, rejected_connections, rejected_messages
from experiments.checking.results import (
    SCHEMA,
    Availability,
    Believable,
    Check,
    Detection,
    Fidelity,
    Leader,
    Results,
    Staleness,
    Valid,
    exit_status,
    overall,
)
from experiments.checking.takeover import takeover_checks
from experiments.checking.timing import doubted, timed, timing_checks
from experiments.phrases import count, seconds, span
from experiments.scenario import (
    Echo,
    Expect,
    Failover,
    Heartbeat,
    NoWorkload,
    Phi,
    Raft,
    Register,
    Swim,
    System,
    Workload,
)

__all__ = ["Results", "check_path", "judge", "judge_history"]

#: How long the search for an order may take, in seconds; then the answer is "unknown".
PATIENCE = 10.0

#: How many faults the summary tells of.
MOST_FAULTS_TOLD = 2


class _Scenario(msgspec.Struct, frozen=True):
    system: System = Raft()
    workload: Workload = Register()
    faults: list[dict[str, Any]] = []
    expect: Expect = Expect()


class _Death(msgspec.Struct, frozen=True):
    node: str
    t: int
    said: str


class _Manifest(msgspec.Struct, frozen=True):
    """The part of ``manifest.json`` that a verdict depends on."""

    epoch: int = 0
    placement: dict[str, str] = {}
    scenario: _Scenario = _Scenario()
    fidelity: dict[str, float] = {}
    calibration: dict[str, dict[str, Any]] = {}
    deaths: list[_Death] = []
    evidence_sha256: str | None = None


def check_path(path: Path, ignore_torn_tail: bool = False) -> Results:
    """Judge the history in ``path``, or the run whose folder it is. Raises as `judge` does."""
    return judge(path) if path.is_dir() else judge_history(read_history(path, ignore_torn_tail))


def judge_history(history: History, patience: float = PATIENCE) -> Results:
    """Judge what clients saw, knowing nothing of the system. ``patience``: seconds for the search for an order."""
    done = operations(history)
    if not done:
        raise HistoryError(f"{history.path}: no operation of a client in it")
    checks = client_checks(history.path, done, patience, True)
    availability = served(service(done)) if history.timed else None
    return _results(checks, [], availability=availability)


def judge(run: Path, patience: float = PATIENCE) -> Results:
    """Judge the run in the folder ``run``.

    Raises `HistoryError` for a record that cannot be read, and `OSError` for one that is not there.
    """
    manifest = _read_manifest(run / "manifest.json")
    expect, system = manifest.scenario.expect, manifest.scenario.system
    idle = isinstance(manifest.scenario.workload, NoWorkload)
    if not (run / "history.jsonl").exists():
        merge_histories(run)
    path = run / "history.jsonl"
    done = [] if idle else operations(read_history(path))
    faults = read_faults(run / "faults.jsonl")
    traced, kept = trace_checks(run, system)
    nodes = sorted({witness.node for witness in traced})
    leaders = who_led(traced, faults, manifest.epoch)
    rejections = [*rejected_connections(run), *rejected_messages(traced)]
    fidelity = read_fidelity(run, manifest.epoch, manifest.fidelity, manifest.calibration)

    availability = timed(served(service(done)), done, faults, leaders, nodes)
    reasons = [
        *([] if done or idle else ["no client did anything"]),
        *_never_came(manifest.scenario.faults, faults),
        *(problem for fault in faults for problem in fault.problems()),
        *unfaithful(fidelity, system.timeouts, system.elects),
        *estranged(rejections, nodes),
    ]
    timing = timing_checks(expect, availability, leaders, faults, done)
    if reasons:
        timing = [doubted(found) for found in timing]
    staleness: Staleness | None = None
    clients: list[Check] = []
    if isinstance(manifest.scenario.workload, Echo):
        clients = echo_checks(done)
    elif expect.linearizable and not idle:
        clients = client_checks(str(path), done, patience, promised=True)
    elif not idle:
        kinds = [fault["kind"] for fault in manifest.scenario.faults]
        staleness, clients = stale_checks(str(path), done, patience, expect, system, kinds)
    detection: Detection | None = None
    if isinstance(system, Swim | Heartbeat | Phi):
        silent = silences(faults, nodes, manifest.placement, expect.detection or 0)
        detection = measure(traced, silent, nodes, manifest.epoch, system.memory, sent_bytes(run))
        clients = detection_checks(detection, expect, faults)
    if isinstance(system, Failover):
        clients = takeover_checks(traced, system.config.shards, manifest.epoch, expect, faults)
    checks = [
        *clients,
        *kept,
        *binary_checks(read_findings(run)),
        *message_checks(rejections),
        *_stayed_up(manifest.deaths),
        *timing,
    ]
    told = [_tell(fault, availability) for fault in faults if fault.applied]
    results = _results(checks, reasons, told, None if idle else availability, leaders, fidelity)
    return msgspec.structs.replace(
        results,
        staleness=staleness,
        detection=detection,
        evidence_sha256=manifest.evidence_sha256,
        rejections=rejections,
    )


def _read_manifest(path: Path) -> _Manifest:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except msgspec.DecodeError as error:
        raise HistoryError(f"{path}: not the manifest of a run: {error}") from None


def _stayed_up(deaths: Sequence[_Death]) -> list[Check]:
    """Nothing to say where every node did: only what breaks by itself is worth a line."""
    if not deaths:
        return []
    first = deaths[0]
    more = f", and {count(len(deaths) - 1, 'more node')} later" if deaths[1:] else ""
    summary = f"{first.node} ended by itself at {seconds(first.t)}: {first.said}{more}"
    return [Check("nodes_stayed_up", False, summary, {"deaths": msgspec.to_builtins(deaths)})]


def _never_came(wanted: Sequence[Any], faults: Sequence[FaultRecord]) -> list[str]:
    came = {fault.index for fault in faults}
    return [f"fault {index + 1} of the scenario never came" for index in range(len(wanted)) if index not in came]


# ---------------------------------------------------------------------------------------------------------------------
# In one sentence


def _results(
    checks: list[Check],
    reasons: list[str],
    told: Sequence[str] = (),
    availability: Availability | None = None,
    leaders: Sequence[Leader] = (),
    fidelity: Fidelity | None = None,
) -> Results:
    valid = overall(checks)
    if valid is True and reasons:
        valid = "unknown"
    return Results(
        SCHEMA,
        valid,
        exit_status(valid),
        _summary(checks, valid, reasons, told),
        checks,
        Believable(not reasons, reasons),
        availability,
        list(leaders),
        fidelity or Fidelity(),
    )


def _summary(checks: Sequence[Check], valid: Valid, reasons: Sequence[str], told: Sequence[str]) -> str:
    """The verdict, then what happened."""
    worst = next((found for found in checks if found.valid == valid), checks[0])
    if valid is False:
        verdict = f"{_BROKEN.get(worst.name, f'{worst.name} was broken')}: {worst.summary}"
    elif reasons:
        verdict = f"Not to be believed: {reasons[0]}"
    elif valid == "unknown":
        verdict = f"Unknown: {worst.name}: {worst.summary}"
    elif checks[0].name == "linearizable":
        verdict = f"Linearizable: {checks[0].summary.partition(', checked')[0]}"
    else:
        verdict = f"Held: {checks[0].summary}"
    events = list(told[:MOST_FAULTS_TOLD])
    if len(told) > MOST_FAULTS_TOLD:
        events.append(f"{count(len(told) - MOST_FAULTS_TOLD, 'more fault')} followed")
    if any(found.name == "acknowledged_writes" and found.valid is True for found in checks):
        events.append("no acknowledged write was lost" if events else "No acknowledged write was lost")
    return f"{verdict}. {'; '.join(events)}." if events else f"{verdict}."


_BROKEN = {
    "linearizable": "Not linearizable",
    "acknowledged_writes": "Acknowledged writes were lost",
    "nodes_stayed_up": "A node broke",
    "sound_messages": "A node said what no correct one can",
    "maelstrom_protocol": "A binary broke Maelstrom's protocol",
    "recovery": "Recovery took too long",
    "election": "No new leader in time",
    "availability": "Too few operations were served",
    "leader_changes": "The leader changed too often",
    "stale_reads": "Reads were stale",
    "detection": "A failure was not found in time",
    "reinstatement": "Who was back was not taken back in time",
    "OneOwner": "Two nodes served the same shard",
    "takeover": "Work was not taken over in time",
    "false_positives": "Too many were taken for failed who were not",
}


def _tell(fault: FaultRecord, availability: Availability) -> str:
    """``n3 was cut off at 6.0 s; a new leader led after 0.31 s``."""
    said = f"{fault.told()} at {seconds(fault.struck_at or 0)}"
    name = str(fault.index)
    if name in availability.new_leader:
        took = availability.new_leader[name]
        said += "; nobody led after that" if took is None else f"; a new leader led after {span(took)}"
    return said
