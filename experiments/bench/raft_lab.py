"""The fabric that replicated systems are measured on, one after another: ours and its peers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from apps.workload import FloodSummary
from experiments.bench import BenchError
from experiments.emulation.inside import Inside
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.sandbox import Sandbox

PLAN = LeafSpine(2, 3, 2)
#: A node in each leaf, and the host beside it: the client is in the one beside the leader, whoever is elected.
PLACEMENT = {"n1": "h1", "n2": "h3", "n3": "h5"}
BESIDE = {"n1": "h2", "n2": "h4", "n3": "h6"}
VALUE_BYTES = 256
#: Seconds of each round before and while operations are counted.
WARM_UP, MEASURED = 1.0, 3.0
#: Seconds the fabric, an election or a round's end may take.
PATIENCE = 30.0


class Cluster(Protocol):
    """A system's nodes, from their start to their end, and the floods it is measured with."""

    def start(self) -> None:
        """Return when one leads. Raises `BenchError`."""

    def flood(self, outstanding: int) -> FloodSummary:
        """Keep so many writes of `VALUE_BYTES` under way for a round. Raises `BenchError`."""

    def stop(self) -> None: ...


class Lab:
    """The fabric alive, and the processes in it. Each leaves what it says in a log in ``folder``."""

    def __init__(self, sandbox: Sandbox, plan: FabricPlan, folder: Path, ended: list[tuple[str, str, int]]) -> None:
        self.folder = folder
        self._sandbox, self._plan, self._ended = sandbox, plan, ended
        self._running: set[str] = set()

    def address(self, node: str, port: int) -> str:
        return f"{self._plan.host(PLACEMENT[node]).ip}:{port}"

    def spawn(self, name: str, host: str, argv: Sequence[str]) -> None:
        self._sandbox.call_sync("spawn", name, host, list(argv), self._log(name))
        self._running.add(name)

    def tell(self, name: str, line: str) -> None:
        self._sandbox.call_sync("tell", [name], line)

    def said(self, name: str) -> str:
        """What it wrote so far."""
        return self._log(name).read_text()

    def await_end(self, name: str) -> None:
        """Return when it has ended by itself, and well. Raises `BenchError`."""
        late = self._sandbox.call_sync("wait", [name], PATIENCE)
        self._check(f"{name} did not end")
        if late:
            raise BenchError(f"{name} did not end within {PATIENCE:.0f} s: {self._logs()}")
        self._running.discard(name)

    def end(self, names: Iterable[str]) -> None:
        names = list(names)
        self._running.difference_update(names)
        self._sandbox.call_sync("end", names)

    def eventually(self, happened: Callable[[], bool], what: str) -> None:
        """Return when it has ``happened``. Raises `BenchError`, that ``what`` has not."""
        end = time.monotonic() + PATIENCE
        while not happened():
            self._check(what)
            if time.monotonic() > end:
                raise BenchError(f"{what} within {PATIENCE:.0f} s: {self._logs()}")
            time.sleep(0.02)

    def _check(self, what: str) -> None:
        ends = [
            f"{name} ended with status {status}" for _, name, status in self._ended if status and name in self._running
        ]
        if ends:
            raise BenchError(f"{what}: {'; '.join(ends)}: {self._logs()}")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _logs(self) -> str:
        said = (self._log(name).read_text().strip()[-1000:] for name in sorted(self._running))
        return "; ".join(filter(None, said)) or "nobody said why"


@contextmanager
def laboratory(plan: FabricPlan = PLAN) -> Iterator[Lab]:
    """A fabric that forwards, until the block ends."""
    ended: list[tuple[str, str, int]] = []
    with (
        tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name,
        Sandbox(Inside, plan, folder := Path(name), 1, out=folder, on_event=ended.append) as sandbox,
    ):
        sandbox.call_sync("build")
        sandbox.call_sync("wait_forwarding", PATIENCE)
        yield Lab(sandbox, plan, folder, ended)
