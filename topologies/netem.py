"""The backend ``netem``: impairs link directions by the kernel's own queueing discipline, where the kernel has it.

Which commands an impairment takes is decided by pure functions here. A switch's direction gets its netem at the egress
of the sending interface. A host's does not: there the sender's TCP would see its small queue fill up and the drops as
its own (tcp_small_queues), so what arrives at the switch's end is sent through an ``ifb`` device that has the netem.
netem and htb are never stacked; the rate is netem's own.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
import zlib
from itertools import pairwise
from pathlib import Path

import msgspec

from topologies.impair import Attachment, Counters, Direction, ImpairError, inside, run
from topologies.impairment import Impairment, gilbert, quantiles

#: The smallest Ethernet frame, without its checksum: what a queue of bytes holds most of.
_SMALLEST_FRAME = 60

#: Packets that may be in flight on a link without a rate: a second of a million a second.
_UNLIMITED = 1_000_000

#: What the table of an impairment's samples is called to tc, which looks for it in ``$TC_LIB_DIR``.
TABLE = "samples"

#: netem takes a seed from Linux 6.6 and iproute2 6.6 on.
SEED_FROM = (6, 6)


def netem_command(interface: str, impairment: Impairment, seed: int | None = None) -> tuple[str, ...]:
    """The ``tc`` command that puts ``impairment`` on what leaves ``interface``, or replaces the one there.

    ``seed`` must be ``None`` where the kernel or ``tc`` is older than `SEED_FROM`. See tc-netem(8).
    """
    words = ["tc", "qdisc", "replace", "dev", interface, "root", "netem", "limit", str(netem_limit(impairment))]
    if impairment.delay or impairment.jitter:
        # Without a delay netem refuses to reorder.
        words += ["delay", _microseconds(max(impairment.delay, 1000))]
        if impairment.jitter:
            words.append(_microseconds(impairment.jitter))
            if impairment.distribution != "uniform":  # which is what netem does without a table
                words += ["distribution", TABLE if impairment.samples else impairment.distribution]
    if impairment.loss:
        words += ["loss", *_loss(impairment)]
    if impairment.reorder and (impairment.delay or impairment.jitter):
        words += ["reorder", _percent(impairment.reorder)]
    if impairment.duplicate:
        words += ["duplicate", _percent(impairment.duplicate)]
    if impairment.corrupt:
        words += ["corrupt", _percent(impairment.corrupt)]
    if impairment.rate:
        words += ["rate", f"{impairment.rate}bit"]
    if seed is not None:
        words += ["seed", str(seed)]
    return tuple(words)


def distribution_table(impairment: Impairment) -> str:
    """The file ``TABLE.dist`` for the samples of an impairment, which tc reads: 4,096 draws, equally likely.

    They are in units of the jitter, times 8,192, in 16 bits (iproute2, netem/maketable.c): what lies further than 4
    deviations from the mean is as far as that.
    """
    points = quantiles(impairment.distribution, impairment.samples)
    draws = ((low + high) / 2 for low, high in pairwise(points))
    return "\n".join(str(max(-32768, min(32767, round(draw * 8192)))) for draw in draws) + "\n"


def netem_limit(impairment: Impairment) -> int:
    """How many packets netem must be allowed to hold: those in its queue and, as it counts both, those in flight."""
    if not impairment.rate:
        return _UNLIMITED
    longest = impairment.delay + 4 * impairment.jitter
    in_flight = impairment.rate * longest / 8e9 / _SMALLEST_FRAME
    return min(_UNLIMITED, impairment.queue + math.ceil(in_flight))


def _loss(impairment: Impairment) -> list[str]:
    if impairment.burst and impairment.loss < 1:
        start, end = gilbert(impairment)
        return ["gemodel", _percent(start), _percent(end)]
    return ["random", _percent(impairment.loss)]


def _microseconds(nanoseconds: int) -> str:
    """tc does not know nanoseconds here, but fractions."""
    return f"{nanoseconds / 1000:.3f}".rstrip("0").rstrip(".") + "us"


def _percent(share: float) -> str:
    return f"{share * 100:.7g}%"


def detour_commands(interface: str, ifb: str) -> tuple[tuple[str, ...], ...]:
    """What sends everything that arrives at ``interface`` through the device ``ifb`` first."""
    return (
        ("ip", "link", "add", ifb, "type", "ifb"),
        ("ip", "link", "set", ifb, "up"),
        ("tc", "qdisc", "add", "dev", interface, "clsact"),
        (
            *("tc", "filter", "add", "dev", interface, "ingress", "pref", "1", "protocol", "all"),
            *("u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", ifb),
        ),
    )


def ifb_name(interface: str) -> str:
    """A name of at most 15 characters for the detour of ``interface``."""
    return f"ifb-{zlib.crc32(interface.encode()):08x}"


def parse_counters(shown: bytes | str) -> Counters:
    """What ``tc -s -j qdisc show dev …`` says of the netem there. Raises `ImpairError` when there is none."""
    try:
        qdiscs = msgspec.json.decode(shown, type=list[_Qdisc])
    except msgspec.DecodeError as error:
        raise ImpairError(f"tc printed something else than its qdiscs: {error}") from error
    for qdisc in qdiscs:
        if qdisc.kind == "netem":
            # A packet lost to an impairment and one that found the queue full are one number to netem.
            dropped = {"netem": qdisc.drops} if qdisc.drops else {}
            packets = qdisc.packets + qdisc.qlen + qdisc.drops
            return Counters(backend="netem", packets=packets, bytes=qdisc.bytes, dropped=dropped, held=qdisc.qlen)
    raise ImpairError("the interface has no netem any more: something replaced its queueing discipline")


class _Qdisc(msgspec.Struct):
    kind: str
    bytes: int = 0
    packets: int = 0
    drops: int = 0
    qlen: int = 0


def netem_missing() -> str | None:
    """Why netem cannot be used on this machine; ``None`` when it can. Tries it in a namespace made for that."""
    command = ["unshare", "--net", *netem_command("lo", Impairment(delay=1_000_000))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return f"there is no {error.filename} command"
    return None if done.returncode == 0 else f"the kernel has no netem ({done.stderr.strip().splitlines()[0]})"


def takes_seed(kernel_release: str, tc_version: str) -> bool:
    """Whether a kernel (``uname -r``) and an iproute2 (``tc -V``) both know netem's seed."""
    versions = (re.match(r"(\d+)\.(\d+)", kernel_release), re.search(r"iproute2-(\d+)\.(\d+)", tc_version))
    return all(found is not None and (int(found[1]), int(found[2])) >= SEED_FROM for found in versions)


class NetemBackend:
    """Impairs directions by netem. A direction's packets under way are lost when its netem is removed."""

    name = "netem"

    def __init__(self) -> None:
        version = subprocess.run(["tc", "-V"], capture_output=True, text=True, check=False).stdout
        self._seeded = takes_seed(os.uname().release, version)
        self._seeds: dict[Direction, int] = {}

    def apply(self, direction: Direction, impairment: Impairment, seed: int) -> None:
        if direction in self._seeds:
            raise ImpairError(f"{direction.name} is impaired already; change what it is")
        self._seeds[direction] = seed
        try:
            if _behind_a_host(direction):
                ifb = ifb_name(direction.receiver.interface)
                for command in detour_commands(direction.receiver.interface, ifb):
                    run(command)
            self.change(direction, impairment)
        except ImpairError:
            self._remove(direction)
            raise

    def change(self, direction: Direction, impairment: Impairment) -> None:
        seed = self._lookup(direction) if self._seeded else None
        if impairment.corrupt and _behind_a_host(direction):
            # netem damages a copy, and skb_copy() forgets mac_len, by which an ifb gives a packet back as it was: the
            # kernel panics in Open vSwitch (seen with Linux 6.1, skb_under_panic in netdev_frame_hook).
            raise ImpairError(
                f"netem cannot damage packets on {direction.name}, what a host sends, without crashing the kernel; "
                "damage them between switches, or ask for the backend wire"
            )
        where = _netem_place(direction)
        with inside(where), tempfile.TemporaryDirectory() as folder:
            if impairment.samples:
                Path(folder, f"{TABLE}.dist").write_text(distribution_table(impairment))
            environment = {**os.environ, "TC_LIB_DIR": folder} if impairment.samples else None
            run(netem_command(where.interface, impairment, seed), environment)

    def clear(self, direction: Direction) -> None:
        self._lookup(direction)
        problems = self._remove(direction)
        if problems:
            raise problems[0]

    def counters(self, direction: Direction) -> Counters:
        self._lookup(direction)
        where = _netem_place(direction)
        with inside(where):
            return parse_counters(run(["tc", "-s", "-j", "qdisc", "show", "dev", where.interface, "root"]))

    def measured(self, direction: Direction) -> Direction:
        """What comes back from an ifb is not shown to packet sockets again: its packets are caught leaving the ifb."""
        if direction in self._seeds and _behind_a_host(direction):
            return msgspec.structs.replace(direction, receiver=_netem_place(direction))
        return direction

    def close(self) -> None:
        for direction in list(self._seeds):
            self.clear(direction)

    def _lookup(self, direction: Direction) -> int:
        try:
            return self._seeds[direction]
        except KeyError:
            raise ImpairError(f"{direction.name} is not impaired") from None

    def _remove(self, direction: Direction) -> list[ImpairError]:
        del self._seeds[direction]
        where = _netem_place(direction)
        commands: list[tuple[str, ...]] = [("tc", "qdisc", "del", "dev", where.interface, "root")]
        if _behind_a_host(direction):
            commands = [
                ("tc", "qdisc", "del", "dev", direction.receiver.interface, "clsact"),
                ("ip", "link", "del", where.interface),
            ]
        problems = []
        with inside(where):
            for command in commands:
                try:
                    run(command)
                except ImpairError as error:
                    problems.append(error)
        return problems


def _behind_a_host(direction: Direction) -> bool:
    """Only hosts' interfaces are in namespaces of their own; the switches share one."""
    return direction.sender.netns is not None and direction.receiver.netns is None


def _netem_place(direction: Direction) -> Attachment:
    if _behind_a_host(direction):
        return Attachment(ifb_name(direction.receiver.interface), direction.receiver.netns)
    return direction.sender
