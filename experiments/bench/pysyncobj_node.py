"""A PySyncObj node that floods its own cluster with writes when it leads. It runs in PySyncObj's environment.

``python pysyncobj_node.py batched|single OWN OTHER…``: addresses as ``ip:port``. It prints ``leader`` once it leads. A
line ``OUTSTANDING VALUE_BYTES WARM_UP SECONDS`` on its standard input has it keep so many writes under way and print
how long each of those after the warm-up took, as a JSON list of nanoseconds; on a node that does not lead, nothing.

``batched`` is PySyncObj's default: what is written goes out with the next tick, 20 a second. Good for many writes at
once; a lone one would wait for 50 ms, so ``single`` has each go out by itself.

PySyncObj has no clients: whoever writes is a node. So its writes are spared the way from a client and back. Its log is
in memory: what it acknowledges is not on a disk (its journal file, which it has, is never synced).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated


class Map(SyncObj):
    """The same thing ours replicates: a map of strings."""

    def __init__(self, batched: bool, own: str, others: list[str]) -> None:
        super().__init__(own, others, SyncObjConf(appendEntriesUseBatch=batched))
        self._map: dict[str, str] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: str, value: str) -> None:
        self._map[key] = value


def flood(replica: Map, outstanding: int, value_bytes: int, warm_up: float, seconds: float) -> list[int]:
    latencies: list[int] = []
    value = "x" * value_bytes
    start = time.monotonic_ns()
    counted_from = start + int(warm_up * 1e9)
    end = counted_from + int(seconds * 1e9)
    ended = threading.Semaphore(0)

    def write(session: int) -> None:
        begun = time.monotonic_ns()

        def written(_: Any, error: int) -> None:
            now = time.monotonic_ns()
            if now >= end:
                ended.release()
                return
            if not error and now >= counted_from:
                latencies.append(now - begun)
            write(session)

        replica.put(f"k{session}", value, callback=written)

    for session in range(outstanding):
        write(session)
    for _ in range(outstanding):
        ended.acquire()
    return latencies


def main(mode: str, own: str, *others: str) -> None:
    replica = Map(mode == "batched", own, list(others))

    def leads() -> bool:
        return str(replica._getLeader()) == own

    def announce() -> None:
        while not leads():
            time.sleep(0.05)
        print("leader", flush=True)

    threading.Thread(target=announce, daemon=True).start()
    for line in sys.stdin:
        outstanding, value_bytes, warm_up, seconds = line.split()
        if leads():
            latencies = flood(replica, int(outstanding), int(value_bytes), float(warm_up), float(seconds))
            print(json.dumps(latencies), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
