"""The part of an emulated world that lives inside its sandbox: the fabric, the processes in it, and what breaks them.

Constructed by the sandbox's worker; every public method is called from outside (`experiments.emulation.world`).
Everything in here is one thread, since entering a network namespace moves one thread only.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from topologies.fabric import Fabric
from topologies.impair import Impairments, choose_backend
from topologies.impairment import Impairment
from topologies.measure import measure_link, measure_rate, verify, verify_rate
from topologies.openvswitch import choose_datapath
from topologies.plan import FabricPlan
from topologies.routed_fabric import RoutedFabric

#: Light probes on an impaired link: one every 2 ms, and no more than this many.
MEASURING_INTERVAL_NS = 2_000_000
MOST_MEASURING_PACKETS = 500

#: How much more than a rate lets through is offered to measure it.
OVERLOAD = 1.3

#: Where the controller answers HTTP, in the sandbox (`controllers.northbound`).
NORTHBOUND = "127.0.0.1:8080"

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")

#: Who is told of things that happen by themselves: ``("exited", name, status)``.
Emit = Callable[[tuple[str, str, int]], None]


class Inside:
    """The fabric of ``plan`` and what runs in it; whatever is written goes into the folder ``run``."""

    def __init__(self, plan: FabricPlan, run: Path, seed: int, *, emit: Emit) -> None:
        self.plan = plan
        self.run = run
        self._seed = seed
        self._emit = emit
        self.fabric: Fabric
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lifts: dict[int, Callable[[], None]] = {}
        self._serials = itertools.count()

    def build(self) -> dict[str, Any]:
        """Start the controller and build the fabric meanwhile; returns which backends do the work."""
        home = self.run / "fabric"
        home.mkdir()
        backends = self._build_routed() if self.plan.dataplane == "routed" else self._build_switched(home)
        backend = choose_backend(
            datapath="netdev" if backends["datapath"] == "netdev" else "kernel",
            on_exit=lambda why: self._emit(("exited", "wire", 1)),
        )
        self.impairments = Impairments(self.plan, backend, self._seed)
        return {"backends": {**backends, "impairment": backend.name}}

    def _build_routed(self) -> dict[str, str]:
        self.fabric = RoutedFabric(self.plan)
        self.fabric.start()
        return {"datapath": "routed", "controller": "none"}

    def _build_switched(self, home: Path) -> dict[str, str]:
        plan = home / "plan.json"
        plan.write_bytes(self.plan.to_json())
        controller = [sys.executable, "-m", "controllers.launch", "--plan", str(plan), "--northbound", NORTHBOUND]
        spread = ["--hash", "fields" if choose_datapath() == "system" else "datapath"]
        self.spawn(
            "controller",
            None,
            [*controller, *spread, "--status", str(home / "controller.jsonl")],
            home / "controller.log",
        )
        self.fabric = Fabric(self.plan, log_directory=home)
        self.fabric.start()
        assert self.fabric.ovs is not None
        return {"datapath": self.fabric.ovs.datapath, "controller": "ryu"}

    async def wait_forwarding(self, patience: float) -> None:
        """Return once every host reaches every other."""
        await self.fabric.wait_ready(patience)

    # ---- processes -----------------------------------------------------------------------------------------------

    def spawn(self, name: str, host: str | None, argv: list[str], log: Path) -> int:
        """Start a process in a host, or beside the switches if ``host`` is None; returns its pid in here."""
        with log.open("ab") as output:
            if host is None:
                process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=output, stderr=output)
            else:
                process = self.fabric.spawn(host, argv, stdin=subprocess.PIPE, stdout=output, stderr=output)
        self._processes[name] = process
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._emit(("exited", name, process.wait()))

        loop.add_reader(descriptor, ended)
        return process.pid

    def established(self, names: list[str], port: int) -> dict[str, int]:
        """How many connections to ``port`` are up in the network namespace of each process."""
        return {name: _established(Path(f"/proc/{self._processes[name].pid}/net/tcp"), port) for name in names}

    def tell(self, names: list[str], line: str) -> None:
        """Write a line to the standard input of processes."""
        for name in names:
            stdin = self._processes[name].stdin
            assert stdin is not None
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def kill(self, name: str) -> None:
        self._processes[name].kill()

    def signal(self, name: str, number: int) -> None:
        """Send a process a signal; none to one that has ended."""
        self._processes[name].send_signal(number)

    def state(self, name: str) -> str:
        """What a process is doing, by the letter of proc(5): ``T`` is stopped; empty if it has ended."""
        process = self._processes[name]
        if process.poll() is not None:
            return ""
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    async def wait(self, names: list[str], patience: float) -> list[str]:
        """Wait for processes to end by themselves, at most ``patience`` seconds; returns those that have not."""
        deadline = time.monotonic() + patience
        while left := [name for name in names if self._processes[name].poll() is None]:
            if time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.01)
        return []

    async def end(self, names: list[str]) -> None:
        """Ask processes to end, and kill those that do not within two seconds."""
        for name in names:
            self._processes[name].send_signal(signal.SIGTERM)
        for name in await self.wait(names, 2.0):
            self._processes[name].kill()
            self._processes[name].wait()

    def end_switches(self) -> None:
        """End Open vSwitch, and before it the controller, who would notice; the kernel would take longer for it.

        It closes the ports of a process that ends one after another, see `topologies.openvswitch`.
        """
        if self.fabric.ovs is not None:
            self._processes["controller"].kill()
            self.fabric.ovs.stop()

    def sample(self) -> list[tuple[str, str, float]]:
        """``(source, metric, value)``: what every link direction carried so far, and what every process took."""
        samples: list[tuple[str, str, float]] = []
        for direction, counters in self.fabric.link_counters().items():
            samples += ((direction, metric, value) for metric, value in msgspec.structs.asdict(counters).items())
        for name, process in self._processes.items():
            try:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            # proc(5): utime and stime are the 14th and 15th field, rss the 24th; two came before the split
            samples.append((name, "cpu_seconds", (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND))
            samples.append((name, "rss_bytes", float(int(fields[21]) * _PAGE)))
        return samples

    # ---- faults --------------------------------------------------------------------------------------------------

    def drop(self, grudge: Mapping[str, list[str]]) -> int:
        """Make receivers deaf to senders, hosts both; returns a handle for `lift`, as do the others here."""
        return self._held(
            self.fabric.dataplane.drop({receiver: set(senders) for receiver, senders in grudge.items()}).lift
        )

    def cut(self, link: str) -> int:
        return self._held(self.fabric.dataplane.cut(link).lift)

    def impair(self, direction: str, impairment: Impairment) -> int:
        handle = self.impairments.apply(direction, impairment)
        return self._held(lambda: self.impairments.clear(handle))

    def _held(self, lift: Callable[[], None]) -> int:
        handle = next(self._serials)
        self._lifts[handle] = lift
        return handle

    def lift(self, handle: int) -> None:
        """Undo what gave this handle, and nothing else that others may have done to the same links."""
        self._lifts.pop(handle)()

    def carrier(self, names: list[str]) -> dict[str, bool]:
        """Whether each link has carrier at its switch end (ethtool: link detected)."""
        return {name: self.fabric.has_carrier(name) for name in names}

    async def passing(self, names: list[str]) -> dict[str, bool]:
        """Whether each direction lets marked frames through: any of three."""
        wait = 20_000_000 + 2 * self._longest_delay_ns()
        found = {}
        for name in names:
            seen = await measure_link(self.impairments.measured(name), packets=3, interval=1_000_000, wait=wait)
            found[name] = seen.arrived > 0
        return found

    async def matrix(self, placement: Mapping[str, str], budget_ns: int) -> dict[str, dict[str, list[int]]]:
        """``{receiver: {sender: [sent, arrived]}}`` between the hosts of all in ``placement``."""
        wait = min(0.2, budget_ns / 2e9) + self._longest_delay_ns() / 1e9
        by_host = await self.fabric.prober.matrix(sorted(set(placement.values())), probes=3, timeout=wait)
        return {
            receiver: {
                # Within one host there is no network to measure: a loopback is never cut.
                sender: by_host[here][there] if here != there else [1, 1]
                for sender, there in placement.items()
                if sender != receiver
            }
            for receiver, here in placement.items()
        }

    async def observe(self, direction: str, budget_ns: int, most: int = MOST_MEASURING_PACKETS) -> dict[str, Any]:
        """Measure one direction lightly, for ``budget_ns`` at most; says where that disagrees with what is in force."""
        asked = self.impairments.in_force().get(direction, Impairment())
        wait = 2 * self._longest_delay_ns() + 100_000_000
        enough = min(most, round(20 / max(1 - asked.missing, 0.05)))  # that some arrive, if they may
        packets = max(enough, min(most, (budget_ns - wait) * 8 // 10 // MEASURING_INTERVAL_NS))
        obtained = await measure_link(
            self.impairments.measured(direction), packets=packets, interval=MEASURING_INTERVAL_NS, wait=wait
        )
        facts: dict[str, Any] = msgspec.to_builtins(obtained)
        if asked != Impairment():
            counters = self.impairments.counters(direction)
            facts |= {"backend": self.impairments.backend.name, "counters": msgspec.to_builtins(counters)}
        return {"obtained": facts, "disagreements": verify(asked, obtained)}

    async def calibrate(
        self, asked: Mapping[str, Impairment], budget_ns: int = 500_000_000, most: int = MOST_MEASURING_PACKETS
    ) -> dict[str, Any]:
        """Impair each direction as it will be, measure it also by saturating it, and lift that again.

        Only for a network that carries nothing yet. Returns what was obtained by direction, beside what was ``asked``.
        Where nothing is, one link is measured as it is: what the machine itself adds to delays.
        """
        one = min(
            self.plan.links, key=lambda link: not (link.a.port and link.b.port)
        )  # between switches, if there is any
        asked = asked or {one.directions[0]: Impairment()}
        measured: dict[str, Any] = {}
        for direction, impairment in asked.items():
            bare = impairment == Impairment()
            with nullcontext() if bare else self.impairments.impair(direction, impairment):
                found = await self.observe(direction, budget_ns, most)
                if impairment.rate:
                    offered = round(impairment.rate * OVERLOAD)
                    rate = await measure_rate(
                        self.impairments.measured(direction), offered=offered, delay=self._longest_delay_ns()
                    )
                    found["obtained"]["rate"] = msgspec.to_builtins(rate)
                    found["disagreements"] += verify_rate(impairment, rate)
            measured[direction] = {
                "asked": msgspec.to_builtins(impairment),
                **found["obtained"],
                "disagreements": found["disagreements"],
            }
        return measured

    def _longest_delay_ns(self) -> int:
        in_force = self.impairments.in_force().values()
        return max((impairment.delay + 3 * impairment.jitter for impairment in in_force), default=0)


def _established(table: Path, port: int) -> int:
    """Rows of a ``net/tcp`` (proc(5)) whose other end has ``port`` and whose state is ESTABLISHED."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return 0  # the process has just ended
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
