"""The shell as a person uses it: at a terminal, with Tab and Ctrl-C; it gives the terminal back and leaves nothing."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))
PROMPT = "splitbrain> "
CTRL_C, CTRL_D = "\x03", "\x04"


class Person:
    """Sits at a pseudo-terminal that controls a session in which ``command`` runs."""

    def __init__(self, *command: str) -> None:
        self.terminal, theirs = pty.openpty()
        self.settings = termios.tcgetattr(theirs)

        self.program = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "dumb"},
        )
        self._theirs = theirs
        self.seen = ""

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def sees(self, what: str, within: float = 30) -> str:
        """Wait for ``what``; everything up to it that was not seen before."""
        deadline = time.monotonic() + within
        while what not in self.seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.terminal], [], [], max(0, left))
            assert ready, f"no {what!r} within {within} s, but: {self.seen!r}"
            self.seen += os.read(self.terminal, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(what)
        return before

    def asks(self, line: str) -> str:
        """Type a line; what is answered until the next prompt."""
        self.types(line + "\n")
        return self.sees(PROMPT)

    def leaves(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.program.pid, signal.SIGKILL)
        self.program.wait()
        os.close(self._theirs)
        os.close(self.terminal)


@pytest.fixture
def person() -> Iterator[Person]:
    sitting = Person(SPLITBRAIN, "shell", "leaf-spine,2,2,1")
    try:
        yield sitting
    finally:
        sitting.leaves()


def inhabitants(namespace: int) -> list[str]:
    """The processes of a pid namespace, as seen from outside it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.stat(process / "ns/pid").st_ino == namespace:
                found.append((process / "cmdline").read_text())
    return found


@pytest.mark.network
def test_a_person_breaks_a_fabric_at_the_prompt_and_it_is_gone_when_they_leave(person: Person) -> None:
    person.sees(PROMPT, within=60)
    answer = person.asks("py 'inode=%d.' % __import__('os').stat('/proc/self/ns/pid').st_ino")
    namespace = int(re.findall(r"inode=(\d+)\.", answer)[-1])
    assert len(inhabitants(namespace)) > 3  # pid 1, the worker, Open vSwitch, the controller

    person.types("parti\t")
    person.sees("partition ")
    person.asks("h1 | h2")
    assert re.search(r"h1 +· +-\s+h2 +- +·", person.asks("reach"))

    person.types("h1 ping -O -i 0.2 h2\n")
    person.sees("no answer yet")
    person.types(CTRL_C)
    assert "100% packet loss" in person.sees(PROMPT)
    person.types(CTRL_C)
    person.sees("Interrupt")
    person.sees(PROMPT)

    assert "healed 1: partition h1 | h2" in person.asks("heal")
    assert re.search(r"h1 > leaf1 > spine[12] > leaf2 > h2", person.asks("path h1 h2 udp 40000 7000"))
    assert "0% dropped" in person.asks("pingall")
    assert "leaf1-spine1 DOWN" in person.asks("cut leaf1-spine1\nlinks leaf1-*") + person.sees(PROMPT)
    assert "*** no link 'leaf9'; there is h1-leaf1" in person.asks("cut leaf9")

    person.types(CTRL_D)
    assert person.program.wait(10) == 0
    assert inhabitants(namespace) == []
    assert termios.tcgetattr(person.terminal) == person.settings


@pytest.mark.network
def test_commands_may_come_from_a_pipe_and_go_to_no_program_in_a_host() -> None:
    script = "partition h1\nh1 ping -c 1 -W 1 h2\nheal\nh1 ping -c 1 h2\n"
    done = subprocess.run(
        [SPLITBRAIN, "shell", "leaf-spine,1,2,1"], input=script, capture_output=True, text=True, timeout=100, check=True
    )
    assert re.findall(r"(\d+)% packet loss", done.stdout) == ["100", "0"]
    assert "healed 1" in done.stdout


@pytest.mark.network
def test_killed_with_its_prompt_it_leaves_nothing_either(person: Person) -> None:
    person.sees(PROMPT, within=60)
    answer = person.asks("py 'inode=%d.' % __import__('os').stat('/proc/self/ns/pid').st_ino")
    namespace = int(re.findall(r"inode=(\d+)\.", answer)[-1])
    person.program.kill()
    person.program.wait()
    deadline = time.monotonic() + 10
    while inhabitants(namespace) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert inhabitants(namespace) == []
