"""How many entries the core alone commits in a second of CPU: three nodes in one thread, no network, disk or frames.

``python -m tests.unit.raft.throughput [outstanding] [seconds]``
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from apps import kv
from apps.process import Event, Persist, Persisted, Received, Reply, Requested, Send, Started, TimerFired, step
from apps.raft import Raft, RaftConfig, Role


def measure(outstanding: int, seconds: float) -> tuple[int, float]:
    """Keep ``outstanding`` writes of 256 bytes under way; return how many were answered, and the CPU seconds."""
    names = ["n1", "n2", "n3"]
    nodes = {name: Raft(name, names, RaftConfig(), random.Random(name)) for name in names}
    inbox: dict[str, list[Event]] = {name: [Started()] for name in names}
    now = 0
    answered: list[int] = []

    def turn() -> None:
        for name in names:
            events, inbox[name] = inbox[name], []
            for effect in step(nodes[name], now, events):
                if type(effect) is Send:
                    inbox[effect.to].append(Received(name, effect.message))
                elif type(effect) is Persist:
                    inbox[name].append(Persisted(effect.token))
                elif type(effect) is Reply:
                    answered.append(effect.request)

    turn()
    now = 400_000_000
    inbox["n1"].append(TimerFired("election"))
    while nodes["n1"].role is not Role.LEADER or nodes["n1"].commit == 0:
        turn()

    def write(number: int) -> Requested:
        return Requested("c1", number, kv.Command("c1", number, lowest, kv.Write(f"k{number % 100}", value)))

    value: Any = b"x" * 256
    lowest = 0
    issued = outstanding
    total = 0
    inbox["n1"] += [write(number) for number in range(outstanding)]
    started = time.process_time()
    while (elapsed := time.process_time() - started) < seconds:
        turn()
        if answered:
            total += len(answered)
            lowest = answered[-1]
            inbox["n1"] += [write(number) for number in range(issued, issued + len(answered))]
            issued += len(answered)
            answered.clear()
    return total, elapsed


if __name__ == "__main__":
    asked = [float(argument) for argument in sys.argv[1:]]
    count, elapsed = measure(int(asked[0]) if asked else 1000, asked[1] if len(asked) > 1 else 3.0)
    print(f"{count / elapsed:,.0f} entries committed by three nodes in a second of CPU")
