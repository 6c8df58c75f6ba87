"""Whether binaries kept to Maelstrom's protocol, from what their bridges left (`apps.maelstrom.bridge`), and the
checks of those of its workloads that are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from apps.maelstrom.bridge import Gone, Rejected
from experiments.checking.history import HistoryError, Operation
from experiments.checking.results import Check
from experiments.phrases import count

#: Findings told of one by one.
MOST_TOLD = 3


class Finding(msgspec.Struct, frozen=True):
    """What a binary did that it must not; ``t`` is the world's clock."""

    node: str
    t: int
    event: Rejected | Gone

    def told(self) -> str:
        match self.event:
            case Gone(why=why):
                return f"{self.node}'s binary is gone: {why}"
            case Rejected(line=line, said=said, count=many):
                more = f" (at least {count(many, 'line')} like that)" if many > 1 else ""
                return f"{self.node}'s binary, line {line}: {said}{more}"


class _Line(msgspec.Struct, frozen=True):
    t: int
    ev: str


def read_findings(run: Path) -> list[Finding]:
    """The findings in the traces of a run, in the order of time. Raises `HistoryError` for a line that is none."""
    findings: list[Finding] = []
    for path in sorted(run.glob("nodes/*/trace/*.ndjson")):
        if not path.stem.isdigit():
            continue
        data = path.read_bytes()
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            if b'"ev":"rejected"' not in line and b'"ev":"gone"' not in line:
                continue
            try:
                t = msgspec.json.decode(line, type=_Line).t
                event = msgspec.json.decode(line, type=Rejected | Gone)
            except msgspec.DecodeError as error:
                raise HistoryError(f"{path}:{number}: not a line of a bridge's trace: {error}") from None
            findings.append(Finding(path.parent.parent.name, t, event))
    return sorted(findings, key=lambda finding: finding.t)


def binary_checks(findings: Sequence[Finding]) -> list[Check]:
    """Nothing to say where there was nothing to reject."""
    if not findings:
        return []
    # Of lines of one kind, the first tells what it was, and the last how many there were.
    first: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        event = finding.event
        key = (finding.node, event.code if isinstance(event, Rejected) else "gone")
        if key not in first:
            first[key] = finding
        elif isinstance(event, Rejected):
            begun = first[key]
            assert isinstance(begun.event, Rejected)
            latest = msgspec.structs.replace(begun.event, count=max(event.count, begun.event.count))
            first[key] = msgspec.structs.replace(begun, event=latest)
    told = [finding.told() for finding in first.values()]
    more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    details: dict[str, Any] = {"findings": [msgspec.to_builtins(finding) for finding in first.values()]}
    return [Check("maelstrom_protocol", False, "; ".join(told[:MOST_TOLD]) + more, details)]


def echo_checks(done: Sequence[Operation]) -> list[Check]:
    """Whether every echo that came back was what had been called; unknown where none did."""
    came = [one for one in done if one.type == "ok"]
    if not came:
        summary = f"no operation succeeded, of {len(done):,}: there is nothing to judge by"
        return [Check("echoes", "unknown", summary)]
    wrong = [one for one in came if one.result != one.value]
    if not wrong:
        return [Check("echoes", True, f"{count(len(came), 'echo', 'echoes')} came back as called")]
    first = wrong[0]
    more = f", and {len(wrong) - 1:,} more" if wrong[1:] else ""
    summary = f"process {first.process} called {first.value!r} and heard {first.result!r}{more}"
    return [Check("echoes", False, summary, {"wrong": [[one.value, one.result] for one in wrong[:MOST_TOLD]]})]
