"""A scenario's fabric, nodes and clients in virtual time: what strikes and those who play need of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import Any

import msgspec

from apps.journal import JournalCorrupt
from apps.maelstrom.bridge import Gone, Ready
from apps.process import Event, Nanoseconds, NodeId, Requested
from apps.raft import trace
from apps.raft.quorum import Configuration
from apps.runtime.config import Config
from apps.runtime.kinds import kind_of
from apps.workload import Start, Stop
from experiments.nemesis import Grudge
from experiments.scenario import Impair, Maelstrom, Scenario, directions, link_of
from experiments.simulation.binary import Binary, Pace
from experiments.simulation.disk import Disk
from experiments.simulation.driver import CONTROL, Clock, Driver
from experiments.simulation.kernel import Kernel, Loop
from experiments.simulation.network import Network
from experiments.simulation.recording import Recorder
from experiments.stage import Death, WorldError, configuration
from topologies.impairment import Impairment
from topologies.measure import Arrival, summarise, verify

#: How long settling and stopping may take before the run is given up, in virtual time (times time_scale).
PATIENCE_NS = 30_000_000_000

#: Processes are not started at the same moment: they come up within this time of each other.
START_NS = 50_000_000

#: How often the world is looked at by those who wait for something in it, in seconds.
LOOK_S = 0.01

#: The probes of a matrix, and those that measure a link: how many, and how far apart.
PROBES, PROBE_EVERY_S = 3, 0.01
LINK_PROBES, LINK_PROBE_EVERY_NS, LINK_PROBE_BYTES = 500, 2_000_000, 60


#: A trapped node dies within this time of what it did: before, while or after it is written and told.
TRAP_NS = 3_000_000


class Trap(msgspec.Struct, frozen=True):
    """A ``share`` of the nodes that do ``event``, named as in their traces, die right then, for a while at most so
    long.
    """

    event: str
    share: float
    longest_down: Nanoseconds


class SimulatedWorld:
    """Lives in the running loop, which is a `Loop`. All that happens in it is told to ``recorder``.

    Beside what every world can do to its processes there are faults here that only a simulation has: `slow_disk`,
    `fill_disk`, `set_clock`, `skew_clock`, `set_trap`, `ask_to_lead`, `flip_bit`. Each but the last returns a handle
    for `lift`.
    """

    def __init__(self, scenario: Scenario, placement: dict[str, str], recorder: Recorder) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop), "a simulated world is played in a loop of virtual time"
        self.kernel: Kernel = loop.kernel
        self.scenario = scenario
        self.plan = scenario.plan
        self.placement = placement
        self.nodes = scenario.system.names
        self.clients = scenario.workload.names
        self.recorder = recorder
        silence: Nanoseconds = configuration(scenario, placement, self.nodes[0], 0, "")["silence"]
        self._where = dict(placement)
        self.network = Network(self.kernel, self.plan, self._where, self.nodes, silence, scenario.seed, scenario.tenant)
        self.drivers: dict[NodeId, Driver] = {}
        self._disks = {node: Disk(self.kernel, Random(f"{scenario.seed} {node} disk"), node) for node in self.nodes}
        self._clocks = {node: Clock() for node in self.nodes}
        self._incarnations: dict[NodeId, int] = {}
        self._roles: dict[NodeId, tuple[str, int]] = {}
        self._configurations: dict[NodeId, Configuration] = {}
        self._committed = 0
        self._operators: dict[NodeId, dict[str, Any]] = {}
        self._committed_term = 0
        self._died: list[WorldError] = []
        self._lifts: dict[int, Callable[[], None]] = {}
        self._lifted = 0
        self._traps: dict[int, Trap] = {}
        self._trapped = 0
        self._random = Random(f"{scenario.seed} traps")
        self._killed: dict[NodeId, int] = {}
        self._binaries: dict[NodeId, Binary] = {}
        self._answered: set[NodeId] = set()
        self._deaths: list[Death] = []
        self._is_working = False
        self._refused: dict[NodeId, str] = {}

    # ---- coming to life ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> dict[str, Any]:
        random = Random(f"{self.scenario.seed} start")
        for name in (*self.nodes, *self.clients):
            self.kernel.at(self.kernel.now + int(random.random() * START_NS), self._start, name)
        return {"backends": {"network": "simulated", "impairment": "simulated", "disk": "simulated"}}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for driver in self.drivers.values():
            driver.alive = False
        for binary in self._binaries.values():
            binary.close()

    def _start(self, name: NodeId) -> None:
        incarnation = self._incarnations[name] = self._incarnations.get(name, -1) + 1
        operator = self._operators.get(name)
        settings = configuration(self.scenario, self.placement, name, incarnation, self.scenario.name, operator)
        kind = kind_of(msgspec.convert({**settings, "data_dir": "", "trace_dir": ""}, Config))
        record: Callable[[Any], None]
        if operator:

            def record(event: Any) -> None: ...
        elif kind.client:

            def record(event: Any) -> None:
                self.recorder.client(self.kernel.now, name, event)
        else:
            self.recorder.begin_node(self.kernel.now, name, incarnation, kind.protocol)

            def record(event: Any) -> None:
                self._watch(name, event)
                self.recorder.node(self.kernel.now, name, incarnation, event)

        self.drivers[name] = Driver(
            self.kernel,
            name,
            kind.make(),
            self.network.endpoint(name),
            record,
            self._on_death,
            self._disks.get(name),
            self._clocks.get(name),
            self._binary(name, kind.child) if kind.child else None,
        )
        try:
            self.drivers[name].start()
        except JournalCorrupt as damage:
            self._refused[name] = str(damage)
            self.drivers[name].stop()

    def _binary(self, name: NodeId, command: tuple[str, ...]) -> Binary:
        system = self.scenario.system
        assert isinstance(system, Maelstrom)
        if not self._binaries and system.own_timers:
            Pace(self.kernel, self._listen)

        def deliver(events: list[Event]) -> None:
            self.drivers[name].deliver(events)  # which is yet to be made

        binary = self._binaries[name] = Binary(command, deliver, system.own_timers, system.init_timeout)
        return binary

    def _listen(self) -> None:
        for binary in list(self._binaries.values()):
            binary.listen()

    def _on_death(self, name: NodeId, why: str) -> None:
        if name not in self._disks or not self._is_working:
            self._died.append(WorldError(f"{name} ended though nobody ended it: {why}"))
        elif not self._disks[name].full:
            # A finding: let the rest of the system show what follows.
            self._deaths.append({"node": name, "t": self.kernel.now, "status": os.EX_SOFTWARE, "said": why})

    def _watch(self, node: NodeId, event: Any) -> None:
        if self._traps:
            self._spring(node, event)
        match event:
            case trace.RoleChanged(role=role, term=term):
                self._roles[node] = (role, term)
            case trace.Started(term=term):
                self._roles[node] = ("follower", term)
            case trace.Committed(index=index, term=term):
                self._committed_term = max(self._committed_term, term)
                self._committed = max(self._committed, index)
            case trace.Configured(index, voters, learners, outgoing):
                self._configurations[node] = Configuration(index, voters, learners, outgoing)
            case Ready() | Gone():
                self._answered.add(node)

    def _spring(self, node: NodeId, event: Any) -> None:
        """Let the node die in a moment, if it has just done what one of the traps waits for."""
        for trap in self._traps.values():
            if str(event.__struct_config__.tag) == trap.event and self._random.random() < trap.share:
                reach = int(self._random.random() * TRAP_NS)
                self.kernel.at(self.kernel.now + reach, self._fall, (self.drivers[node], trap))

    def _fall(self, fallen: tuple[Driver, Trap]) -> None:
        driver, trap = fallen
        if driver.alive:
            self._kill(driver.name)
            down = int(self._random.random() * trap.longest_down)
            self.kernel.at(self.kernel.now + down, self._revive, driver.name)

    # ---- being played in (experiments.stage.Stage) ---------------------------------------------------------------

    def clock(self) -> Nanoseconds:
        return self.kernel.now

    def check(self) -> None:
        if self._died:
            raise self._died[0]

    async def settle(self) -> dict[str, Any]:
        """Wait until a leader has committed in its own term, or, where none is elected, until everybody is connected to
        all nodes; then measure the impairments to come.
        """
        if self.scenario.system.elects:
            await self._wait(self._has_settled, "there is no leader")
        else:
            await self._wait(self._is_connected, "not all are connected to all nodes")
        if isinstance(self.scenario.system, Maelstrom):
            await self._wait(lambda: len(self._answered) == len(self.nodes), "not all binaries have answered init")
        wanted = dict(self.plan.impairments)
        for fault in self.scenario.faults:
            if isinstance(fault, Impair):
                wanted |= dict.fromkeys(directions(self.plan, fault.links), fault.impairment)
        return {way: self._measure(way, impairment) for way, impairment in wanted.items()}

    def _has_settled(self) -> bool:
        leader = self.leader()
        return leader is not None and self._committed_term == self._roles[leader][1]

    def _is_connected(self) -> bool:
        return len(self.drivers) == len(self.nodes) + len(self.clients) and self.network.is_connected

    async def start_workload(self, epoch: Nanoseconds) -> None:
        await self._wait(lambda: len(self.drivers) == len(self.nodes) + len(self.clients), "not all have started")
        self._is_working = True
        for client in self.clients:
            self.drivers[client].deliver([Requested(CONTROL, 1, Start(epoch))])

    async def stop_workload(self) -> None:
        for client in self.clients:
            self.drivers[client].deliver([Requested(CONTROL, 2, Stop(self.kernel.now))])
        await self._wait(lambda: all(self.drivers[client].done for client in self.clients), "not all clients stopped")

    async def _wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        patience = int(PATIENCE_NS * self.scenario.time_scale) + 3 * self.scenario.workload.timeout
        deadline = self.kernel.now + patience
        while not condition():
            self.check()
            if self.kernel.now > deadline:
                raise WorldError(f"{otherwise} after {patience / 1e9:.0f} s of virtual time")
            await asyncio.sleep(LOOK_S)

    def deaths(self) -> list[Death]:
        return self._deaths

    def fidelity(self) -> dict[str, Any]:
        return {}

    # ---- what strikes ask for (experiments.strikes.World) --------------------------------------------------------

    def leader(self) -> str | None:
        leading = [
            (term, node) for node, (role, term) in self._roles.items() if role == "leader" and self.drivers[node].alive
        ]
        return max(leading)[1] if leading else None

    # ---- and what only a simulation can do, each returning a handle for `lift` -----------------------------------

    def slow_disk(self, node: NodeId, factor: float) -> int:
        """Syncs take ``factor`` times as long; of several, the last one counts until all are lifted."""
        disk = self._disks[node]
        disk.slowness = factor
        return self._held(lambda: setattr(disk, "slowness", 1.0))

    def fill_disk(self, node: NodeId) -> int:
        """The next write ends the node; lifted, there is room again, and the node is started if it has ended."""
        disk = self._disks[node]
        disk.full = True

        def empty() -> None:
            disk.full = False
            if not self.drivers[node].alive and not self._killed.get(node):
                self._start(node)

        return self._held(empty)

    def flip_bit(self, node: NodeId) -> str:
        """One bit of the log of a node that is not running changes, for good; says what that is."""
        return self._disks[node].flip()

    def set_clock(self, node: NodeId, rate: float) -> int:
        """The node's clocks run ``rate`` times as fast as time from now on; lifted, as fast again."""
        clock = self._clocks[node]
        clock.set_rate(self.kernel.now, rate)
        return self._held(lambda: clock.set_rate(self.kernel.now, 1.0))

    def skew_clock(self, node: NodeId, offset: Nanoseconds, period: Nanoseconds) -> int:
        """The node's time of day is off by ``offset``, until that is lifted; its monotonic clock goes on. With a
        ``period``, it jumps there and back after each.
        """
        clock = self._clocks[node]
        skew = clock.skew(self.kernel.now, offset, period)
        return self._held(lambda: clock.set_right(skew))

    def set_trap(self, trap: Trap) -> int:
        """Nodes die of what they do, until it is lifted; they are started again all the same."""
        self._trapped += 1
        number = self._trapped
        self._traps[number] = trap

        def lift() -> None:
            del self._traps[number]

        return self._held(lift)

    def _held(self, lift: Callable[[], None]) -> int:
        # Apart from the network's own handles, which count up from 1.
        handle = -1 - len(self._lifts) - self._lifted
        self._lifts[handle] = lift
        return handle

    async def drop(self, grudge: Grudge) -> int:
        return self.network.drop(grudge)

    async def cut(self, link: str) -> int:
        return self.network.cut(link)

    async def impair(self, direction: str, impairment: Impairment) -> int:
        return self.network.impair(direction, impairment)

    async def lift(self, handle: int) -> None:
        if handle in self._lifts:
            self._lifted += 1
            self._lifts.pop(handle)()
        else:
            self.network.lift(handle)

    async def carrier(self, names: list[str]) -> dict[str, bool]:
        return {name: self.network.carrier(name) for name in names}

    async def passing(self, names: list[str]) -> dict[str, bool]:
        found = {}
        for name in names:
            impairment = self.network.lane(name).impairment or Impairment()
            found[name] = (
                self.network.carrier(link_of(self.plan, name)) and self._measure(name, impairment)["arrived"] > 0
            )
        return found

    async def kill(self, node: str) -> int:
        self._kill(node)
        return -signal.SIGKILL

    def _kill(self, node: NodeId) -> None:
        self._killed[node] = self._killed.get(node, 0) + 1
        if self.drivers[node].alive:
            self.drivers[node].stop()

    async def restart(self, node: str) -> dict[str, Any]:
        """Starts the node, unless another fault keeps it down; if it refuses, why."""
        self._revive(node)
        refused = {"refused": self._refused[node]} if node in self._refused else {}
        return {"incarnation": self._incarnations[node], **refused}

    def _revive(self, node: NodeId) -> None:
        self._killed[node] -= 1
        if not self._killed[node] and not self.drivers[node].alive:
            self._start(node)

    async def ask_for_members(self, voters: Sequence[str], learners: Sequence[str]) -> int:
        return self._operate({"voters": voters, "learners": learners})

    async def ask_to_lead(self, node: NodeId) -> int:
        """Have an operator ask for ``node`` as the leader, until it is answered or lifted."""
        # A cluster has answered by its longest election timeout, or the question was lost.
        return self._operate({"leader": node, "timeout": self.scenario.system.timeouts[1]})

    def _operate(self, wanted: dict[str, Any]) -> int:
        name = f"operator{len(self._operators) + 1}"
        self._operators[name] = {"kind": "operator", **wanted}
        self._where[name] = self.placement[(self.clients or self.nodes)[0]]
        self._start(name)
        self.drivers[name].deliver([Requested(CONTROL, 1, Start(self.kernel.now))])
        return self._held(self.drivers[name].stop)

    def members(self) -> Configuration | None:
        leader = self.leader()
        found = self._configurations.get(leader) if leader else None
        return found if found and found.index <= self._committed else None

    async def pause(self, node: str) -> None:
        """The node takes no step until it is resumed, or killed."""
        self.drivers[node].pause()

    async def resume(self, node: str) -> None:
        self.drivers[node].resume()

    async def is_paused(self, node: str) -> bool | None:
        driver = self.drivers[node]
        return driver.is_paused if driver.alive else None

    async def matrix(self, budget_ns: int) -> dict[str, dict[str, list[int]]]:
        """Some probes, one after another, from each to each; it takes longer than any repair."""
        where = self.placement
        pairs = [(receiver, sender) for receiver in where for sender in where if sender != receiver]
        measured: dict[str, dict[str, list[int]]] = {name: {} for name in where}
        for _ in range(PROBES):
            for receiver, sender in pairs:
                cell = measured[receiver].setdefault(sender, [0, 0])
                cell[0] += 1
                cell[1] += self.network.probe(where[sender], where[receiver])
            await asyncio.sleep(PROBE_EVERY_S)
        return measured

    async def observe(self, direction: str, budget_ns: int) -> dict[str, Any]:
        impairment = self.network.lane(direction).impairment or Impairment()
        measured = self._measure(direction, impairment)
        return {"disagreements": measured.pop("disagreements"), "obtained": measured}

    def _measure(self, direction: str, impairment: Impairment) -> dict[str, Any]:
        """Send probes down a lane of the same kind, so that measuring changes nothing in the real one."""
        lane = self.network.twin(direction, impairment)
        arrivals: list[Arrival] = []
        for number in range(LINK_PROBES):
            sent = number * LINK_PROBE_EVERY_NS
            arrives = lane.cross(sent, LINK_PROBE_BYTES)
            if arrives is not None:
                arrivals.append(Arrival(number, sent, arrives))
        obtained = summarise(LINK_PROBES, LINK_PROBE_BYTES, sorted(arrivals, key=lambda arrival: arrival.received))
        facts: dict[str, Any] = {"backend": "simulated", **msgspec.to_builtins(obtained)}
        return {**facts, "disagreements": verify(impairment, obtained)}
