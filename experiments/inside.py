"""The part of an emulated world that lives inside its sandbox: the fabric, the processes in it, and what breaks them.

Constructed by the sandbox's worker; every public method is called from outside (`experiments.emulated`). Everything in
here is one thread, since entering a network namespace moves one thread only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from topologies.impairment import Impairment
from topologies.plan import FabricPlan

Emit = Callable[[Any], None]


class Inside:
    """``emit`` is told ``("exited", name, status)`` when a process ends."""

    def __init__(self, plan: FabricPlan, run: Path, *, emit: Emit) -> None:
        self.plan = plan
        self.run = run
        self._emit = emit
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._impaired: dict[str, Any] = {}

    # -- processes ------------------------------------------------------------------------------------------------

    def spawn(self, name: str, host: str | None, argv: list[str], log: Path, env: Mapping[str, str]) -> int:
        """Start a process in a host, or beside the switches if ``host`` is None; returns its pid in here."""
        environment = {**os.environ, **env}
        with log.open("ab") as output:
            if host is None:
                process = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
                )
            else:
                process = self.fabric.spawn(
                    host, argv, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
                )
        self._processes[name] = process
        self._watch(name, process)
        return process.pid

    def _watch(self, name: str, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._emit(("exited", name, process.wait()))

        loop.add_reader(descriptor, ended)

    def tell(self, names: list[str], line: str) -> None:
        """Write a line to the standard input of processes."""
        for name in names:
            stdin = self._processes[name].stdin
            assert stdin is not None
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    async def end(self, names: list[str], sign: int = signal.SIGTERM, patience: float = 2.0) -> dict[str, int]:
        """Send a signal to processes and wait for their end; the stubborn are killed. Returns exit statuses."""
        processes = {name: self._processes[name] for name in names}
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(sign)
        await self.wait(names, patience)
        for process in processes.values():
            if process.poll() is None:
                process.kill()
        return {name: process.wait() for name, process in processes.items()}

    async def wait(self, names: list[str], patience: float) -> list[str]:
        """Wait for processes to end by themselves, at most ``patience`` seconds; returns those that have not."""
        async def ended() -> None:
            while any(self._processes[name].poll() is None for name in names):
                await asyncio.sleep(0.01)

        try:
            await asyncio.wait_for(ended(), patience)
        except TimeoutError:
            return [name for name in names if self._processes[name].poll() is None]
        return []
