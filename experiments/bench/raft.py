"""How many writes a second three Raft nodes take in a fabric, each on two disks before it is answered.

2 spines × 3 leaves under their controller, a node in each leaf and the client in a host of its own; real sockets, real
fsync, the trace written as in any run. Values are of 256 bytes, a session for each write that is outstanding.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from apps.workload import FloodSummary
from experiments.bench import BenchError, Figure, figure
from experiments.emulation.inside import Inside
from topologies.leaf_spine import LeafSpine
from topologies.sandbox import Sandbox

PLACEMENT = {"n1": "h1", "n2": "h3", "n3": "h5"}
CLIENT_HOST = "h2"
PORT = 7000
VALUE_BYTES = 256
#: Seconds of each round: until the client is connected, before and while writes are counted.
CONNECT, WARM_UP, MEASURED = 1.5, 1.0, 3.0
ROUNDS = 3
#: Seconds the fabric and the first election may take.
PATIENCE = 30.0


def bench() -> list[Figure]:
    plan = LeafSpine(2, 3, 2)
    with tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name:
        folder = Path(name)
        ended: list[tuple[str, str, int]] = []
        with Sandbox(Inside, plan, folder, 1, out=folder, on_event=ended.append) as sandbox:
            addresses = {node: f"{plan.host(host).ip}:{PORT}" for node, host in PLACEMENT.items()}
            cluster = _Cluster(sandbox, folder, addresses, ended)
            sandbox.call_sync("build")
            sandbox.call_sync("wait_forwarding", PATIENCE)
            cluster.start()
            one = [cluster.flood(1) for _ in range(ROUNDS)]
            thousand = [cluster.flood(1000) for _ in range(ROUNDS)]

    def median(rounds: list[FloodSummary], value: Callable[[FloodSummary], float]) -> float:
        return statistics.median(map(value, rounds))

    return [
        figure("writes_per_s", median(thousand, _per_second), "1/s", aim="≥ 5,000"),
        figure("p50_ms", median(thousand, lambda summary: summary.p50 / 1e6), "ms"),
        figure("p99_ms", median(thousand, lambda summary: summary.p99 / 1e6), "ms"),
        figure("writes_per_s_1", median(one, _per_second), "1/s"),
        figure("p50_ms_1", median(one, lambda summary: summary.p50 / 1e6), "ms"),
        figure("p99_ms_1", median(one, lambda summary: summary.p99 / 1e6), "ms"),
    ]


def _per_second(summary: FloodSummary) -> float:
    return summary.operations / (summary.duration / 1e9)


class _Cluster:
    """The nodes, and the clients that flood them one after another. ``ended``: the sandbox's events, as they come."""

    def __init__(
        self, sandbox: Sandbox, folder: Path, addresses: dict[str, str], ended: list[tuple[str, str, int]]
    ) -> None:
        self._sandbox, self._folder, self._addresses, self._ended = sandbox, folder, addresses, ended
        self._floods = 0

    def start(self) -> None:
        """Start the nodes and wait until one leads."""
        for node, address in self._addresses.items():
            self._spawn(node, PLACEMENT[node], address, {"kind": "raft"})
        end = time.monotonic() + PATIENCE
        while not any(b'"role":"leader"' in self._trace(node, "0") for node in self._addresses):
            if time.monotonic() > end:
                raise BenchError(f"no Raft node led within {PATIENCE:.0f} s: {self._logs()}")
            time.sleep(0.05)

    def flood(self, outstanding: int) -> FloodSummary:
        """Keep so many writes under way for a while."""
        self._floods += 1
        client = f"flood{self._floods}"
        process = {
            "kind": "flood",
            "outstanding": outstanding,
            "value_bytes": VALUE_BYTES,
            "warm_up": int(WARM_UP * 1e9),
        }
        self._spawn(client, CLIENT_HOST, None, process)
        start = time.monotonic_ns() + int(CONNECT * 1e9)
        self._sandbox.call_sync("tell", [client], f"start {start}")
        self._sandbox.call_sync("tell", [client], f"stop {start + int((WARM_UP + MEASURED) * 1e9)}")
        late = self._sandbox.call_sync("wait", [client], PATIENCE)
        line = self._trace(client, "history")
        if late or not line or any(status for _, _, status in self._ended):
            raise BenchError(f"the round with {outstanding} outstanding failed: {self._logs()}")
        return msgspec.json.decode(line, type=FloodSummary)

    def _spawn(self, name: str, host: str, listen: str | None, process: dict[str, Any]) -> None:
        home = self._folder / name
        home.mkdir()
        config = {
            "node": name,
            "cluster": "bench",
            "incarnation": 0,
            "listen": listen,
            "peers": self._addresses,
            "seed": 1,
            "data_dir": str(home / "data"),
            "trace_dir": str(home / "trace"),
            "process": process,
        }
        path = home / "config.json"
        path.write_bytes(msgspec.json.encode(config))
        self._sandbox.call_sync("spawn", name, host, [sys.executable, "-m", "apps.runtime", str(path)], home / "log")

    def _trace(self, name: str, file: str) -> bytes:
        path = self._folder / name / "trace" / f"{file}.ndjson"
        return path.read_bytes() if path.exists() else b""

    def _logs(self) -> str:
        said = [path.read_text().strip() for path in sorted(self._folder.glob("*/log"))]
        ends = [f"{name} ended with status {status}" for _, name, status in self._ended if status]
        return "; ".join(filter(None, [*ends, *said])) or "nobody said why"
