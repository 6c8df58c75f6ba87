"""What the runtime can run: each kind is made from its configuration, and what it says survives its codec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apps import kv
from apps.clocks import HybridTime
from apps.detectors import Beat, Heartbeats, Standing, Swim
from apps.detectors.swim import Ack, Nack, Ping, PingRequest, Update
from apps.process import Process, Started, step
from apps.quorum import Found, Get, Put, Quorum, Version
from apps.quorum.messages import Boot, Digests, Exchange, Fetch, Fetched, Kept, Store, Stored
from apps.runtime.config import Config, ConfigError
from apps.runtime.framing import Codec
from apps.runtime.framing import Kind as Frame
from apps.runtime.kinds import kind_of

VERSION = Version("n1#1", 7, {"n2#1": 3}, HybridTime(5, 1), "value")
NEWS = [Update("n2", Standing.SUSPECT, 3, "n3")]
MESSAGES: dict[str, list[Any]] = {
    "quorum": [
        Fetch(1, "k"),
        Fetched(1, (VERSION,)),
        Store(2, "k", (VERSION,), "n2"),
        Stored(2),
        Digests(1, {0: b"0" * 16, 1: b"1" * 16}),
        Exchange([3], {"k": (VERSION,)}, True),
    ],
    "swim": [Ping(1, NEWS), PingRequest(1, "n2", NEWS), Ack(1, []), Nack(1)],
    "heartbeat": [Beat(1, 2)],
    "phi": [Beat(1, 2)],
}


def config(kind: str, **parameters: Any) -> Config:
    return Config(
        node="n1",
        cluster="test",
        incarnation=0,
        listen="10.0.0.1:7000",
        peers={"n2": "10.0.0.2:7000", "n3": "10.0.0.3:7000"},
        seed=7,
        data_dir="data",
        trace_dir="trace",
        process={"kind": kind, **parameters},
    )


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_survives_the_wire(kind: str) -> None:
    made = kind_of(config(kind))
    codec = Codec(made.message, made.command, made.result)
    (frame,) = codec.encode(Frame.MESSAGES, MESSAGES[kind])
    assert codec.decode(Frame.MESSAGES, memoryview(frame)[5:]) == MESSAGES[kind]


def test_a_quorum_stores_requests_answers_and_records_survive_too() -> None:
    made = kind_of(config("quorum"))
    for type_, values in (
        (made.command, [Get("k"), Put("k", 1, {"n1#1": 2}), kv.Command("s", 1, 0, kv.Read("k"))]),
        (made.result, [Found([1, 2], {"n1#1": 2}), kv.Done(1), kv.Refused("no"), kv.Unsure("maybe")]),
        (made.record, [Boot(3), Kept("k", (VERSION,), "n2")]),
    ):
        for value in values:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type_) == value


@pytest.mark.parametrize(
    ("kind", "core"), [("quorum", Quorum), ("swim", Swim), ("heartbeat", Heartbeats), ("phi", Heartbeats)]
)
def test_a_kind_makes_a_process_that_starts(kind: str, core: type) -> None:
    process: Process = kind_of(config(kind)).make()
    assert isinstance(process, core)
    assert step(process, 0, [Started()])


@pytest.mark.parametrize(
    ("kind", "parameters", "words"),
    [
        ("quorum", {"r": 1}, "not more than n = 3"),
        ("quorum", {"n": 5, "r": 3, "w": 3}, "n is 5, but there are only 3 nodes"),
        ("swim", {"probe_timeout": 2_000_000_000}, "must be shorter than the interval"),
        ("heartbeat", {"timeout": 1}, "must be longer than the interval"),
        ("phi", {"treshold": 8}, "unknown key 'treshold'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(kind: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kind_of(config(kind, **parameters))
