"""Captures are pcapng that any reader opens: checked by a strict reader of the format, and by tcpdump."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checking.fault_record import FaultRecord, Step
from experiments.emulation.pcap import (
    Capture,
    CaptureError,
    Packet,
    annotate,
    file_of,
    log_of,
    notes,
    raw_file_of,
    read_pcap,
    write_pcapng,
)

EPOCH = 1_700_000_000_000_000_000
FRAME = bytes.fromhex("0200000000020200000000010800") + bytes(46)


class Block:
    """One block of a pcapng file, taken apart as draft-ietf-opsawg-pcapng §3.1 and §3.5 say."""

    def __init__(self, data: bytes) -> None:
        self.kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert size >= 12
        assert len(data) >= size
        assert struct.unpack_from("<I", data, size - 4) == (size,)
        self.body, self.rest = data[8 : size - 4], data[size:]

    def options(self, start: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        at = start
        while at < len(self.body):
            code, length = struct.unpack_from("<HH", self.body, at)
            at += 4
            if code == 0:
                assert length == 0
                assert at == len(self.body)
                return found
            value, padding = self.body[at : at + length], self.body[at + length : at + length + -length % 4]
            assert len(value) == length
            assert padding == bytes(-length % 4)
            found.append((code, value))
            at += length + len(padding)
        assert not found, "options without an end"
        return found


def strictly_read(data: bytes) -> tuple[str, str, list[tuple[Packet, list[str]]]]:
    """The section's comment, the interface's name, and every packet with its comments."""
    section = Block(data)
    assert section.kind == 0x0A0D0D0A
    assert struct.unpack_from("<IHHq", section.body) == (0x1A2B3C4D, 1, 0, -1)
    interface = Block(section.rest)
    assert interface.kind == 1
    link_type, reserved, _ = struct.unpack_from("<HHI", interface.body)
    assert (link_type, reserved) == (1, 0)
    options = dict(interface.options(8))
    assert options[9] == b"\x09"  # nanoseconds
    packets, rest = [], interface.rest
    while rest:
        block = Block(rest)
        assert block.kind == 6
        number, high, low, kept, length = struct.unpack_from("<IIIII", block.body)
        assert number == 0
        data = block.body[20 : 20 + kept]
        comments = [value.decode() for code, value in block.options(20 + kept + -kept % 4) if code == 1]
        packets.append((Packet(high << 32 | low, length, data), comments))
        rest = block.rest
    return dict(section.options(16))[1].decode(), options[2].decode(), packets


def savefile(packets: list[Packet], order: str = "<", unit: int = 1) -> bytes:
    """The same packets as pcap-savefile(5) has them."""
    magic = 0xA1B23C4D if unit == 1 else 0xA1B2C3D4
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262_144, 1)
    for packet in packets:
        seconds, rest = divmod(packet.time, 1_000_000_000)
        head += struct.pack(f"{order}IIII", seconds, rest // unit, len(packet.data), packet.length) + packet.data
    return head


PACKETS = st.lists(
    st.builds(
        lambda time, data, more: Packet(time // 1000 * 1000, len(data) + more, data),
        st.integers(0, 2**32 * 1_000_000_000 - 1),
        st.binary(max_size=90),
        st.integers(0, 60_000),
    ),
    max_size=8,
)


@given(PACKETS, st.sampled_from("<>"), st.sampled_from([1, 1000]))
def test_packets_are_in_the_new_file_as_they_were_in_tcpdumps(packets: list[Packet], order: str, unit: int) -> None:
    capture = read_pcap(io.BytesIO(savefile(packets, order, unit)), "it")
    comment, name, found = strictly_read(b"".join(write_pcapng(capture, "leaf1>spine1", "whose it is")))
    assert (comment, name) == ("whose it is", "leaf1>spine1")
    assert [packet for packet, _ in found] == packets


@given(PACKETS.map(lambda packets: sorted(packets, key=lambda packet: packet.time)), st.data())
def test_every_note_is_a_comment_of_the_first_packet_at_or_after_it(packets: list[Packet], data: st.DataObject) -> None:
    moments = sorted(data.draw(st.lists(st.sampled_from([packet.time for packet in packets] or [0]), max_size=4)))
    told = [(moment - data.draw(st.integers(0, 1)), f"note {number}") for number, moment in enumerate(moments)]
    told.sort()
    whole = b"".join(write_pcapng(Capture(1, 262_144, iter(packets)), "it", "", told))
    found = strictly_read(whole)[2]
    for moment, text in told:
        first = next((number for number, packet in enumerate(packets) if packet.time >= moment), None)
        assert [number for number, (_, comments) in enumerate(found) if text in comments] == (
            [] if first is None else [first]
        )


def test_a_capture_cut_off_by_a_kill_keeps_its_whole_packets() -> None:
    whole = savefile([Packet(1000, 60, FRAME), Packet(2000, 60, FRAME)])
    for cut in (len(whole) - 1, len(whole) - 70):
        assert len(list(read_pcap(io.BytesIO(whole[:cut]), "it").packets)) == 1


@pytest.mark.parametrize("data", [b"", b"\n\r\r\n" + bytes(40), b"{}"])
def test_what_is_no_capture_is_refused(data: bytes) -> None:
    with pytest.raises(CaptureError, match="mine is no capture"):
        read_pcap(io.BytesIO(data), "mine")


def test_a_comment_too_long_for_its_field_is_cut_in_whole_characters() -> None:
    comment, _, _ = strictly_read(b"".join(write_pcapng(Capture(1, 262_144, iter(())), "it", "ü" * 40_000)))
    assert comment == "ü" * (65_535 // 2)


def fault() -> FaultRecord:
    applied = Step(0, "link-down", "applied", 2_000_000_000, resolved={"links": ["leaf1-spine1"]})
    healed = Step(0, "link-down", "healed", 5_500_000_000, lifted=5_000_000_000)
    return FaultRecord(0, "link-down", applied=applied, healed=healed)


def test_faults_are_noted_when_they_took_hold_and_when_they_were_lifted() -> None:
    assert notes([fault(), FaultRecord(1, "kill")], EPOCH) == [
        (EPOCH + 2_000_000_000, "fault 1 (link-down) applied at 2.000000 s: leaf1-spine1 went down"),
        (EPOCH + 5_000_000_000, "fault 1 (link-down) lifted at 5.000000 s"),
    ]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_a_runs_captures_are_rewritten_with_its_faults_and_tcpdump_reads_them(tmp_path: Path) -> None:
    run = tmp_path / "mine" / "1"
    (run / "pcap").mkdir(parents=True)
    steps = [fault().applied, fault().healed]
    (run / "faults.jsonl").write_bytes(b"".join(_json(step) for step in steps))
    times = [EPOCH + seconds * 1_000_000_000 for seconds in (1, 3, 6)]
    raw_file_of(run, "leaf1>spine1").write_bytes(savefile([Packet(time, 60, FRAME) for time in times]))
    log_of(run, "leaf1>spine1").write_text("listening\n3 packets captured\n2 packets dropped by kernel\n")
    annotate(run, ["leaf1>spine1", "spine1>leaf1"], EPOCH)

    assert [path.name for path in (run / "pcap").iterdir()] == ["leaf1-to-spine1.pcapng"]
    written = file_of(run, "leaf1>spine1")
    comment, name, packets = strictly_read(written.read_bytes())
    assert name == "leaf1>spine1"
    assert "mine" in comment
    assert "tcpdump was too slow for 2 packets" in comment
    assert [len(comments) for _, comments in packets] == [0, 1, 1]
    read = subprocess.run(["tcpdump", "-n", "-tt", "-r", str(written)], capture_output=True, text=True, check=True)
    assert len(read.stdout.splitlines()) == 3
    assert read.stdout.startswith("1700000001.0")


def _json(step: Step | None) -> bytes:
    return msgspec.json.encode(step) + b"\n"
