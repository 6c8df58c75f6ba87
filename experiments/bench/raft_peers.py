"""What `experiments.bench.raft` measures beside ours, on the same fabric: etcd and PySyncObj, where they are here.

**etcd** (Debian's `etcd-server`), as it comes: each write is on the disks of a majority before it is answered, as with
ours. Its client is beside its leader, written in the same language, and has one connection, as is ours (`etcd_flood`).

**PySyncObj**, in memory: what it acknowledges is on no disk. It has no clients; the leader itself writes, which spares
each write the way there and back (`pysyncobj_node`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Literal

import msgspec

from apps.workload import FloodSummary
from experiments.bench.raft_lab import BESIDE, MEASURED, PLACEMENT, VALUE_BYTES, WARM_UP, Lab

_PEERS = Path(__file__).parents[2] / ".peers"
_ETCD = _PEERS / "etcd" / "usr" / "bin" / "etcd"
_PYSYNCOBJ = _PEERS / "venv" / "bin" / "python"
_NODE = Path(__file__).with_name("pysyncobj_node.py")
_CLIENT_PORT, _PEER_PORT, _PYSYNCOBJ_PORT = 2379, 2380, 7100
_ROUND = [str(VALUE_BYTES), str(WARM_UP), str(MEASURED)]


class Etcd:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._floods = 0

    @staticmethod
    def program() -> str | None:
        return str(_ETCD) if _ETCD.exists() else shutil.which("etcd")

    def start(self) -> None:
        program = self.program()
        assert program is not None
        urls = {node: f"http://{self._lab.address(node, _PEER_PORT)}" for node in PLACEMENT}
        for node, host in PLACEMENT.items():
            clients = f"http://{self._lab.address(node, _CLIENT_PORT)}"
            options = {
                "name": node,
                "data-dir": str(self._lab.folder / f"etcd-{node}"),
                "listen-client-urls": clients,
                "advertise-client-urls": clients,
                "listen-peer-urls": urls[node],
                "initial-advertise-peer-urls": urls[node],
                "initial-cluster": ",".join(f"{name}={url}" for name, url in urls.items()),
                "logger": "zap",
                "log-level": "error",
            }
            self._lab.spawn(f"etcd-{node}", host, [program, *(f"--{key}={value}" for key, value in options.items())])
        self._find_leader()

    def _find_leader(self) -> None:
        """Ask every member, from a host that has the way to them, until one says that it leads."""
        script = [sys.executable, "-m", "experiments.bench.raft_peers"]
        members = {self._lab.address(node, _CLIENT_PORT): node for node in PLACEMENT}
        self._lab.spawn("etcd-leader", BESIDE["n1"], [*script, *members])
        self._lab.await_end("etcd-leader")
        self._leader = self._lab.said("etcd-leader").strip()
        self._client_host = BESIDE[members[self._leader]]

    def flood(self, outstanding: int) -> FloodSummary:
        self._floods += 1
        name = f"etcd-flood{self._floods}"
        arguments = [self._leader, str(outstanding), *_ROUND]
        self._lab.spawn(name, self._client_host, [sys.executable, "-m", "experiments.bench.etcd_flood", *arguments])
        self._lab.await_end(name)
        return msgspec.json.decode(self._lab.said(name), type=FloodSummary)

    def stop(self) -> None:
        self._lab.end(f"etcd-{node}" for node in PLACEMENT)


class PySyncObj:
    """``mode``: see `pysyncobj_node`."""

    def __init__(self, lab: Lab, mode: Literal["batched", "single"]) -> None:
        self._lab, self._mode = lab, mode
        self._names = {node: f"pysyncobj-{mode}-{node}" for node in PLACEMENT}
        self._leader = ""

    @staticmethod
    def program() -> str | None:
        return str(_PYSYNCOBJ) if os.access(_PYSYNCOBJ, os.X_OK) else None

    def start(self) -> None:
        program = self.program()
        assert program is not None
        addresses = {node: self._lab.address(node, _PYSYNCOBJ_PORT) for node in PLACEMENT}
        for node, name in self._names.items():
            others = [address for other, address in addresses.items() if other != node]
            self._lab.spawn(name, PLACEMENT[node], [program, str(_NODE), self._mode, addresses[node], *others])
        self._lab.eventually(lambda: bool(self._leading()), "no PySyncObj node led")
        (self._leader,) = self._leading()

    def _leading(self) -> list[str]:
        return [name for name in self._names.values() if "leader\n" in self._lab.said(name)]

    def flood(self, outstanding: int) -> FloodSummary:
        before = self._lab.said(self._leader)
        self._lab.tell(self._leader, " ".join([str(outstanding), *_ROUND]))

        def answer() -> str:
            return self._lab.said(self._leader).removeprefix(before)

        self._lab.eventually(lambda: answer().endswith("\n"), f"PySyncObj with {outstanding} outstanding did not end")
        return FloodSummary.of(json.loads(answer()), int(MEASURED * 1e9))

    def stop(self) -> None:
        self._lab.end(self._names.values())


def _leader_of(members: list[str]) -> str:
    """Which of etcd's members, ``ip:port``, leads, by its own word (its JSON interface); asked until one does."""
    while True:
        for member in members:
            request = urllib.request.Request(f"http://{member}/v3/maintenance/status", data=b"{}")
            try:
                with urllib.request.urlopen(request, timeout=1) as response:
                    status = json.load(response)
            except OSError:
                continue
            if status.get("leader", "0") == status["header"]["member_id"]:
                return member


if __name__ == "__main__":
    print(_leader_of(sys.argv[1:]))
