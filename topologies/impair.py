"""Impairing link directions while the fabric runs: one interface, whichever part of the kernel or of ours does it.

A backend puts one `Impairment` on one direction, changes it, lifts it and counts. `Impairments` knows the plan's names,
lets impairments of the same direction overlap in time, and can be used as a context manager, so that none is left
behind.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, Protocol

import msgspec

from topologies import netns
from topologies.impairment import Impairment
from topologies.plan import FabricPlan


class ImpairError(Exception):
    """An impairment could not be put on a link; the message says what was refused, by whom, and the remedy."""


class Attachment(msgspec.Struct, frozen=True):
    """One end of a link: an interface, and the name of the network namespace it is in (``None``: this one)."""

    interface: str
    netns: str | None = None


class Direction(msgspec.Struct, frozen=True):
    """One direction of a link, named ``leaf1>spine1``: where its frames leave, and where they arrive."""

    name: str
    sender: Attachment
    receiver: Attachment


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a direction's packets since it was impaired.

    ``packets`` and ``bytes`` count what the sending end sent into the impairment, ``dropped`` what was lost there by
    cause. Delays are nanoseconds as realised, from a packet's coming to its going, ``None`` where the backend cannot
    tell; ``late`` counts packets that left more than 1 ms after their time, ``late_mean`` and ``late_max`` by how much.
    """

    backend: str
    packets: int
    bytes: int
    dropped: dict[str, int]
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    held: int = 0
    delay_mean: int | None = None
    delay_p50: int | None = None
    delay_p99: int | None = None
    late: int | None = None
    late_mean: int | None = None
    late_max: int | None = None

    @property
    def loss(self) -> float:
        """The share of packets dropped for any cause; 0 when there were none."""
        return sum(self.dropped.values()) / self.packets if self.packets else 0.0


class Backend(Protocol):
    """What puts impairments into the kernel, or beside it. Directions are known by their names."""

    name: str

    def apply(self, direction: Direction, impairment: Impairment, seed: int) -> None:
        """Impair ``direction``, which must not be impaired already. Raises `ImpairError`."""
        ...

    def change(self, direction: Direction, impairment: Impairment) -> None:
        """Give an impaired direction another impairment; packets under way keep their times. Raises `ImpairError`."""
        ...

    def clear(self, direction: Direction) -> None:
        """Lift the impairment. Raises `ImpairError`."""
        ...

    def counters(self, direction: Direction) -> Counters:
        """What was counted since `apply`. Raises `ImpairError`."""
        ...

    def measured(self, direction: Direction) -> Direction:
        """Between which interfaces ``direction`` is to be measured: those past which its packets are impaired."""
        ...

    def close(self) -> None:
        """Lift everything."""
        ...


def direction_of(plan: FabricPlan, name: str) -> Direction:
    """The interfaces of a direction such as ``h1>leaf1``; a host's is in its named namespace, a routing switch's too.

    Raises `topologies.plan.PlanError` when the plan has no such direction.
    """
    apart = {host.name for host in plan.hosts}
    if plan.dataplane == "routed":
        apart |= {switch.name for switch in plan.switches}
    sender, receiver = (Attachment(end.interface, end.node if end.node in apart else None) for end in plan.ends(name))
    return Direction(name, sender, receiver)


def direction_seed(seed: int, direction: str) -> int:
    """A direction's own 64-bit seed, so that one seed of a scenario gives each of its links another sequence."""
    digest = hashlib.blake2b(f"{seed}/{direction}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Handle:
    """One impairment that was put on a direction, and is there until it is cleared. Compared by identity."""

    def __init__(self, direction: str, impairment: Impairment) -> None:
        self.direction = direction
        self.impairment = impairment


class Impairments:
    """The impairments of a living fabric, by the plan's names.

    Several may be put on one direction (a plan's own, then a fault's, then another's): the last one put there that has
    not been cleared is the one in force. ``seed`` is the scenario's; each direction draws from its own sequence.
    Closing it lifts all.
    """

    def __init__(self, plan: FabricPlan, backend: Backend, seed: int = 0) -> None:
        self.plan = plan
        self.backend = backend
        self.seed = seed
        self._stacks: dict[str, list[Handle]] = {}
        self._directions: dict[str, Direction] = {}

    def apply(self, direction: str, impairment: Impairment) -> Handle:
        """Put ``impairment`` on ``direction``. Raises `PlanError` for an unknown name and `ImpairError`."""
        where = self._directions.setdefault(direction, direction_of(self.plan, direction))
        stack = self._stacks.get(direction, [])
        if stack:
            self.backend.change(where, impairment)
        else:
            self.backend.apply(where, impairment, direction_seed(self.seed, direction))
        handle = Handle(direction, impairment)
        self._stacks[direction] = [*stack, handle]
        return handle

    def change(self, handle: Handle, impairment: Impairment) -> None:
        """Replace what ``handle`` stands for. Raises `ImpairError`."""
        if self._stack(handle)[-1] is handle:
            self.backend.change(self._directions[handle.direction], impairment)
        handle.impairment = impairment

    def clear(self, handle: Handle) -> None:
        """Lift what ``handle`` stands for; what it covered is in force again. Raises `ImpairError`."""
        stack = self._stack(handle)
        left = [other for other in stack if other is not handle]
        where = self._directions[handle.direction]
        if not left:
            self.backend.clear(where)
            del self._stacks[handle.direction]
            return
        if left[-1] is not stack[-1]:
            self.backend.change(where, left[-1].impairment)
        self._stacks[handle.direction] = left

    @contextmanager
    def impair(self, direction: str, impairment: Impairment) -> Iterator[Handle]:
        """``with impairments.impair("leaf1>spine1", Impairment(loss=0.1)): …``. Raises as `apply` does."""
        handle = self.apply(direction, impairment)
        try:
            yield handle
        finally:
            self.clear(handle)

    def counters(self, direction: str) -> Counters:
        """Counted since the direction was last unimpaired. Raises `ImpairError` when it is not impaired now."""
        if direction not in self._stacks:
            raise ImpairError(f"{direction} is not impaired, so nothing counts its packets")
        return self.backend.counters(self._directions[direction])

    def measured(self, direction: str) -> Direction:
        """What to give `topologies.measure` for ``direction``, impaired or not. Raises `PlanError`."""
        return self.backend.measured(direction_of(self.plan, direction))

    def in_force(self) -> dict[str, Impairment]:
        """What each impaired direction does now."""
        return {direction: stack[-1].impairment for direction, stack in self._stacks.items()}

    def close(self) -> None:
        self._stacks.clear()
        self.backend.close()

    def __enter__(self) -> Impairments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stack(self, handle: Handle) -> list[Handle]:
        stack = self._stacks.get(handle.direction, [])
        if handle not in stack:
            raise ImpairError(f"the impairment of {handle.direction} was lifted before")
        return stack


def choose_backend(
    requested: Literal["auto", "netem", "wire"] = "auto",
    *,
    datapath: Literal["kernel", "netdev"] = "netdev",
    on_exit: Callable[[str], None] | None = None,
) -> Backend:
    """The backend asked for, or for ``auto`` netem where the kernel has it and it can stand behind hosts' interfaces.

    The latter needs the kernel datapath: Open vSwitch's ``netdev`` datapath reads frames before any ingress filter.
    ``on_exit`` is told when the wire process ends unasked. Raises `ImpairError` for what this machine does not have.
    """
    from topologies.netem import NetemBackend, netem_missing
    from topologies.wire import WireBackend

    if requested == "wire":
        return WireBackend(on_exit=on_exit)
    missing = (
        "Open vSwitch's netdev datapath bypasses the ingress side of it" if datapath == "netdev" else netem_missing()
    )
    if missing is None:
        return NetemBackend()
    if requested == "netem":
        raise ImpairError(f"netem cannot be used here: {missing}; ask for the backend wire")
    return WireBackend(on_exit=on_exit)


@contextmanager
def inside(where: Attachment) -> Iterator[None]:
    """Be in the network namespace of ``where`` for the block. Raises `ImpairError` when there is none."""
    with ExitStack() as stack:
        if where.netns is not None:
            try:
                stack.enter_context(netns.inside(where.netns))
            except OSError as error:
                raise ImpairError(f"cannot enter the network namespace {where.netns}: {error.strerror}") from error
        yield


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run an iproute2 command in this thread's namespaces; its output. Raises `ImpairError` with its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        raise ImpairError(f"there is no {command[0]} command; install iproute2") from None
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or ["no reason given"]
        raise ImpairError(f"`{' '.join(command)}` failed: {complaint[0]}")
    return done.stdout


class InterfaceCounters(msgspec.Struct, frozen=True):
    """What an interface has counted since it was made."""

    rx_bytes: int
    rx_packets: int
    tx_dropped: int


def interface_counters(where: Attachment) -> InterfaceCounters:
    """Raises `ImpairError` when there is no such interface."""
    with inside(where), open("/proc/thread-self/net/dev") as table:
        for line in table:
            name, _, numbers = line.partition(":")
            if name.strip() == where.interface:
                columns = numbers.split()
                return InterfaceCounters(int(columns[0]), int(columns[1]), int(columns[11]))
    raise ImpairError(f"there is no interface {where.interface}")
