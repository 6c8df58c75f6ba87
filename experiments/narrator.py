"""What a person sees while a run plays: stages as they pass, a bar for the scenario's time, then the verdict."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from experiments.checking.check import Results

#: Verdicts are told apart by sign and word, not by colour alone.
SIGNS = {True: ("✔", "green"), False: ("✘", "red"), "unknown": ("?", "yellow")}

_DOING = {
    "build": "building the fabric",
    "settle": "settling",
    "run": "running",
    "stop": "stopping",
    "check": "checking",
    "report": "writing the report",
}


class Narrator:
    """Tells a terminal how a run goes; where there is none, it says nothing but that a promise was broken.

    ``virtual``: the scenario's time is not the machine's, and known only from what is told.
    """

    def __init__(self, console: Console, title: str, duration_ns: int, *, virtual: bool = False) -> None:
        self._virtual = virtual
        self._console = console
        self._live = console.is_terminal
        self._started = time.monotonic()
        self._running_since: float | None = None
        self._stage: tuple[str, float] | None = None
        self._duration = duration_ns / 1e9
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(36), TextColumn("{task.fields[clock]}")
        )
        self._task = self._bar.add_task(title, total=self._duration, clock="")
        self._display = Live(
            self._bar, console=console, refresh_per_second=8, transient=True, get_renderable=self._render
        )
        if self._live:
            console.print(Text(title, style="bold"))

    def __enter__(self) -> Narrator:
        if self._live:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._finish_stage()
            self._display.stop()

    def __call__(self, stage: str, detail: str) -> None:
        if stage == "violation":
            self._console.print(Text.assemble("  ", ("✘ ", "bold red"), detail), soft_wrap=True)
            return
        if not self._live:
            return
        if stage in ("fault", "heal"):
            moment, _, what = detail.partition("  ")
            self._line(moment.rjust(7), stage, what, "red" if stage == "fault" else "green")
            if self._virtual:
                done = float(moment.removesuffix(" s"))
                self._bar.update(self._task, completed=done, clock=f"{done:.0f} of {self._duration:.0f} virtual s")
            return
        self._finish_stage()
        self._stage = (stage, time.monotonic())
        self._bar.update(self._task, description=_DOING.get(stage, stage) + (f": {detail}" if detail else ""))
        self._running_since = time.monotonic() if stage == "run" else None

    def _render(self) -> Progress:
        if self._virtual and self._running_since is not None:
            return self._bar
        if self._running_since is not None:
            done = min(time.monotonic() - self._running_since, self._duration)
            self._bar.update(self._task, completed=done, clock=f"{done:.0f} of {self._duration:.0f} s")
        else:
            self._bar.update(self._task, clock=f"{time.monotonic() - self._started:.1f} s")
        return self._bar

    def _finish_stage(self) -> None:
        if self._stage is not None:
            stage, since = self._stage
            self._line(f"{time.monotonic() - since:5.1f} s", stage, "", "dim")
            self._stage = None

    def _line(self, clock: str, stage: str, detail: str, style: str) -> None:
        self._console.print(Text.assemble("  ", (clock, "dim"), "  ", (stage, style), "  ", detail))


def show_verdict(console: Console, results: Results, report: str | None) -> None:
    """The verdict, check by check, and where the report is."""
    sign, colour = SIGNS[results.valid]
    console.print(Text.assemble((f"{sign} ", f"bold {colour}"), (results.summary, "bold")))
    table = Table.grid(padding=(0, 2))
    for check in results.checks:
        sign, colour = SIGNS[check.valid]
        table.add_row(Text(f"  {sign}", style=colour), check.name, Text(check.summary, style="dim"))
    console.print(table)
    for reason in results.believable.reasons:
        console.print(Text.assemble(("  ! ", "yellow"), f"not to be believed: {reason}"))
    if results.evidence_sha256 is not None:
        console.print(f"  evidence  sha256 {results.evidence_sha256}", soft_wrap=True)
    if report is not None:
        console.print(f"  report  {report}", soft_wrap=True)
