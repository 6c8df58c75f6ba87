"""Whatever comes in from a socket, a file or a disk: taken for what it is, or refused, counted and said; nothing else.

A hundred examples of each here; `pytest --hypothesis-profile=fuzz --timeout=0 tests/unit/test_bad_input.py` tries for
minutes.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps import kv
from apps.journal import Identity, Journal, JournalCorrupt, JournalForeign
from apps.process import Event, Received, Requested
from apps.raft import Command, Message
from apps.raft.messages import Append, AppendReply, Entry, Heartbeat, InstallSnapshot, RequestVote, TimeoutNow
from apps.raft.quorum import Configuration
from apps.runtime.config import Address, ConfigError, read_config
from apps.runtime.framing import VERSION, Codec, Hello, Kind
from apps.runtime.kinds import kind_of
from apps.runtime.transport import MOST_COUNTED, Connection, Transport

# ---------------------------------------------------------------------------------------------------------------------
# Sockets

CODEC = Codec(Message, Command, kv.Result)
SETTINGS = 7
PEERS = ("n1", "n2", "n3")
CODES = {"oversized", "empty", "unknown", "malformed", "unexpected", "version", "cluster", "node", "settings",
         "incarnation"}  # fmt: skip

naturals = st.integers(0, 2**62)
texts = st.text(max_size=8)
hellos = st.builds(
    Hello,
    st.just("splitbrain"),
    st.sampled_from([VERSION, VERSION, VERSION, 1, 99]),
    st.sampled_from(["test", "test", "test", "other", ""]),
    st.sampled_from(["n2", "n3", "n9", "c1", ""]),
    st.integers(0, 3),
    st.sampled_from(["node", "client"]),
    st.sampled_from([SETTINGS, SETTINGS, 8]),
)
ordinals = st.integers(1, 2**62)
configurations = st.builds(Configuration, naturals, st.just(PEERS))
entries = st.builds(Entry, ordinals, ordinals, st.binary(max_size=40))
messages = st.one_of(
    st.builds(RequestVote, ordinals, naturals, naturals, st.booleans()),
    st.builds(Append, ordinals, naturals, naturals, naturals, st.lists(entries, max_size=3)),
    st.builds(AppendReply, naturals, naturals),
    st.builds(Heartbeat, ordinals, naturals, ordinals),
    st.builds(InstallSnapshot, ordinals, ordinals, ordinals, naturals, naturals, naturals, st.binary(max_size=40),
              configurations),
    st.builds(TimeoutNow, ordinals),
)  # fmt: skip
operations = st.builds(kv.Write, texts, texts) | st.builds(kv.Read, texts)
commands = st.builds(kv.Command, texts, naturals, naturals, operations)


def framed(kind: Kind, items: Any) -> bytes:
    return b"".join(CODEC.encode(kind, items))


frames = st.one_of(
    st.builds(framed, st.just(Kind.HELLO), hellos),
    st.builds(framed, st.just(Kind.MESSAGES), st.lists(messages, max_size=3)),
    st.builds(framed, st.just(Kind.REQUESTS), st.lists(st.tuples(naturals, commands), max_size=3)),
    st.builds(framed, st.just(Kind.RESPONSES), st.lists(st.tuples(naturals, st.builds(kv.Done, texts)), max_size=3)),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with a few of its bytes changed, missing or too many, or of another length than it says."""
    frame = bytearray(draw(frames))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(frame)))
        match draw(st.sampled_from(["change", "cut", "insert", "length", "kind"])):
            case "change" if at < len(frame):
                frame[at] = draw(st.integers(0, 255))
            case "cut":
                del frame[at : at + draw(st.integers(1, 8))]
            case "insert":
                frame[at:at] = draw(st.binary(max_size=8))
            case "length":
                frame[:4] = struct.pack(">I", draw(st.integers(0, 2**32 - 1)))
            case "kind" if len(frame) > 4:
                frame[4] = draw(st.integers(0, 255))
    return bytes(frame)


streams = st.lists(st.one_of(frames, frames, damaged(), st.binary(max_size=30)), max_size=6)


class Socket:
    """What a connection takes for a socket."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.closed = connection, False
        connection.connection_made(cast(asyncio.BaseTransport, self))

    def receive(self, data: bytes, at_once: int = 1 << 20) -> None:
        while data and not self.closed:
            space = self.connection.get_buffer(-1)
            piece, data = data[: min(len(space), at_once)], data[min(len(space), at_once) :]
            space[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.connection.connection_lost(None)

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytearray) -> None:
        assert not self.closed

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)


@given(streams, st.sampled_from([None, "n2"]), st.integers(1, 50))
@settings(deadline=None)
def test_whatever_a_connection_says_is_taken_or_ends_it_and_is_counted_and_nobody_else_notices(
    stream: list[bytes], dialled: str | None, at_once: int
) -> None:
    events: list[Event] = []

    async def scene() -> None:
        own = Hello("splitbrain", VERSION, "test", "n1", 0, "node", SETTINGS)
        addresses = {name: Address("127.0.0.1", 7000) for name in PEERS}
        net = Transport(own, addresses, CODEC, events.extend, 10**9, Random(0))
        good = Socket(Connection(net))
        good.receive(framed(Kind.HELLO, Hello("splitbrain", VERSION, "test", "good", 0, "client")))
        stranger = Socket(Connection(net, dialled))
        stranger.receive(b"".join(stream), at_once)
        if stranger.closed:
            assert [sum(by_peer.values()) for by_peer in net.counters.rejected.values()] == [1]
            assert CODES.issuperset(net.counters.rejected)
        else:
            assert net.counters.rejected == {}
            held = stranger.connection._reader.held
            stranger.connection.connection_lost(None)
            assert list(net.counters.rejected) == (["short"] if held else [])
        for event in events:
            if isinstance(event, Received):
                assert event.sender in PEERS[1:]
                assert isinstance(event.message, Message)
            else:
                assert isinstance(event, Requested)
                assert event.client not in PEERS
                assert isinstance(event.command, Command)
        events.clear()
        good.receive(framed(Kind.REQUESTS, [(1, kv.Command("s", 1, 1, kv.Read("k")))]))
        assert [event.client for event in events if isinstance(event, Requested)] == ["good"]
        assert not good.closed

    asyncio.run(scene())


@pytest.mark.parametrize("said", [b"", framed(Kind.HELLO, Hello("splitbrain", VERSION, "test", "c", 0, "client"))[:9]])
def test_who_does_not_say_who_it_is_is_hung_up_on_after_a_while_and_who_does_is_not(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        own = Hello("splitbrain", VERSION, "test", "n1", 0, "node", SETTINGS)
        net = Transport(own, {}, CODEC, lambda events: None, 10**9, Random(0))
        good, silent = Socket(Connection(net)), Socket(Connection(net))
        good.receive(framed(Kind.HELLO, Hello("splitbrain", VERSION, "test", "good", 0, "client")))
        silent.receive(said)
        for _ in range(3):
            await asyncio.sleep(0)
        assert silent.closed
        assert not good.closed
        assert net.counters.rejected == {"late": {"127.0.0.1": 1}}

    monkeypatch.setattr("apps.runtime.transport.HELLO_PATIENCE", 0)
    asyncio.run(scene())


def test_rejected_connections_are_counted_by_the_name_they_gave_up_to_a_number_of_them() -> None:
    async def scene() -> None:
        own = Hello("splitbrain", VERSION, "test", "n1", 0, "node", SETTINGS)
        net = Transport(own, {}, CODEC, lambda events: None, 10**9, Random(0))
        for number in range(MOST_COUNTED + 5):
            hello = Hello("splitbrain", VERSION, "other", f"c{number}", 0, "client")
            Socket(Connection(net)).receive(framed(Kind.HELLO, hello))
        by_peer = net.counters.rejected["cluster"]
        assert (len(by_peer), by_peer["c0"], by_peer["others"]) == (MOST_COUNTED + 1, 1, 5)

    asyncio.run(scene())


# ---------------------------------------------------------------------------------------------------------------------
# Disks

N1 = Identity("test", "n1")
logs = st.lists(st.lists(st.binary(max_size=700), min_size=1, max_size=4), min_size=1, max_size=8)


def write(directory: Path, identity: Identity, batches: list[list[bytes]]) -> list[Path]:
    log: Journal[bytes] = Journal(directory, identity, bytes, 1024)
    for batch in batches:
        log.commit(batch)
    log.close()
    return sorted(directory.glob("*.seg"))


@st.composite
def damage(draw: st.DrawFn, contents: bytearray) -> bytearray:
    """Some of a segment's bytes changed, zeroed, gone, doubled or pushed aside."""
    start = draw(st.integers(0, max(0, len(contents) - 1)))
    end = min(len(contents), start + draw(st.integers(1, 1200)))
    match draw(st.sampled_from(["change", "zero", "cut", "drop", "insert", "append", "repeat"])):
        case "change" if contents:
            contents[start] = draw(st.integers(0, 255))
        case "zero":
            contents[start:end] = bytes(end - start)
        case "cut":
            del contents[start:]
        case "drop":
            del contents[start:end]
        case "insert":
            contents[start:start] = draw(st.binary(min_size=1, max_size=40))
        case "append":
            contents += draw(st.binary(min_size=1, max_size=600))
        case "repeat":
            contents[end:end] = contents[start:end]
    return contents


@given(logs, st.data())
@settings(deadline=None)
def test_a_log_damaged_anywhere_gives_a_prefix_of_what_was_committed_or_is_refused_as_it_is(
    batches: list[list[bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = write(directory, N1, batches)
        for _ in range(data.draw(st.integers(1, 3), label="damages")):
            victim = data.draw(st.sampled_from(paths))
            victim.write_bytes(data.draw(damage(bytearray(victim.read_bytes()))))
        before = [path.read_bytes() for path in paths]
        try:
            log: Journal[bytes] = Journal(directory, N1, bytes, 1024)
        except (JournalCorrupt, JournalForeign):
            assert [path.read_bytes() for path in paths] == before, "a refused log was altered"
            return
        log.close()
        everything = [record for batch in batches for record in batch]
        assert log.records == everything[: len(log.records)]


@given(logs, logs, st.sampled_from([Identity("other", "n1"), Identity("test", "n2")]), st.data())
@settings(deadline=None)
def test_no_segment_of_another_log_is_taken_for_ones_own(
    batches: list[list[bytes]], others: list[list[bytes]], identity: Identity, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as other:
        paths = write(Path(own), N1, batches)
        stranger = data.draw(st.sampled_from(write(Path(other), identity, others)))
        data.draw(st.sampled_from(paths)).write_bytes(stranger.read_bytes())
        with pytest.raises((JournalForeign, JournalCorrupt)):
            Journal(Path(own), N1, bytes, 1024)


# ---------------------------------------------------------------------------------------------------------------------
# Configurations

CONFIG = {
    "node": "n1",
    "cluster": "test",
    "incarnation": 0,
    "listen": "10.0.0.1:7000",
    "peers": {"n1": "10.0.0.1:7000", "n2": "10.0.0.2:7000", "n3": "10.0.0.3:7000"},
    "seed": 1,
    "data_dir": "data",
    "trace_dir": "trace",
    "process": {"kind": "raft"},
}
KINDS = ("raft", "quorum", "swim", "heartbeat", "phi", "client", "flood", "nothing", "os:none", ":", ".x:y")
KEYS = ("election_timeout", "heartbeat_interval", "reads", "n", "r", "w", "interval", "outstanding", "threads", "mix")

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
processes = st.builds(
    lambda kind, parameters: {"kind": kind, **parameters},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
)
changes = st.dictionaries(st.sampled_from([*CONFIG, "colour"]), values, max_size=2)


def understood(contents: bytes) -> bool:
    """Whether a configuration of these bytes leads to a process; if not, it is refused by `ConfigError` alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.json"
        path.write_bytes(contents)
        try:
            return bool(kind_of(read_config(path)))
        except ConfigError:
            return False


@given(changes, processes)
@settings(deadline=None)
def test_any_configuration_is_understood_or_refused_in_words(changed: dict[str, Any], process: dict[str, Any]) -> None:
    understood(msgspec.json.encode({**CONFIG, "process": process, **changed}))


@given(st.binary(max_size=200))
@example(b'"\x80"')
@example(b"[" * 100_000)
@settings(deadline=None)
def test_any_bytes_for_a_configuration_are_refused_in_words(contents: bytes) -> None:
    assert not understood(contents)
