"""What Raft is measured beside: said when it is not here, and etcd's client on the wire."""

from __future__ import annotations

import asyncio
import struct
from typing import cast

import pytest

from experiments.bench import etcd_flood, raft
from experiments.bench.raft_lab import Lab
from experiments.bench.raft_peers import Etcd, PySyncObj


def test_a_peer_that_is_not_here_is_said_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Etcd, "program", lambda: None)
    monkeypatch.setattr(PySyncObj, "program", lambda: None)
    nowhere = cast(Lab, None)
    assert raft._etcd(nowhere) is None
    assert raft._pysyncobj(nowhere) is None
    said = capsys.readouterr().err
    assert "etcd is not here" in said
    assert "PySyncObj is not here" in said
    assert said.count("`.ci/setup --bench` gets it") == 2


class FakeEtcd(asyncio.Protocol):
    """Answers every call; gives the window back only when all of it is used. Frames as in RFC 9113."""

    def __init__(self, data: bool) -> None:
        self.data, self.received, self.streams, self.overrun = data, b"", 0, False
        self.room = 65_535

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.frame(4, 0, 0, b"")

    def frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        self.transport.write(len(body).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + body)

    def data_received(self, data: bytes) -> None:
        self.received = (self.received + data).removeprefix(etcd_flood._PREFACE)
        while len(self.received) >= 9 + (length := int.from_bytes(self.received[:3], "big")):
            kind, _, stream = struct.unpack_from(">BBI", self.received, 3)
            body, self.received = self.received[9 : 9 + length], self.received[9 + length :]
            if kind == 0:
                self.answer(stream, body)

    def answer(self, stream: int, body: bytes) -> None:
        assert body[5:] == b"\x0a\x02k0\x12\xac\x02" + b"x" * 300
        self.streams += 1
        self.room -= len(body)
        self.overrun |= self.room < 0
        if self.room < len(body):
            self.frame(8, 0, 0, struct.pack(">I", 65_535 - self.room))
            self.room = 65_535
        self.frame(1, 4 if self.data else 5, stream, b"\x88")
        if self.data:
            self.frame(0, 0, stream, bytes(5))
            self.frame(1, 5, stream, b"")


async def against(fake: FakeEtcd) -> int:
    server = await asyncio.get_running_loop().create_server(lambda: fake, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        return (await etcd_flood._main(f"{host}:{port}", 1, 300, 0.0, 0.3)).operations


def test_the_flood_of_etcd_counts_what_is_answered_and_sends_no_more_than_the_window_takes() -> None:
    fake = FakeEtcd(data=True)
    answered = asyncio.run(against(fake))
    assert 65_535 // 310 < answered <= fake.streams
    assert not fake.overrun


def test_a_write_that_etcd_refuses_ends_its_flood() -> None:
    with pytest.raises(ConnectionError, match="answered a write with an error"):
        asyncio.run(against(FakeEtcd(data=False)))
