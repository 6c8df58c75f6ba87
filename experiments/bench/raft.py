"""What three Raft nodes do in a second in a fabric, each write on two disks before it is answered; and what peers do.

2 spines × 3 leaves under their controller, a node in each leaf and the client in the host beside the leader; real
sockets, real fsync, the trace written as in any run. Values are of 256 bytes, a session for each operation that is
outstanding. The peers (`experiments.bench.raft_peers`) come after ours, in the same hosts. ``routed`` is the same once
more with the kernel in the place of the switches: what is left is what the nodes and their disk take.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from apps.workload import FloodSummary
from experiments.bench import Figure, figure
from experiments.bench.raft_lab import (
    BESIDE,
    MEASURED,
    PLACEMENT,
    PLAN,
    VALUE_BYTES,
    WARM_UP,
    Cluster,
    Lab,
    laboratory,
)
from experiments.bench.raft_peers import Etcd, PySyncObj

System = TypeVar("System", bound=Cluster)

PORT = 7000
MANY = 1000
ROUTED = msgspec.structs.replace(PLAN, dataplane="routed")
ROUNDS = 3
#: Seconds until a client of ours is connected.
CONNECT = 1.5


class Writes(NamedTuple):
    """A system's rounds of writes, `MANY` at once and one after another."""

    many: list[FloodSummary]
    one: list[FloodSummary]


def bench() -> list[Figure]:
    with laboratory() as lab:
        with _started(Splitbrain(lab, "read_index")) as ours:
            writes = _writes(ours)
            read_index = [ours.flood(MANY, "read") for _ in range(ROUNDS)]
        with _started(Splitbrain(lab, "lease")) as ours:
            lease = [ours.flood(MANY, "read") for _ in range(ROUNDS)]
        etcd = _etcd(lab)
        pysyncobj = _pysyncobj(lab)
    with laboratory(ROUTED) as lab, _started(Splitbrain(lab, "read_index")) as ours:
        routed = [ours.flood(1) for _ in range(ROUNDS)]
    rows: list[tuple[str, str, Callable[[Writes], float], str | None]] = [
        ("writes_per_s", "1/s", lambda one: _per_second(one.many), "≥ 20,000"),
        ("p50_ms", "ms", lambda one: _p50_ms(one.many), None),
        ("p99_ms", "ms", lambda one: _p99_ms(one.many), None),
        ("writes_per_s_1", "1/s", lambda one: _per_second(one.one), "≥ 600"),
        ("p50_ms_1", "ms", lambda one: _p50_ms(one.one), "≤ 1.6"),
        ("p99_ms_1", "ms", lambda one: _p99_ms(one.one), None),
    ]
    peer = "etcd" if etcd else None
    figures = [
        figure(name, value(writes), unit, aim=aim, peer=peer, peer_value=value(etcd) if etcd else None)
        for name, unit, value, aim in rows
    ]
    figures += [
        figure("writes_per_s_1_routed", _per_second(routed), "1/s"),
        figure("p50_ms_1_routed", _p50_ms(routed), "ms"),
        figure("reads_per_s_read_index", _per_second(read_index), "1/s", aim="≥ 40,000"),
        figure("reads_per_s_lease", _per_second(lease), "1/s", aim="≥ 60,000"),
    ]
    if pysyncobj:
        figures += [
            figure("pysyncobj_writes_per_s", _per_second(pysyncobj.many), "1/s"),
            figure("pysyncobj_writes_per_s_1", _per_second(pysyncobj.one), "1/s"),
            figure("pysyncobj_p50_ms_1", _p50_ms(pysyncobj.one), "ms"),
        ]
    return figures


def _etcd(lab: Lab) -> Writes | None:
    if Etcd.program() is None:
        _say_missing("etcd")
        return None
    with _started(Etcd(lab)) as etcd:
        return _writes(etcd)


def _pysyncobj(lab: Lab) -> Writes | None:
    if PySyncObj.program() is None:
        _say_missing("PySyncObj")
        return None
    with _started(PySyncObj(lab, "single")) as single:
        one = [single.flood(1) for _ in range(ROUNDS)]
    with _started(PySyncObj(lab, "batched")) as batched:
        many = [batched.flood(MANY) for _ in range(ROUNDS)]
    return Writes(many, one)


def _say_missing(peer: str) -> None:
    print(f"bench raft: {peer} is not here to be measured as well; `.ci/setup --bench` gets it", file=sys.stderr)


@contextmanager
def _started(system: System) -> Iterator[System]:
    """A system's nodes, until the block ends."""
    system.start()
    try:
        yield system
    finally:
        system.stop()


def _writes(system: Cluster) -> Writes:
    one = [system.flood(1) for _ in range(ROUNDS)]
    return Writes([system.flood(MANY) for _ in range(ROUNDS)], one)


def _per_second(rounds: Sequence[FloodSummary]) -> float:
    return statistics.median(summary.operations / (summary.duration / 1e9) for summary in rounds)


def _p50_ms(rounds: Sequence[FloodSummary]) -> float:
    return statistics.median(summary.p50 / 1e6 for summary in rounds)


def _p99_ms(rounds: Sequence[FloodSummary]) -> float:
    return statistics.median(summary.p99 / 1e6 for summary in rounds)


class Splitbrain:
    """Our nodes, and the clients that flood them one after another."""

    def __init__(self, lab: Lab, reads: Literal["read_index", "lease"]) -> None:
        self._lab, self._reads = lab, reads
        self._addresses = {node: lab.address(node, PORT) for node in PLACEMENT}
        self._floods = 0

    def start(self) -> None:
        for node, host in PLACEMENT.items():
            self._spawn(node, host, self._addresses[node], {"kind": "raft", "reads": self._reads})
        self._lab.eventually(lambda: bool(self._elections()), "no Raft node led")

    def _elections(self) -> list[tuple[int, str]]:
        """When who was elected."""
        return [
            (msgspec.json.decode(line)["t"], node)
            for node in PLACEMENT
            for line in self._trace(node, "0").splitlines()
            if b'"role":"leader"' in line
        ]

    def flood(self, outstanding: int, operation: Literal["write", "read"] = "write") -> FloodSummary:
        self._floods += 1
        client = f"flood{self._floods}"
        process = {
            "kind": "flood",
            "outstanding": outstanding,
            "operation": operation,
            "value_bytes": VALUE_BYTES,
            "warm_up": int(WARM_UP * 1e9),
        }
        _, leader = max(self._elections())
        self._spawn(client, BESIDE[leader], None, process)
        start = time.monotonic_ns() + int(CONNECT * 1e9)
        self._lab.tell(self._name(client), f"start {start}")
        self._lab.tell(self._name(client), f"stop {start + int((WARM_UP + MEASURED) * 1e9)}")
        self._lab.await_end(self._name(client))
        return msgspec.json.decode(self._trace(client, "history"), type=FloodSummary)

    def stop(self) -> None:
        self._lab.end(map(self._name, PLACEMENT))

    def _name(self, node: str) -> str:
        return f"{self._reads}-{node}"

    def _spawn(self, node: str, host: str, listen: str | None, process: dict[str, Any]) -> None:
        home = self._lab.folder / self._name(node)
        home.mkdir()
        config = {
            "node": node,
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
        self._lab.spawn(self._name(node), host, [sys.executable, "-m", "apps.runtime", str(path)])

    def _trace(self, node: str, file: str) -> bytes:
        path = self._lab.folder / self._name(node) / "trace" / f"{file}.ndjson"
        return path.read_bytes() if path.exists() else b""
