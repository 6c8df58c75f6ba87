"""The backend ``wire``: impairs link directions in user space, where the kernel has no netem or accuracy is asked for.

A tc filter at the sending interface's egress redirects every frame to a TAP device; the process ``splitbrain-wire``
(``wire.c``) holds it, drops it or lets it go to a packet socket on the same interface that skips the filter. Nothing in
the topology changes, and removing the filter ends it. This module opens what the process needs, in whatever network
namespace the interface is, and passes it over a unix socket; one process serves all directions.

Without the binary the same loop runs in Python (``wire_fallback.py``), slower.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from topologies.impair import Attachment, Counters, Direction, ImpairError, inside, interface_counters, run
from topologies.impairment import QUANTILE_STEPS, Distribution, Impairment, gilbert, quantiles

BINARY = "splitbrain-wire"

# The structs of wire.c, which both ends read in the machine's own byte order. A command is HEADER, and for ADD and SET
# SETTINGS and TABLE behind it; a reply is REPLY, and for STAT the histogram DELAYS behind it.
ADD, SET, FLUSH, STAT = 1, 2, 3, 4
HEADER = struct.Struct("=II")
SETTINGS = struct.Struct("=qqQQQQQQQQQ")
TABLE = struct.Struct(f"={QUANTILE_STEPS + 2}i")
REPLY = struct.Struct("=iI11QqqqQ")
COUNTERS = (  # in REPLY, behind an errno and whether the process runs under SCHED_FIFO
    *("packets", "bytes", "sent", "lost", "queue_full", "memory_full", "send_failed"),
    *("duplicated", "reordered", "corrupted", "held", "delay_sum", "late_sum", "late_max", "late"),
)
OCTAVES, STEPS = 33, 128
DELAYS = struct.Struct(f"={OCTAVES * STEPS}I")
TABLE_SCALE_BITS = 16

# linux/if_tun.h, linux/if_packet.h, linux/sockios.h, linux/if.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN = 1, 2, 4, 8
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS = 263, 15, 20
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFTXQLEN = 0x8913, 0x8914, 0x8943
_IFF_UP, _IFF_NOARP = 0x1, 0x80

#: Frames that may wait in a TAP for the process to be scheduled.
_TAP_QUEUE = 10_000

_PRIORITY = "1"  # of the tc filter


class Settings(msgspec.Struct, frozen=True):
    """An impairment in the numbers the loop counts in: nanoseconds, bits a second, probabilities times 2^32."""

    delay: int
    jitter: int
    rate: int
    queue: int
    seed: int
    loss: int
    burst_start: int
    burst_end: int
    duplicate: int
    reorder: int
    corrupt: int
    table: Sequence[int]


def settings_of(impairment: Impairment, seed: int) -> Settings:
    """The numbers for ``impairment`` with the direction's own ``seed``, 0 to 2^64 - 1."""
    start, end = gilbert(impairment) if impairment.burst and 0 < impairment.loss < 1 else (0.0, 0.0)
    return Settings(
        delay=impairment.delay,
        jitter=impairment.jitter,
        rate=impairment.rate,
        queue=impairment.queue,
        seed=seed,
        loss=_threshold(impairment.loss),
        burst_start=_threshold(start),
        burst_end=_threshold(end),
        duplicate=_threshold(impairment.duplicate),
        reorder=_threshold(impairment.reorder),
        corrupt=_threshold(impairment.corrupt),
        table=_table(impairment.distribution, impairment.samples),
    )


@lru_cache
def _table(distribution: Distribution, samples: tuple[int, ...]) -> tuple[int, ...]:
    return (*(round(point * 2**TABLE_SCALE_BITS) for point in quantiles(distribution, samples)), 0)


def _threshold(probability: float) -> int:
    return round(min(probability, 1.0) * 2**32)


def pack_settings(settings: Settings) -> bytes:
    numbers = msgspec.structs.astuple(settings)
    return SETTINGS.pack(*numbers[:-1]) + TABLE.pack(*settings.table)


def unpack_settings(data: bytes) -> Settings:
    values = (*SETTINGS.unpack_from(data), TABLE.unpack_from(data, SETTINGS.size))
    return Settings(**dict(zip(Settings.__struct_fields__, values, strict=True)))


def histogram_index(nanoseconds: int) -> int:
    """The place of a delay in the histogram: 128 linear steps an octave, so a value is known to within 0.8 %."""
    value = max(nanoseconds, 0)
    if value < STEPS:
        return value
    octave = value.bit_length() - 7
    return min(octave * STEPS + (value >> (octave - 1)) - STEPS, OCTAVES * STEPS - 1)


def quantile_of(histogram: Sequence[int], share: float) -> int | None:
    """The delay, in nanoseconds, that ``share`` of the histogram's packets did not exceed; ``None`` of no packets."""
    wanted = share * sum(histogram)
    seen = 0
    for index, count in enumerate(histogram):
        seen += count
        if count and seen >= wanted:
            octave, step = divmod(index, STEPS)
            if octave == 0:
                return step
            width = 1 << (octave - 1)
            return (STEPS + step) * width + width // 2
    return None


def counters_of(reply: bytes, tap_dropped: int = 0) -> Counters:
    """What a reply to STAT says. ``tap_dropped``: frames lost because the process did not fetch them in time."""
    counted = dict(zip(COUNTERS, REPLY.unpack_from(reply)[2:], strict=True))
    histogram = DELAYS.unpack_from(reply, REPLY.size)
    sent = counted["sent"]
    dropped = {
        "loss": counted["lost"],
        "queue": counted["queue_full"],
        "memory": counted["memory_full"],
        "interface": counted["send_failed"],
        "overload": tap_dropped,
    }
    return Counters(
        backend="wire",
        packets=counted["packets"] + tap_dropped,
        bytes=counted["bytes"],
        dropped={cause: count for cause, count in dropped.items() if count},
        duplicated=counted["duplicated"],
        reordered=counted["reordered"],
        corrupted=counted["corrupted"],
        held=counted["held"],
        delay_mean=counted["delay_sum"] // sent if sent else None,
        delay_p50=quantile_of(histogram, 0.5),
        delay_p99=quantile_of(histogram, 0.99),
        late=counted["late"],
        late_mean=counted["late_sum"] // sent if sent else None,
        late_max=counted["late_max"],
    )


def find_binary() -> str | None:
    """The path of the compiled loop: beside this Python, else on the PATH."""
    beside = Path(sys.executable).parent / BINARY
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(BINARY)


class _Line(msgspec.Struct, frozen=True):
    """What was opened for a sending interface: its number in the process, its TAP device."""

    number: int
    tap: int
    tap_name: str


class _Applied(msgspec.Struct, frozen=True):
    seed: int
    dropped_before: int  # by the TAP device, in earlier uses


class WireBackend:
    """Impairs directions by a wire process, which is started with the first and lives until `close`.

    ``command`` is what runs the loop, for tests; by default the compiled one, else the Python one with a warning.
    ``on_exit`` is called in the running asyncio loop, with a sentence, when the process ends unasked: from then on the
    impaired directions pass nothing.
    """

    def __init__(self, *, command: Sequence[str] | None = None, on_exit: Callable[[str], None] | None = None) -> None:
        self.name = "wire" if command or find_binary() else "wire, in Python"
        self._command = command
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._watching: asyncio.AbstractEventLoop | None = None
        self._lines: dict[Attachment, _Line] = {}
        self._applied: dict[Direction, _Applied] = {}
        #: Whether the process runs under SCHED_FIFO, which keeps delays exact on a busy machine; known once it runs.
        self.realtime = False

    @property
    def pid(self) -> int | None:
        """The wire process, while there is one."""
        return self._process.pid if self._process else None

    def apply(self, direction: Direction, impairment: Impairment, seed: int) -> None:
        if direction in self._applied:
            raise ImpairError(f"{direction.name} is impaired already; change what it is")
        self._start()
        where = direction.sender
        line = self._lines.get(where)
        if line is None:
            line = self._lines[where] = self._open(where, impairment, seed)
        else:
            self._set(line, impairment, seed)
        with inside(where):
            _redirect(where.interface, line.tap_name)
        self._applied[direction] = _Applied(seed, _frames_dropped(where, line))

    def change(self, direction: Direction, impairment: Impairment) -> None:
        self._set(self._lookup(direction), impairment, self._applied[direction].seed)

    def clear(self, direction: Direction) -> None:
        """Lift the impairment. Packets that are held leave at once, in the order they would have.

        The TAP stays until `close`: removing one takes the kernel 10 ms, in which other directions' packets would be
        late, and without the filter nothing comes to it.
        """
        line = self._lookup(direction)
        del self._applied[direction]
        with inside(direction.sender):
            run(["tc", *_filter("del", direction.sender.interface)])
        self._request(FLUSH, line.number)

    def measured(self, direction: Direction) -> Direction:
        return direction

    def counters(self, direction: Direction) -> Counters:
        line = self._lookup(direction)
        dropped = _frames_dropped(direction.sender, line) - self._applied[direction].dropped_before
        return counters_of(self._request(STAT, line.number), dropped)

    def close(self) -> None:
        try:
            for direction in list(self._applied):
                self.clear(direction)
        finally:
            self._stop()
            for line in self._lines.values():
                os.close(line.tap)
            self._lines.clear()

    def _lookup(self, direction: Direction) -> _Line:
        if direction not in self._applied:
            raise ImpairError(f"{direction.name} is not impaired")
        return self._lines[direction.sender]

    def _open(self, where: Attachment, impairment: Impairment, seed: int) -> _Line:
        with inside(where), _open_packet_socket(where.interface) as out:
            tap, tap_name = _open_tap()
            line = _Line(len(self._lines) + 1, tap, tap_name)
            try:
                fcntl.ioctl(tap, _TUNSETOFFLOAD, _offloads(impairment))
                self._request(ADD, line.number, pack_settings(settings_of(impairment, seed)), (tap, out.fileno()))
            except BaseException:
                os.close(tap)
                raise
        return line

    def _set(self, line: _Line, impairment: Impairment, seed: int) -> None:
        fcntl.ioctl(line.tap, _TUNSETOFFLOAD, _offloads(impairment))
        self._request(SET, line.number, pack_settings(settings_of(impairment, seed)))

    # -- the process

    def _start(self) -> None:
        if self._process is not None:
            return
        command = self._command
        if command is None and (binary := find_binary()):
            command = [binary]
        if command is None:
            warnings.warn(
                f"{BINARY} is not there, so links are impaired by a slower loop in Python; the set-up script builds it",
                RuntimeWarning,
                stacklevel=4,
            )
            command = [sys.executable, "-m", "topologies.wire_fallback"]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen([*command, str(theirs.fileno())], pass_fds=[theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ImpairError(f"cannot start {command[0]}: {error.strerror}") from error
        self._control = ours
        if self._on_exit is not None:
            try:
                self._watching = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._watching.add_reader(ours, self._exited)

    def _stop(self) -> None:
        if self._watching is not None and self._control is not None and not self._watching.is_closed():
            self._watching.remove_reader(self._control)
        self._watching = None
        if self._control is not None:
            self._control.close()  # which ends the process
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _exited(self) -> None:
        """Outside of a request the process never speaks: what made its socket readable is its end."""
        if self._watching is not None and self._control is not None:
            self._watching.remove_reader(self._control)
            self._watching = None
        if self._on_exit is not None:
            self._on_exit(self._epitaph())

    def _epitaph(self) -> str:
        assert self._process is not None
        try:
            status = f"status {self._process.wait(timeout=1)}"
        except subprocess.TimeoutExpired:
            status = "its socket closed"
        names = ", ".join(direction.name for direction in self._applied)
        return f"the wire process ended unasked ({status}); these directions pass nothing: {names or 'none'}"

    def _request(self, verb: int, number: int, body: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        if self._control is None:
            raise ImpairError("the wire process is not running")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._control.sendmsg([HEADER.pack(verb, number), body], rights)
            reply = self._control.recv(REPLY.size + DELAYS.size)
        except OSError:
            reply = b""
        if not reply:
            raise ImpairError(self._epitaph())
        error, realtime = REPLY.unpack_from(reply)[:2]
        self.realtime = bool(realtime)
        if error:
            raise ImpairError(f"the wire process refused: {os.strerror(error)}")
        return reply


def _offloads(impairment: Impairment) -> int:
    """What the kernel may leave undone in frames it gives us.

    Where packets are decided on one by one, it segments them before; where they are damaged, it also writes checksums,
    since one written later would cover the damage up.
    """
    if impairment.corrupt:
        return 0
    if impairment.needs_packets:
        return _TUN_F_CSUM
    return _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN


def _open_tap() -> tuple[int, str]:
    """A TAP device in this thread's network namespace that is up and says nothing of its own; its name."""
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImpairError(
            f"cannot open /dev/net/tun: {error.strerror}; the backend wire needs the tun module and access to it"
        ) from error
    try:
        request = struct.pack("16sH14x", b"wire%d", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        name = fcntl.ioctl(tap, _TUNSETIFF, request)[:16].rstrip(b"\0").decode()
        ipv6 = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        if ipv6.exists():  # its router solicitations would travel on the link
            ipv6.write_text("1")
        packed = name.encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            fcntl.ioctl(control, _SIOCSIFTXQLEN, struct.pack("16si12x", packed, _TAP_QUEUE))
            flags = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s16x", packed)))[1]
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", packed, flags | _IFF_UP | _IFF_NOARP))
    except OSError as error:
        os.close(tap)
        raise ImpairError(f"cannot create a TAP device: {error.strerror}; it takes CAP_NET_ADMIN") from error
    return tap, name


def _open_packet_socket(interface: str) -> socket.socket:
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # protocol 0: it receives nothing
    try:
        out.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        out.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        out.bind((interface, 0))
    except OSError as error:
        out.close()
        raise ImpairError(f"cannot send on interface {interface}: {error.strerror}") from error
    return out


def _filter(verb: str, interface: str) -> list[str]:
    return ["filter", verb, "dev", interface, "egress", "pref", _PRIORITY, "protocol", "all", "u32"]


def _redirect(interface: str, tap_name: str) -> None:
    match = ["match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", tap_name]
    add = [*_filter("add", interface), *match]
    try:
        run(["tc", *add])
    except ImpairError:  # it has no clsact qdisc yet; one that is there stays when its filter goes
        run(["tc", "qdisc", "add", "dev", interface, "clsact"])
        run(["tc", *add])


def _frames_dropped(where: Attachment, line: _Line) -> int:
    """Frames that the TAP device could not queue for the process."""
    return interface_counters(Attachment(line.tap_name, where.netns)).tx_dropped
