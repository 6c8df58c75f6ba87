"""A binary beside the runtime's event loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apps.maelstrom.bridge import Ended, Heard, Tell
from apps.maelstrom.child import QUEUE_BYTES, Child
from apps.process import Event, Requested
from tests.unit.maelstrom.network import UNRULY, ours


def tell(type: str, number: int, **body: Any) -> tuple[int, Tell]:
    message = {"src": "c1", "dest": "n1", "body": {"type": type, "msg_id": number, **body}}
    return 0, Tell(json.dumps(message).encode() + b"\n")


INIT = tell("init", 0, node_id="n1", node_ids=["n1"])


def talk(command: list[str], say: list[tuple[int, Any]], enough: Callable[[list[Any]], bool]) -> list[Any]:
    """What the bridge would hear of ``command`` when told all of ``say`` at once, until it is ``enough``."""
    heard: list[Any] = []

    def deliver(events: list[Event]) -> None:
        heard.extend(event.command for event in events if isinstance(event, Requested))

    async def run() -> None:
        child = Child(command, deliver)
        child.take(say)
        deadline = time.monotonic() + 20
        while not enough(heard) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        child.close()
        before = len(heard)
        await asyncio.sleep(0.05)
        assert len(heard) == before

    asyncio.run(run())
    return heard


def ended(heard: list[Any]) -> bool:
    return bool(heard) and isinstance(heard[-1], Ended)


def test_all_that_is_told_at_once_is_answered() -> None:
    heard = talk(
        ours("echo"), [INIT, *(tell("echo", n, echo="x" * 2000) for n in range(1, 500))], lambda h: len(h) == 500
    )
    assert sorted(json.loads(one.line)["body"]["in_reply_to"] for one in heard) == list(range(500))


def test_its_end_comes_after_all_it_said() -> None:
    heard = talk([*UNRULY, "exit"], [INIT, tell("write", 1), tell("write", 2)], ended)
    assert [type(one) for one in heard] == [Heard, Heard, Ended]
    assert heard[-1].why.startswith("it exited with status 1")


def test_a_program_that_is_killed_is_said_to_be() -> None:
    heard = talk([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"], [], ended)
    assert heard[-1].why.startswith("it was killed by SIGSEGV")


def test_a_program_that_is_not_there_is_told_of_at_once() -> None:
    assert talk(["/no/such/program"], [INIT], ended) == [
        Ended("it could not be started: /no/such/program: No such file or directory")
    ]


def test_one_that_does_not_read_does_not_fill_the_memory() -> None:
    line = (0, Tell(b"x" * 100_000 + b"\n"))
    heard = talk(["sleep", "100"], [line] * (QUEUE_BYTES // 100_000 + 5), ended)
    assert "unread" in heard[-1].why


def test_one_that_closes_its_output_is_of_no_use_any_more() -> None:
    heard = talk([sys.executable, "-c", "import os, time; os.close(1); time.sleep(100)"], [], ended)
    assert heard == [Ended("it closed its standard output")]


def test_closing_ends_it_and_what_it_has_started(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait"]
    talk(command, [], lambda _: (tmp_path / "pid").exists())
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_does_not_outlive_whoever_keeps_it() -> None:
    """A ``kill -9`` of the keeper leaves nobody to close it: the kernel does."""
    program = "from apps.maelstrom.child import spawn; import time; print(spawn(['sleep', '1000']).pid, flush=True); "
    keeper = subprocess.Popen([sys.executable, "-c", program + "time.sleep(100)"], stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline())
    keeper.kill()
    keeper.wait()
    keeper.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
