"""What a system promises, checked while it runs: a violation is told in the moment it can be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.checking.node_checks import properties_of
from experiments.checking.quorum_properties import QuorumProperties
from experiments.checking.raft_properties import Violation
from experiments.checking.trace import TraceError, Witness
from experiments.scenario import System

_COLUMN = 52


class LiveCheck:
    """Is fed the nodes' events as they come, any of them after those that led to it.

    ``violations`` of what ``system`` promises of every execution, in the order in which they were found, each also
    given to ``tell``; ``broken_off``: why a trace could not be understood, if so.
    """

    def __init__(self, system: System, tell: Callable[[Violation], None] = lambda violation: None) -> None:
        self.properties = properties_of(system)
        self.violations: list[Violation] = []
        self.broken_off = ""
        self._tell = tell

    def feed(self, witness: Witness) -> None:
        if self.properties is not None and not self.broken_off:
            try:
                self._found(self.properties.feed(witness))
            except TraceError as error:
                self.broken_off = str(error)

    def finish(self) -> None:
        """The run is over: what is wrong with how it ended?"""
        if isinstance(self.properties, QuorumProperties) and not self.broken_off:
            self._found(self.properties.finish())

    def _found(self, violations: list[Violation]) -> None:
        self.violations += violations
        for violation in violations:
            self._tell(violation)


def side_by_side(violation: Violation, epoch: int) -> str:
    """The violation in words, and below it the events that contradict each other, a column each.

    Their times are in seconds from ``epoch``.
    """
    columns = [_column(event, epoch) for event in violation.as_data()["events"]]
    height = max(map(len, columns), default=0)
    rows = zip(*(column + [""] * (height - len(column)) for column in columns), strict=True)
    lines = ("   ".join(cell.ljust(_COLUMN) for cell in row).rstrip() for row in rows)
    return "\n".join([f"{violation.property}: {violation.message}", *(f"      {line}" for line in lines)])


def _column(event: dict[str, Any], epoch: int) -> list[str]:
    place = f"{event['node']}, {(event['t'] - epoch) / 1e9:.6f} s, line {event['line']} of trace {event['incarnation']}"
    rest = {key: value for key, value in event.items() if key not in ("node", "incarnation", "line", "t", "ev")}
    facts = [f"  {key} {value}" for key, value in rest.items()]
    return [line if len(line) <= _COLUMN else line[: _COLUMN - 1] + "…" for line in (place, event["ev"], *facts)]
