"""What became of a run's faults, from its ``faults.jsonl``: what they did, whether they did it, and whom they hit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from experiments.checking.history import HistoryError

#: Faults of these kinds stop their nodes.
STOPPING = ("kill", "pause")


class Step(msgspec.Struct, frozen=True):
    """One line: something that was asked, applied, proved or healed, at ``t`` from the start of the workload.

    What a step proves depends on the fault's kind; ``effective`` is None where nothing was measured. Other faults may
    have kept pairs of a matrix from being judged (``unjudged``: receiver and sender), and directions of links from
    being measured (``hidden``: how).
    """

    fault: int
    kind: str
    step: Literal["asked", "applied", "proved", "healed"]
    t: int
    asked: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    effective: bool | None = None
    expected: dict[str, dict[str, bool]] = {}
    measured: dict[str, dict[str, tuple[int, int]]] = {}
    mismatches: list[Any] = []
    unjudged: list[tuple[str, str]] = []
    hidden: dict[str, str] = {}
    carrier: dict[str, bool] = {}
    obtained: dict[str, dict[str, Any]] = {}
    exited: dict[str, int | None] = {}
    restarted: dict[str, dict[str, Any]] = {}
    lifted: int | None = None


class FaultRecord(msgspec.Struct, frozen=True):
    """The steps of one fault; None for one that was not reached."""

    index: int
    kind: str
    asked: Step | None = None
    applied: Step | None = None
    proved: Step | None = None
    healed: Step | None = None

    @property
    def resolved(self) -> dict[str, Any]:
        return self.applied.resolved if self.applied else {}

    @property
    def struck_at(self) -> int | None:
        return self.applied.t if self.applied else None

    @property
    def healed_at(self) -> int | None:
        """When the fault was lifted; the step ``healed`` is written when that has been measured, some time after."""
        if self.healed is None:
            return None
        return self.healed.t if self.healed.lifted is None else self.healed.lifted

    @property
    def leader(self) -> str | None:
        """Who led when it struck."""
        return self.resolved.get("leader")

    @property
    def proof(self) -> bool | None:
        """Whether it had its effect and was gone after it: None where that was not measured."""
        seen = [step.effective for step in (self.proved, self.healed) if step is not None]
        if False in seen:
            return False
        return True if seen and seen[0] is True and self.proved is not None else None

    @property
    def refused(self) -> set[str]:
        """The nodes that it stopped, and that then refused to start."""
        restarted = self.healed.restarted if self.healed else {}
        return {node for node, came in restarted.items() if "refused" in came}

    @property
    def nodes_hit(self) -> set[str]:
        """The nodes that were stopped, or stand alone on their side of a partition."""
        if self.kind in STOPPING:
            return set(self.resolved.get("nodes", ()))
        return {group[0] for group in self.resolved.get("groups", ()) if len(group) == 1}

    def took_the_leader(self, nodes: Sequence[str]) -> bool:
        """Whether it stopped the leader, or left it without a majority of ``nodes`` that hear it and that it hears."""
        if self.leader is None or self.applied is None:
            return False
        if self.kind in STOPPING:
            return self.leader in self.resolved.get("nodes", ())
        if self.proved is None or not self.proved.expected:
            return False
        expected, leader = self.proved.expected, self.leader
        heard = [
            node
            for node in nodes
            if node == leader or (expected.get(leader, {}).get(node) and expected.get(node, {}).get(leader))
        ]
        return len(heard) <= len(nodes) // 2

    def problems(self) -> list[str]:
        """Why it is not certain that the fault did what was asked, and that its heal did."""
        name = f"fault {self.index + 1} ({self.kind})"
        if self.applied is None:
            return [f"{name} was asked for and never applied"]
        found: list[str] = []
        for step, verb, what in ((self.proved, "proved", "had no effect"), (self.healed, "healed", "did not end")):
            if step is None:
                found.append(f"{name} was not {verb}: the run ended before")
            elif step.effective is False or (step.effective is None and not step.hidden):
                found.append(f"{name} {what} as asked{_some(step.mismatches)}")
        return found

    def told(self) -> str:
        """What it did, as a person would say it: ``n3 was cut off``."""
        resolved = self.resolved
        match self.kind:
            case "partition":
                groups: list[list[str]] = [group for group in resolved.get("groups", []) if group]
                smallest = min(groups, key=len, default=[])
                if len(groups) == 2 and len(smallest) < max(map(len, groups)):
                    return f"{_listed(smallest)} {_were(smallest)} cut off"
                return f"{' | '.join(' '.join(group) for group in groups)} were parted"
            case "kill":
                return f"{_listed(resolved.get('nodes', []))} {_were(resolved.get('nodes', []))} killed"
            case "pause":
                return f"{_listed(resolved.get('nodes', []))} {_were(resolved.get('nodes', []))} stopped"
            case "mute":
                return f"{_listed(resolved.get('nodes', []))} {_were(resolved.get('nodes', []))} not heard by anyone"
            case "bit-flip":
                return f"a bit of the log of {_listed(resolved.get('nodes', []))} changed"
            case "drift":
                return f"the clocks of {_listed(resolved.get('nodes', []))} ran at another rate"
            case "skew":
                return f"the time of day of {_listed(resolved.get('nodes', []))} was wrong"
            case "link-down":
                return f"{_listed(resolved.get('links', []))} went down"
            case "flap":
                return f"{_listed(resolved.get('links', []))} went down and up again and again"
            case "impair":
                directions = list(resolved.get("directions", ()))
                return f"{_listed(directions)} {_were(directions)} impaired"
            case "reconfigure":
                return f"{_listed(resolved.get('voters', []))} were to be the voters"
            case "transfer":
                return f"{_listed(resolved.get('nodes', []))} was to lead"
        return f"{self.kind} struck"


def read_faults(path: Path) -> list[FaultRecord]:
    """All faults in ``path``, in their order; none if there is no such file. A last line cut off by a crash is left
    out. Raises `HistoryError`, which names the line.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    decode = msgspec.json.Decoder(Step).decode
    steps: list[Step] = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            steps.append(decode(line))
        except msgspec.DecodeError as error:
            raise HistoryError(f"{path}:{number}: not a step of a fault: {error}") from None
    return gather(steps)


def gather(steps: Iterable[Step]) -> list[FaultRecord]:
    """The faults that ``steps`` are of, in the faults' order."""
    records: dict[int, FaultRecord] = {}
    for step in steps:
        record = records.get(step.fault, FaultRecord(step.fault, step.kind))
        records[step.fault] = msgspec.structs.replace(record, **{step.step: step})
    return [records[index] for index in sorted(records)]


def _some(mismatches: Sequence[Any]) -> str:
    if not mismatches:
        return ""
    match mismatches[0]:
        case {"receiver": receiver, "sender": sender, "expected": bool(expected), "sent": sent, "arrived": arrived}:
            first = f"{receiver} should {'' if expected else 'not '}hear {sender}, and got {arrived} of {sent} probes"
        case other:
            first = str(other)
    more = f", and {len(mismatches) - 1} more" if len(mismatches) > 1 else ""
    return f": {first}{more}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names) or "nobody"


def _were(names: Sequence[str]) -> str:
    return "were" if len(names) > 1 else "was"
