"""A small Maelstrom for tests: starts binaries, carries messages between them, and asks them things as a client."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any

NODES = Path(__file__).parent / "nodes"
LIN_KV = [sys.executable, str(NODES / "lin_kv.py")]
UNRULY = [sys.executable, str(NODES / "unruly.py")]


def ours(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "apps.maelstrom", name, *arguments]


class Network:
    """``nodes`` run ``command`` each and are initialised. ``cut``: pairs of nodes whose messages get lost."""

    def __init__(self, command: Sequence[str], nodes: Sequence[str]) -> None:
        self.nodes = list(nodes)
        self.cut: set[tuple[str, str]] = set()
        self.heard: Queue[dict[str, Any]] = Queue()
        self._last = 0
        self.processes = {
            node: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for node in nodes
        }
        for node in nodes:
            threading.Thread(target=self._carry, args=(node,), daemon=True).start()

    def __enter__(self) -> Network:
        for node in self.nodes:
            assert self.ask(node, type="init", node_id=node, node_ids=self.nodes)["type"] == "init_ok"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def partition(self, *groups: Iterable[str]) -> None:
        side = {node: number for number, group in enumerate(groups) for node in group}
        self.cut = {(one, other) for one in self.nodes for other in self.nodes if side[one] != side[other]}

    def write(self, node: str, line: bytes) -> None:
        stdin = self.processes[node].stdin
        assert stdin is not None
        stdin.write(line)
        stdin.flush()

    def ask(self, node: str, patience: float = 10.0, **body: Any) -> dict[str, Any]:
        """The body of the answer."""
        self._last += 1
        message = {"src": "c1", "dest": node, "body": {**body, "msg_id": self._last}}
        self.write(node, json.dumps(message).encode() + b"\n")
        deadline = time.monotonic() + patience
        while True:
            try:
                answer = self.heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise TimeoutError(f"{node} did not answer {body}") from None
            if answer["src"] == node and answer["body"].get("in_reply_to") == self._last:
                found: dict[str, Any] = answer["body"]
                return found

    def _carry(self, node: str) -> None:
        stdout = self.processes[node].stdout
        assert stdout is not None
        for line in stdout:
            message = json.loads(line)
            assert message["src"] == node
            if message["dest"] not in self.processes:
                self.heard.put(message)
            elif (node, message["dest"]) not in self.cut:
                try:
                    self.write(message["dest"], line)
                except (BrokenPipeError, ValueError):
                    return  # the network is being closed
