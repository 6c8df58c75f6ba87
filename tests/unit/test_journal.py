"""The durable log: whatever is done to its files, recovery gives a prefix of what was committed, or refuses."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.journal import (
    Identity,
    Journal,
    JournalBusy,
    JournalCorrupt,
    JournalFailed,
    JournalForeign,
    JournalOutdated,
)

N1 = Identity("test", "n1")

records = st.lists(st.binary(max_size=700), min_size=1, max_size=4)
logs = st.lists(records, min_size=1, max_size=8)


def write(directory: Path, batches: list[list[bytes]], segment_bytes: int = 1024) -> None:
    log: Journal[bytes] = Journal(directory, N1, bytes, segment_bytes)
    for batch in batches:
        log.commit(batch)
    log.close()


def read(directory: Path) -> list[bytes]:
    log: Journal[bytes] = Journal(directory, N1, bytes, 1024)
    log.close()
    return log.records


def flat(batches: list[list[bytes]]) -> list[bytes]:
    return [record for batch in batches for record in batch]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


@given(logs)
@settings(max_examples=50, deadline=None)
def test_what_was_committed_is_recovered_in_order_across_segments(batches: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), batches)
        assert read(Path(directory)) == flat(batches)


@given(logs, st.data())
@settings(max_examples=200, deadline=None)
def test_after_a_cut_or_a_flipped_bit_anywhere_recovery_gives_a_prefix_or_refuses(
    batches: list[list[bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write(directory, batches)
        victim = data.draw(st.sampled_from(segments(directory)))
        contents = bytearray(victim.read_bytes())
        position = data.draw(st.integers(0, len(contents) - 1))
        if data.draw(st.booleans(), label="cut"):
            del contents[position:]
        else:
            contents[position] ^= 1 << data.draw(st.integers(0, 7))
        victim.write_bytes(contents)
        before = [path.read_bytes() for path in segments(directory)]
        try:
            kept = read(directory)
        except JournalCorrupt as error:
            assert error.path >= victim  # noqa: PT017
            assert [path.read_bytes() for path in segments(directory)] == before, "a refused log was altered"
            return
        everything = flat(batches)
        assert kept == everything[: len(kept)]
        write(directory, [[b"after"]])
        assert read(directory) == [*kept, b"after"]


@given(logs, st.data())
@settings(max_examples=100, deadline=None)
def test_a_write_cut_short_loses_its_own_batch_and_no_other(batches: list[list[bytes]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write(directory, batches, segment_bytes=1 << 20)
        (segment,) = segments(directory)
        sound = segment.stat().st_size
        write(directory, [[b"unfinished" * 30]], segment_bytes=1 << 20)
        whole = segment.read_bytes()
        cut = data.draw(st.integers(sound, len(whole) - 16))
        # Either the file ends there, or it had grown and what was not written reads as zeros, by sectors.
        zeros = data.draw(st.booleans())
        edge = min(len(whole), -(-cut // 512) * 512)
        segment.write_bytes(whole[:edge].ljust(len(whole), b"\0") if zeros and edge < len(whole) else whole[:cut])
        log: Journal[bytes] = Journal(directory, N1, bytes)
        log.close()
        assert log.records == flat(batches)
        assert segment.stat().st_size == sound
        if segment.stat().st_size != min(cut, len(whole)):
            assert log.cut is not None
            assert log.cut.offset == sound


def test_a_broken_batch_before_a_sound_one_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    write(tmp_path, [[b"a" * 100]], 1 << 20)
    (segment,) = segments(tmp_path)
    second = segment.stat().st_size
    write(tmp_path, [[b"b" * 100], [b"c" * 100]], 1 << 20)
    contents = bytearray(segment.read_bytes())
    contents[second + 40] ^= 1
    segment.write_bytes(contents)
    with pytest.raises(
        JournalCorrupt, match=f"{segment.name}: damaged at byte {second}: .*sound ones follow"
    ) as caught:
        read(tmp_path)
    assert (caught.value.path, caught.value.offset) == (segment, second)


def test_a_flipped_bit_in_the_last_batch_is_not_taken_for_a_write_cut_short(tmp_path: Path) -> None:
    write(tmp_path, [[b"a" * 100]], 1 << 20)
    (segment,) = segments(tmp_path)
    contents = bytearray(segment.read_bytes())
    contents[-20] ^= 1
    segment.write_bytes(contents)
    with pytest.raises(JournalCorrupt, match="checksum differs"):
        read(tmp_path)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[bytes(2000)], [bytes(2000)], [b"end"]])
    first, second, _ = segments(tmp_path)
    second.unlink()
    with pytest.raises(JournalCorrupt, match=r"0000000001.seg.*missing"):
        read(tmp_path)
    first.unlink()
    with pytest.raises(JournalCorrupt, match=r"0000000000.seg.*missing"):
        read(tmp_path)


def begun_anew(directory: Path) -> None:
    log: Journal[bytes] = Journal(directory, N1, bytes, 1024)
    for batch in ([bytes(2000)], [bytes(2000)]):
        log.commit(batch)
    log.commit([b"all", b"of it"], anew=True)
    log.commit([b"more"])
    log.close()


def test_a_log_that_begins_anew_holds_what_came_from_there_on_and_its_old_segments_are_gone(tmp_path: Path) -> None:
    begun_anew(tmp_path)
    assert [segment.name for segment in segments(tmp_path)] == ["0000000002.seg"]
    assert read(tmp_path) == [b"all", b"of it", b"more"]
    write(tmp_path, [[b"and more"]])
    assert read(tmp_path) == [b"all", b"of it", b"more", b"and more"]


@pytest.mark.parametrize("left", [["0000000000.seg", "0000000001.seg"], ["0000000001.seg"]])
def test_what_a_crash_left_of_the_old_segments_is_not_read_and_removed(tmp_path: Path, left: list[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, [[bytes(2000)], [bytes(2000)]])
    begun_anew(new)
    for name in left:
        shutil.copy(old / name, new / name)
    assert read(new) == [b"all", b"of it", b"more"]
    assert len(segments(new)) == 1


def test_a_crash_before_the_new_segment_has_its_name_leaves_the_old_ones(tmp_path: Path) -> None:
    write(tmp_path, [[b"old"]])
    (tmp_path / "0000000001.new").write_bytes(b"half a snapshot")
    assert read(tmp_path) == [b"old"]


def test_a_missing_segment_behind_a_beginning_anew_is_refused(tmp_path: Path) -> None:
    begun_anew(tmp_path)
    write(tmp_path, [[bytes(2000)], [bytes(2000)], [b"end"]])
    segments(tmp_path)[1].unlink()
    with pytest.raises(JournalCorrupt, match=r"0000000003.seg.*missing"):
        read(tmp_path)


def test_a_segment_copied_over_another_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [[bytes(2000)], [bytes(2000)], [b"end"]])
    first, second, _ = segments(tmp_path)
    shutil.copy(first, second)
    with pytest.raises(JournalCorrupt, match="belongs here"):
        read(tmp_path)


@pytest.mark.parametrize("other", [Identity("test", "n2"), Identity("prod", "n1")])
def test_the_log_of_another_node_or_cluster_is_refused(tmp_path: Path, other: Identity) -> None:
    write(tmp_path, [[b"a"]])
    with pytest.raises(JournalForeign, match="of node 'n1' of cluster 'test'"):
        Journal(tmp_path, other)


def test_a_log_of_an_earlier_format_is_refused_as_what_it_is_and_a_damaged_number_as_damage(tmp_path: Path) -> None:
    body = msgspec.msgpack.encode(["test", "n1", 0, 0, False])
    earlier = struct.pack("<8sIII", b"splitlog", 2, len(body), zlib.crc32(body)) + body
    segment = tmp_path / "0000000000.seg"
    segment.write_bytes(earlier)
    with pytest.raises(JournalOutdated, match=r"seg: its format is version 2; this program reads version 3\. "):
        read(tmp_path)
    assert segment.read_bytes() == earlier
    segment.unlink()
    write(tmp_path, [[b"a"]])
    flipped = bytearray(segment.read_bytes())
    flipped[8] ^= 1
    segment.write_bytes(flipped)
    with pytest.raises(JournalCorrupt, match="at byte 8: its format is version 2"):
        read(tmp_path)


def test_checksums_are_castagnolis(tmp_path: Path) -> None:
    write(tmp_path, [[b"123456789"]])
    (data,) = (path.read_bytes() for path in segments(tmp_path))
    body = msgspec.msgpack.encode([b"123456789"])
    stored = int.from_bytes(data[data.index(body) - 8 :][:4], "little")
    assert stored == castagnoli(body)
    assert castagnoli(b"123456789") == 0xE3069283  # the check value of the catalogues


def castagnoli(data: bytes) -> int:
    """CRC-32C bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_a_log_opened_twice_is_refused_and_free_again_after_close(tmp_path: Path) -> None:
    first: Journal[Any] = Journal(tmp_path, N1)
    with pytest.raises(JournalBusy, match="another process"):
        Journal(tmp_path, N1)
    first.close()
    Journal(tmp_path, N1).close()


def test_records_of_another_type_are_refused(tmp_path: Path) -> None:
    log: Journal[int] = Journal(tmp_path, N1, int)
    log.commit([1, 2])
    log.close()
    with pytest.raises(JournalCorrupt, match="not of the kind"):
        Journal(tmp_path, N1, str)


def test_records_whose_text_is_none_are_refused(tmp_path: Path) -> None:
    log: Journal[Any] = Journal(tmp_path, N1)
    log.commit([msgspec.Raw(b"\xa1\x80")])  # a string of one byte, which begins no character
    log.close()
    with pytest.raises(JournalCorrupt, match="not of the kind"):
        Journal(tmp_path, N1, str)


def test_a_failed_sync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: Journal[bytes] = Journal(tmp_path, N1, bytes)
    log.commit([b"a"])
    calls = []

    def broken(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    for _ in range(2):
        with pytest.raises(JournalFailed, match="Input/output error"):
            log.commit([b"b"])
    assert len(calls) == 1
    log.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_write_fails_the_commit_and_recovery_drops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: Journal[bytes] = Journal(tmp_path, N1, bytes)
    log.commit([b"a"])
    real, room = os.pwrite, [100]

    def filling(fd: int, data: Any, offset: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, data[: room[0]], offset)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", filling)
    with pytest.raises(JournalFailed, match="No space left"):
        log.commit([b"b" * 500])
    log.close()
    monkeypatch.undo()
    assert read(tmp_path) == [b"a"]


def test_a_segment_that_a_crash_left_unfinished_is_removed(tmp_path: Path) -> None:
    write(tmp_path, [[b"a"]])
    (tmp_path / "0000000001.new").write_bytes(b"split")
    assert read(tmp_path) == [b"a"]
    assert [path.name for path in tmp_path.iterdir()] == ["0000000000.seg"]


def test_structs_come_back_as_structs(tmp_path: Path) -> None:
    class Vote(msgspec.Struct, array_like=True, tag="v"):
        term: int

    log: Journal[Vote] = Journal(tmp_path, N1, Vote)
    log.commit([Vote(3)])
    log.close()
    log = Journal(tmp_path, N1, Vote)
    log.close()
    assert log.records == [Vote(3)]
