"""``splitbrain shell``: a fabric to play with, and Mininet's prompt on it.

The fabric and the prompt live in a sandbox; this terminal is handed into it. What is here starts both, passes Ctrl-C
on, and gives the terminal back as it was. Nothing is written anywhere: the sandbox's own files are in its memory.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from experiments.emulation.inside import Inside
from experiments.prompt import Terminal, converse
from topologies.machine import require
from topologies.plan import FabricPlan
from topologies.privileges import obstacles, probe
from topologies.sandbox import PrivilegeError, Sandbox
from topologies.supervisor import TEMPORARY

#: Seconds until every host must reach every other.
PATIENCE = 30.0

INTRODUCTION = """\
{switches} switches, {hosts} hosts, {links} links; {backends}. Every host reaches every other.
Beside Mininet's commands: partition, cut, impair, heal, faults, links, path, reach; `help impair` says more.
Tab completes. `h1 ping h5` runs a command in a host; `exit` takes everything away."""


def shell(plan: FabricPlan, seed: int, say: Callable[[str], None]) -> None:
    """Prompt on a living fabric of ``plan`` until the person leaves. ``say`` is told what happens before the prompt.

    ``seed`` is that of impairments' random draws. Raises what a sandbox and a fabric raise that cannot be.
    """
    lacking = obstacles(probe(), tun=True)
    if lacking:
        raise PrivilegeError("; ".join(lacking))
    require("ip", "tc", "ovs-vswitchd", "ovsdb-server", "mnexec")
    with ExitStack() as stack:
        heard, interrupts = os.pipe()
        terminal = Terminal(os.dup(0), os.dup(1), os.dup(2), heard)
        handed = msgspec.structs.astuple(terminal)
        for fd in (*handed, interrupts):
            stack.callback(os.close, fd)
        sandbox = stack.enter_context(
            Sandbox(Inside, plan, Path(TEMPORARY), seed, on_event=lambda event: None, keep_open=handed)
        )
        facts: dict[str, Any] = sandbox.call_sync("build")
        sandbox.call_sync("wait_forwarding", PATIENCE)
        for direction, impairment in plan.impairments.items():
            sandbox.call_sync("impair", direction, impairment)
        say(
            INTRODUCTION.format(
                switches=len(plan.switches),
                hosts=len(plan.hosts),
                links=len(plan.links),
                backends=", ".join(f"{what} by {by}" for what, by in facts["backends"].items()),
            )
        )
        with _terminal_kept(), _passing_on(interrupts):
            sandbox.run_sync(converse, terminal)


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """Leave the terminal as it was, however the prompt ends: readline changes it while it waits for a line."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        with suppress(termios.error):  # it was closed
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _passing_on(interrupts: int) -> Iterator[None]:
    """Ctrl-C is for what runs in the sandbox; Ctrl-Z is for nobody, since two would then read one terminal."""

    def pass_on(_signal: int, _frame: FrameType | None) -> None:
        os.write(interrupts, b"c")

    def end(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, pass_on),
        signal.SIGTSTP: signal.signal(signal.SIGTSTP, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
