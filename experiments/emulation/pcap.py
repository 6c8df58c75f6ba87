"""Captures of a run: what every direction delivered, in files Wireshark opens, with the faults written into them.

tcpdump records at the receiving end, since that is where impaired frames can be seen as they came; its file is turned
into pcapng (draft-ietf-opsawg-pcapng), which has comments. What reads and writes bytes here is pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from experiments.checking.fault_record import FaultRecord, read_faults
from topologies.plan import FabricPlan

#: 16 MiB for what tcpdump has not read yet, in its unit.
_BUFFER_KIB = 16_384

# pcap-savefile(5): magic numbers for microseconds and nanoseconds, in either byte order.
_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
# draft-ietf-opsawg-pcapng §4: block types, and their options.
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _LENGTH_UNKNOWN = 0x1A2B3C4D, 0xFFFFFFFFFFFFFFFF
_COMMENT, _APPLICATION, _NAME, _RESOLUTION = 1, 4, 2, 9
_NANOSECONDS = b"\x09"
_LONGEST_OPTION = 0xFFFF


class CaptureError(ValueError):
    """A file that is no capture; the message says which and why."""


class Packet(msgspec.Struct, frozen=True, gc=False):
    """A frame as it was captured: nanoseconds since 1970, its length on the wire, and what was kept of it."""

    time: int
    length: int
    data: bytes


class Capture(msgspec.Struct, frozen=True):
    """``link_type`` as in pcap-linktype(7); ``longest`` is how much of a frame is kept at most."""

    link_type: int
    longest: int
    packets: Iterator[Packet]


Note = tuple[int, str]


def file_of(run: Path, direction: str) -> Path:
    """Where the capture of ``leaf1>spine2`` is: ``pcap/leaf1-to-spine2.pcapng``."""
    return run / "pcap" / f"{direction.replace('>', '-to-')}.pcapng"


def raw_file_of(run: Path, direction: str) -> Path:
    """Where tcpdump writes until the run is over."""
    return file_of(run, direction).with_suffix(".pcap")


def log_of(run: Path, direction: str) -> Path:
    """What tcpdump says of itself."""
    return file_of(run, direction).with_suffix(".log")


def process_of(direction: str) -> str:
    """What the process that captures a direction is called in the run's metrics and messages."""
    return f"tcpdump {direction}"


def recorder(plan: FabricPlan, run: Path, direction: str) -> list[str]:
    """The command that captures a direction, in the namespace of its receiving end; SIGTERM ends it."""
    return [
        *("tcpdump", "-i", plan.ends(direction)[1].interface, "-Q", "in", "-n", "-U", "-Z", "root"),
        *("-B", str(_BUFFER_KIB), "--time-stamp-precision=nano", "-w", str(raw_file_of(run, direction))),
    ]


def annotate(run: Path, capturing: Sequence[str], epoch: int) -> None:
    """Turn what tcpdump wrote of each direction into pcapng, with the faults of the run as comments.

    ``epoch`` is when the workload started, in nanoseconds since 1970. Directions of which there is nothing are passed
    over.
    """
    faults = read_faults(run / "faults.jsonl")
    for direction in capturing:
        raw = raw_file_of(run, direction)
        if not raw.exists() or raw.stat().st_size == 0:
            continue
        with raw.open("rb") as source, file_of(run, direction).open("wb") as target:
            said = tcpdumps_losses(log_of(run, direction).read_text(errors="replace"))
            capture = read_pcap(source, str(raw))
            comment = describe(run.parent.name, direction, epoch, faults, said)
            target.writelines(write_pcapng(capture, direction, comment, notes(faults, epoch)))
        raw.unlink()
        log_of(run, direction).unlink()


def tcpdumps_losses(text: str) -> str:
    """What tcpdump says at its end of frames it did not get; empty where it got no chance to."""
    found = re.search(r"(\d+) packets? dropped by kernel", text)
    return f"tcpdump was too slow for {found[1]} packets" if found else ""


def describe(name: str, direction: str, epoch: int, faults: Sequence[FaultRecord], said: str) -> str:
    """The comment of the whole capture: whose it is, and when what broke."""
    lines = [
        f"splitbrain run of {name}: what {direction} delivered, captured at the receiving end.",
        f"Times of faults count from {epoch / 1e9:.6f} s since 1970, when the workload started.",
        *(text for _, text in notes(faults, epoch)),
        *([f"{said}."] if said else []),
    ]
    return "\n".join(lines)


def notes(faults: Sequence[FaultRecord], epoch: int) -> list[Note]:
    """When each fault took hold and was lifted, in nanoseconds since 1970, with words for it; in order."""
    found: list[Note] = []
    for fault in faults:
        name = f"fault {fault.index + 1} ({fault.kind})"
        if fault.struck_at is not None:
            applied = f"{name} applied at {fault.struck_at / 1e9:.6f} s: {fault.told()}"
            found.append((epoch + fault.struck_at, applied))
        if fault.healed_at is not None:
            found.append((epoch + fault.healed_at, f"{name} lifted at {fault.healed_at / 1e9:.6f} s"))
    return sorted(found)


def read_pcap(source: BinaryIO, name: str) -> Capture:
    """A capture as pcap-savefile(5) has it; its packets are read as they are asked for, up to a last one cut off.

    Raises `CaptureError`.
    """
    opening = source.read(24)
    if len(opening) < 24 or opening[:4] not in _MAGIC:
        raise CaptureError(f"{name} is no capture: it does not begin like one (pcap-savefile(5))")
    order, unit = _MAGIC[opening[:4]]
    longest, link_type = struct.unpack(f"{order}II", opening[16:24])
    head = struct.Struct(f"{order}IIII")

    def packets() -> Iterator[Packet]:
        while len(header := source.read(head.size)) == head.size:
            seconds, fraction, kept, length = head.unpack(header)
            if len(data := source.read(kept)) < kept:
                return
            yield Packet(seconds * 1_000_000_000 + fraction * unit, length, data)

    return Capture(link_type & 0xFFFF, longest, packets())


def write_pcapng(capture: Capture, interface: str, comment: str, notes: Iterable[Note] = ()) -> Iterator[bytes]:
    """The blocks of a pcapng file of one section and one ``interface``.

    ``comment`` is the section's; each of ``notes``, in order, becomes a comment of the first packet at or after it.
    """
    opening = struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN)
    yield _block(_SECTION, opening, [(_COMMENT, comment.encode()), (_APPLICATION, b"splitbrain")])
    described = struct.pack("<HHI", capture.link_type, 0, capture.longest)
    yield _block(_INTERFACE, described, [(_NAME, interface.encode()), (_RESOLUTION, _NANOSECONDS)])
    waiting = list(notes)[::-1]
    for packet in capture.packets:
        comments = []
        while waiting and waiting[-1][0] <= packet.time:
            comments.append((_COMMENT, waiting.pop()[1].encode()))
        head = struct.pack("<IIIII", 0, packet.time >> 32, packet.time & 0xFFFFFFFF, len(packet.data), packet.length)
        yield _block(_PACKET, head + _padded(packet.data), comments)


def _block(kind: int, body: bytes, options: Sequence[tuple[int, bytes]]) -> bytes:
    ends = [struct.pack("<HH", 0, 0)] if options else []
    told = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in _fitting(options)]
    whole = b"".join([body, *told, *ends])
    size = len(whole) + 12
    return struct.pack("<II", kind, size) + whole + struct.pack("<I", size)


def _fitting(options: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """An option holds 65,535 bytes; a comment cut there is still a comment, in whole characters."""
    for code, value in options:
        yield code, value[:_LONGEST_OPTION].decode(errors="ignore").encode() if len(value) > _LONGEST_OPTION else value


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
