"""The emulated world: a scenario's fabric, nodes and clients, alive in a sandbox, as seen from outside it."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from apps.raft.quorum import Configuration
from experiments.checking.live import LiveCheck
from experiments.checking.trace import TraceError
from experiments.emulation import pcap
from experiments.emulation.inside import Inside
from experiments.emulation.metrics import Metrics, Sample
from experiments.emulation.watch import TraceWatch
from experiments.folder import Folder
from experiments.nemesis import Grudge
from experiments.scenario import Impair, Maelstrom, Scenario, directions
from experiments.stage import PORT, Death, WorldError, configuration
from topologies.impairment import Impairment
from topologies.machine import find, probe_hardware, require
from topologies.privileges import obstacles, probe
from topologies.sandbox import PrivilegeError, Sandbox

#: How often the nodes' traces are read while the workload runs.
LOOKS_A_SECOND = 4

#: How long a signal may take to have its effect, in seconds.
SIGNALLED_S = 0.02

#: How long building, settling and stopping may take before the run is given up, in seconds (times time_scale).
PATIENCE = 60.0


def require_machine() -> None:
    """Raise `PrivilegeError` or `MissingTool` where no world can be emulated, with what to do about it."""
    lacking = obstacles(probe(), tun=True)
    if lacking:
        raise PrivilegeError("; ".join(lacking))
    require("ip", "tc", "ovs-vswitchd", "ovsdb-server")


def describe_machine() -> dict[str, Any]:
    """The machine and the versions of what matters, for the manifest."""
    packages = ("mininet", "ryu", "pyroute2", "msgspec", "uvloop")
    versions = {name: metadata.version(name) for name in packages}
    versions["python"] = platform.python_version()
    versions["openvswitch"] = _first_line("ovs-vswitchd", "--version").rpartition(" ")[2]
    versions["iproute2"] = _first_line("ip", "-V").rpartition("-")[2]
    return {"machine": msgspec.to_builtins(probe_hardware()), "versions": versions}


def _first_line(*command: str) -> str:
    program = find(command[0])
    assert program is not None, "required before"
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].strip()


#: What a node ends with that broke, or found that what it or others had promised was not so (`apps.process.Halt`).
BROKE = (os.EX_SOFTWARE, os.EX_DATAERR)


class EmulatedWorld:
    """What strikes and runs need of the fabric (`experiments.stage.Stage`), and the processes in its hosts."""

    def __init__(self, scenario: Scenario, placement: dict[str, str], folder: Folder, live: LiveCheck) -> None:
        self.scenario = scenario
        self.plan = scenario.plan
        self.placement = placement
        self._where = {name: scenario.endpoint(host).name for name, host in placement.items()}
        self.nodes = scenario.system.names
        self.clients = scenario.workload.names
        self.folder = folder
        self.watch = TraceWatch(folder.path, self.nodes, live)
        self._alive: set[str] = set()
        self._incarnations: dict[str, int] = {}
        self._killed: Counter[str] = Counter()  # by how many faults at the moment
        self._expected_exits: set[str] = set()
        self._died: list[WorldError] = []
        self._deaths: list[Death] = []
        self._exits: dict[str, asyncio.Future[int]] = {}
        self._operators: list[str] = []
        self._busy: list[float] = []
        self._capturing: list[str] = []
        self._epoch = 0
        self._sampler: asyncio.Task[None] | None = None

    # ---- coming to life ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> dict[str, Any]:
        """Build the fabric, start everything in it; returns what belongs into the manifest."""
        self._stack = AsyncExitStack()
        try:
            self._sandbox = await self._stack.enter_async_context(
                Sandbox(
                    Inside,
                    self.plan,
                    self.folder.path,
                    self.scenario.seed,
                    out=self.folder.path,
                    on_event=self._on_event,
                )
            )
            facts: dict[str, Any] = await self._sandbox.call("build")
            for node in self.nodes:
                await self._start_node(node)
            for client in self.clients:
                await self._start(client, 0, "clients")
            return facts
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._died.clear()
        captures = [pcap.process_of(direction) for direction in self._capturing]
        self._expected_exits.update(self.nodes, self.clients, captures, ["controller"])
        try:
            await self._stop_sampling()
            if error is None:
                await self._sandbox.call("end", [*self.nodes, *self.clients, *captures])
                await self._sandbox.call("end_switches")
        finally:
            await self._stack.aclose()
            epoch = time.time_ns() - time.monotonic_ns() + self._epoch
            pcap.annotate(self.folder.path, self._capturing, epoch)

    async def settle(self) -> dict[str, Any]:
        """Wait until every host reaches every other and the system is ready: a leader has committed in its own term, or
        everybody is connected to all nodes where none is elected.

        Returns what was measured of the impairments to come, those of the plan and those of faults, before there is
        traffic that this would disturb. Those of the plan are in force from here on.
        """
        patience = PATIENCE * self.scenario.time_scale
        await self._sandbox.call("wait_forwarding", patience)
        wanted = dict(self.plan.impairments)
        for fault in self.scenario.faults:
            if isinstance(fault, Impair):
                wanted |= dict.fromkeys(directions(self.plan, fault.links), fault.impairment)
        calibration: dict[str, Any] = await self._sandbox.call("calibrate", wanted)
        for direction, impairment in self.plan.impairments.items():
            await self._sandbox.call("impair", direction, impairment)
        deadline = time.monotonic() + patience
        system = self.scenario.system
        lacking = self._lacks_a_leader if system.elects else self._lacks_connections
        if isinstance(system, Maelstrom):
            lacking = self._lacks_binaries
        while lack := await lacking():
            self.check()
            if time.monotonic() > deadline:
                raise WorldError(
                    f"{lack} after {patience:.0f} s on an unbroken network; see {self.folder.path}/nodes/*/log"
                )
            await asyncio.sleep(0.01)
        await self._start_captures(deadline)
        return calibration

    async def _lacks_a_leader(self) -> str:
        leader = self.leader()
        settled = leader is not None and self.watch.committed[0] == self.watch.roles[leader][1]
        return "" if settled else "no leader"

    async def _lacks_connections(self) -> str:
        """Whose namespace has fewer connections to nodes than those in it dial: to all nodes, but a node to itself."""
        names = [*self.nodes, *self.clients]
        dialled = dict.fromkeys(self.placement.values(), 0)
        for name in names:
            dialled[self.placement[name]] += len(self.nodes) - (name in self.nodes)
        up: dict[str, int] = await self._sandbox.call("established", names, PORT)
        lonely = [name for name in names if up[name] < dialled[self.placement[name]]]
        return f"{', '.join(lonely)} not connected to all nodes" if lonely else ""

    async def _lacks_binaries(self) -> str:
        """Whose binary has neither answered ``init`` nor been given up (`apps.maelstrom.bridge`)."""
        if lonely := await self._lacks_connections():
            return lonely
        traces = {node: self.folder.path / "nodes" / node / "trace" / "0.ndjson" for node in self.nodes}
        silent = [
            node
            for node, path in traces.items()
            if not {b'"ev":"ready"', b'"ev":"gone"'} & set(re.findall(b'"ev":"[a-z]+"', path.read_bytes()))
        ]
        return f"the binaries of {', '.join(silent)} have not answered init" if silent else ""

    async def _start_captures(self, deadline: float) -> None:
        """Capture what the scenario asks for; returns when every tcpdump listens."""
        if self.scenario.captures:
            require("tcpdump")
            self.folder.directory("pcap")
        for direction in self.scenario.captures:
            receiver = self.plan.ends(direction)[1].node
            has_namespace = self.plan.dataplane == "routed" or receiver in {host.name for host in self.plan.hosts}
            where = receiver if has_namespace else None
            argv = pcap.recorder(self.plan, self.folder.path, direction)
            log = pcap.log_of(self.folder.path, direction)
            await self._sandbox.call("spawn", pcap.process_of(direction), where, argv, log)
            self._capturing.append(direction)
        for direction in self._capturing:
            log = pcap.log_of(self.folder.path, direction)
            while "listening on" not in log.read_text(errors="replace"):
                self.check()
                if time.monotonic() > deadline:
                    raise WorldError(f"tcpdump did not begin to capture {direction}; see {log}")
                await asyncio.sleep(0.01)

    # ---- processes -----------------------------------------------------------------------------------------------

    async def _start_node(self, node: str) -> int:
        incarnation = self._incarnations[node] = self._incarnations.get(node, -1) + 1
        return await self._start(node, incarnation, "nodes")

    async def _start(self, name: str, incarnation: int, room: str, process: dict[str, Any] | None = None) -> int:
        home = self.folder.directory(room, name)
        cluster = f"{self.scenario.name}-{self.folder.path.name}"
        config = {
            **configuration(self.scenario, self.placement, name, incarnation, cluster, process),
            "data_dir": str(home / "data"),
            "trace_dir": str(home / "trace"),
        }
        path = home / f"config-{incarnation}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
        self._exits[name] = asyncio.get_running_loop().create_future()
        self._alive.add(name)
        self._expected_exits.discard(name)
        # -P: a random.py in the current directory is not what the runtime means to import. A user's own implementation
        # is found where it was found before anything was built (`experiments.implementation`).
        looking = ["env", f"PYTHONPATH={os.pathsep.join(sys.path)}"] if self.scenario.system.implementation else []
        argv = [*looking, sys.executable, "-P", "-m", "apps.runtime", str(path)]
        where = self._where.get(name) or self._where[(self.clients or self.nodes)[0]]
        pid: int = await self._sandbox.call("spawn", name, where, argv, home / "log")
        return pid

    def _on_event(self, event: tuple[str, str, int]) -> None:
        _, name, status = event
        self._alive.discard(name)
        if name in self._exits and not self._exits[name].done():
            self._exits[name].set_result(status)
        if name not in self._expected_exits:
            self._ended_by_itself(name, status)

    def _ended_by_itself(self, name: str, status: int) -> None:
        room = "nodes" if name in self.nodes else "clients" if name in self.clients else ""
        log = self.folder.path / room / name / "log" if room else self.folder.path / "fabric" / f"{name}.log"
        log = {pcap.process_of(way): pcap.log_of(self.folder.path, way) for way in self._capturing}.get(name, log)
        said = _last_line(log)
        if os.statvfs(self.folder.path).f_bavail == 0:
            why = f"no space left on device: {self.folder.path}; free some, or choose another place with --out DIR"
            self._died.append(WorldError(why, os.EX_IOERR))
        elif name in self.nodes and self._sampler is not None and (status < 0 or status in BROKE):
            # The system under test broke, not its machine: let the rest of it show what follows.
            self._deaths.append({"node": name, "t": self.clock(), "status": status, "said": said})
        else:
            ended = f"{name} ended with status {status}, though nobody ended it" + (f": {said}" if said else "")
            self._died.append(WorldError(f"{ended}; see {log}", status))

    def clock(self) -> int:
        return time.monotonic_ns()

    def check(self) -> None:
        """Raise `WorldError` if something has died that nobody killed."""
        if self._died:
            raise self._died[0]
        if self._sampler is not None and self._sampler.done():
            self._sampler.result()  # it goes on for ever, unless it cannot

    async def start_workload(self, epoch: int) -> None:
        self._metrics = Metrics(self.folder.path)
        self._epoch = epoch
        self._expected_exits.update(self.clients)
        self._sampler = asyncio.create_task(self._sample())
        await self._sandbox.call("tell", list(self.clients), f"start {epoch}")

    async def stop_workload(self) -> None:
        """Start no more operations and wait for those under way."""
        await self._sandbox.call("tell", list(self.clients), f"stop {time.monotonic_ns()}")
        patience = PATIENCE + 3 * self.scenario.workload.timeout / 1e9
        left = await self._sandbox.call("wait", list(self.clients), patience)
        if left:
            raise WorldError(
                f"{', '.join(left)} did not stop within {patience:.0f} s; see their logs in {self.folder.path}"
            )
        await self._stop_sampling()
        self._look()
        self._metrics.close()

    async def _stop_sampling(self) -> None:
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.gather(self._sampler, return_exceptions=True)

    # ---- what is measured all the while --------------------------------------------------------------------------

    async def _sample(self) -> None:
        idle = _idle_share()
        while True:
            for _ in range(LOOKS_A_SECOND):
                await asyncio.sleep(1.0 / LOOKS_A_SECOND)
                self._look()
            moment = time.monotonic_ns() - self._epoch
            samples: list[Sample] = [(moment, *sample) for sample in await self._sandbox.call("sample")]
            headroom = idle()
            self._busy.append(headroom)
            samples.append((moment, "machine", "cpu_idle_share", headroom))
            self._metrics.write(samples)

    def _look(self) -> None:
        try:
            self.watch.update(self.clock())
        except TraceError as error:
            raise WorldError(str(error)) from None

    def fidelity(self) -> dict[str, Any]:
        """What was left of the machine while the workload ran: mean and least share of idle processor time a second."""
        if not self._busy:
            return {}
        return {"cpu_headroom": sum(self._busy) / len(self._busy), "cpu_headroom_min": min(self._busy)}

    def deaths(self) -> list[Death]:
        return self._deaths

    # ---- what strikes ask for (experiments.strikes.World) --------------------------------------------------------

    def leader(self) -> str | None:
        self._look()
        return self.watch.leader(node for node in self.nodes if node in self._alive)

    async def drop(self, grudge: Grudge) -> int:
        hosts = {
            self._where[receiver]: sorted({self._where[sender] for sender in senders} - {self._where[receiver]})
            for receiver, senders in grudge.items()
        }
        handle: int = await self._sandbox.call("drop", hosts)
        return handle

    async def lift(self, handle: int) -> None:
        if handle < 0:
            await self._sandbox.call("kill", self._operators[-handle - 1])
        else:
            await self._sandbox.call("lift", handle)

    async def ask_for_members(self, voters: Sequence[str], learners: Sequence[str]) -> int:
        return await self._operate({"voters": voters, "learners": learners})

    async def ask_to_lead(self, node: str) -> int:
        """Have an operator ask for ``node`` as the leader, until it is answered or lifted."""
        # A cluster has answered by its longest election timeout, or the question was lost.
        return await self._operate({"leader": node, "timeout": self.scenario.system.timeouts[1]})

    async def _operate(self, wanted: dict[str, Any]) -> int:
        name = f"operator{len(self._operators) + 1}"
        self._operators.append(name)
        await self._start(name, 0, "operators", {"kind": "operator", **wanted})
        self._expected_exits.add(name)
        await self._sandbox.call("tell", [name], f"start {time.monotonic_ns()}")
        return -len(self._operators)

    def members(self) -> Configuration | None:
        leader = self.leader()
        found = self.watch.configurations.get(leader) if leader else None
        return found if found and found.index <= self.watch.committed[1] else None

    async def cut(self, link: str) -> int:
        handle: int = await self._sandbox.call("cut", link)
        return handle

    async def carrier(self, names: list[str]) -> dict[str, bool]:
        found: dict[str, bool] = await self._sandbox.call("carrier", names)
        return found

    async def passing(self, names: list[str]) -> dict[str, bool]:
        found: dict[str, bool] = await self._sandbox.call("passing", names)
        return found

    async def impair(self, direction: str, impairment: Impairment) -> int:
        handle: int = await self._sandbox.call("impair", direction, impairment)
        return handle

    async def observe(self, direction: str, budget_ns: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._sandbox.call("observe", direction, budget_ns)
        return found

    async def kill(self, node: str) -> int:
        self._killed[node] += 1
        self._expected_exits.add(node)
        await self._sandbox.call("kill", node)
        return await self._exits[node]

    async def restart(self, node: str) -> dict[str, Any]:
        """Starts the node, unless another fault keeps it down."""
        self._killed[node] -= 1
        started = {} if self._killed[node] else {"pid": await self._start_node(node)}
        return {**started, "incarnation": self._incarnations[node]}

    async def pause(self, node: str) -> None:
        await self._sandbox.call("signal", node, signal.SIGSTOP)

    async def resume(self, node: str) -> None:
        await self._sandbox.call("signal", node, signal.SIGCONT)

    async def is_paused(self, node: str) -> bool | None:
        """By what the kernel says of the process; a signal takes it a moment."""
        await asyncio.sleep(SIGNALLED_S)
        state: str = await self._sandbox.call("state", node)
        return None if state in ("", "Z") else state == "T"

    async def matrix(self, budget_ns: int) -> dict[str, dict[str, list[int]]]:
        found: dict[str, dict[str, list[int]]] = await self._sandbox.call("matrix", self._where, budget_ns)
        return found


def _last_line(log: Path) -> str:
    """What a process said last; empty if it said nothing."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _idle_share() -> Any:
    """A function that tells the share of all processors' time that was idle since its last call (proc(5))."""

    def read() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return fields[3] + fields[4], sum(fields[:8])

    last = read()

    def share() -> float:
        nonlocal last
        idle, total = read()
        (was_idle, was_total), last = last, (idle, total)
        return (idle - was_idle) / max(total - was_total, 1)

    return share
