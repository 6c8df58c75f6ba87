"""Frames: what is sent arrives whatever the stream is cut into, and nothing else is taken for a frame."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.runtime.framing import (
    MAX_FRAME,
    READ_BUFFER,
    VERSION,
    Codec,
    FrameError,
    FrameReader,
    Hello,
    Kind,
    TooLarge,
)


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    number: int
    load: bytes = b""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    number: int


CODEC = Codec(Ping | Pong, str, int | None)
HELLO = Hello("splitbrain", VERSION, "test", "n1", 0, "node")

numbers = st.integers(0, 2**64 - 1)
messages = st.lists(st.one_of(st.builds(Ping, numbers, st.binary(max_size=300)), st.builds(Pong, numbers)))


def feed(reader: FrameReader, data: bytes) -> list[tuple[Kind, bytes]]:
    """Read ``data`` as a socket would: as much at a time as there is space."""
    frames: list[tuple[Kind, bytes]] = []
    while data:
        space = reader.space()
        piece, data = data[: len(space)], data[len(space) :]
        space[: len(piece)] = piece
        frames += [(kind, bytes(body)) for kind, body in reader.received(len(piece))]
    return frames


@given(st.lists(messages, max_size=20), st.lists(st.integers(1, 400), min_size=1))
def test_messages_arrive_in_order_however_the_stream_is_cut(batches: list[list[Any]], cuts: list[int]) -> None:
    stream = b"".join(frame for batch in batches for frame in CODEC.encode(Kind.MESSAGES, batch))
    reader = FrameReader()
    arrived: list[Any] = []
    position = 0
    while position < len(stream):
        size = cuts[position % len(cuts)]
        for kind, body in feed(reader, stream[position : position + size]):
            assert kind is Kind.MESSAGES
            arrived.append(CODEC.decode(kind, memoryview(body)))
        position += size
    assert arrived == batches


@given(st.binary(max_size=4000))
@settings(max_examples=300)
def test_any_bytes_are_frames_or_a_frame_error(data: bytes) -> None:
    reader = FrameReader(limit=1000)
    try:
        for kind, body in feed(reader, data):
            CODEC.decode(kind, memoryview(body))
    except FrameError as error:
        assert error.code in ("oversized", "empty", "unknown", "malformed")  # noqa: PT017


@given(st.sampled_from(list(Kind)), st.binary(max_size=200))
@settings(max_examples=300)
def test_any_body_is_decoded_to_its_types_or_is_malformed(kind: Kind, body: bytes) -> None:
    try:
        items = CODEC.decode(kind, memoryview(body))
    except FrameError as error:
        assert error.code == "malformed"  # noqa: PT017
        return
    if kind is Kind.HELLO:
        assert isinstance(items, Hello)
    elif kind is Kind.MESSAGES:
        assert all(isinstance(item, Ping | Pong) for item in items)
    else:
        assert all(isinstance(request, int) for request, _ in items)


def test_a_frame_longer_than_the_buffer_arrives_and_the_buffer_shrinks_again() -> None:
    reader = FrameReader()
    large = CODEC.encode(Kind.MESSAGES, [Ping(1, bytes(3 * READ_BUFFER))])[0]
    small = CODEC.encode(Kind.MESSAGES, [Pong(2)])[0]
    ((_, first),) = feed(reader, bytes(large))
    assert CODEC.decode(Kind.MESSAGES, memoryview(first)) == [Ping(1, bytes(3 * READ_BUFFER))]
    ((_, second),) = feed(reader, bytes(small))
    assert CODEC.decode(Kind.MESSAGES, memoryview(second)) == [Pong(2)]
    assert len(reader.space()) <= READ_BUFFER


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept_for_it() -> None:
    reader = FrameReader(limit=1000)
    with pytest.raises(FrameError, match="1001 bytes where at most 1000") as caught:
        feed(reader, struct.pack(">IB", 1001, Kind.MESSAGES))
    assert caught.value.code == "oversized"


def test_a_limit_that_is_raised_at_the_first_frame_holds_for_the_next_of_the_same_read() -> None:
    hello, batch = CODEC.encode(Kind.HELLO, HELLO)[0], CODEC.encode(Kind.MESSAGES, [Ping(1, bytes(5000))])[0]
    reader = FrameReader(limit=1000)
    stream = hello + batch
    reader.space()[: len(stream)] = stream
    kinds = []
    for kind, _ in reader.received(len(stream)):
        kinds.append(kind)
        reader.limit = MAX_FRAME
    assert kinds == [Kind.HELLO, Kind.MESSAGES]


def test_frames_of_no_kind_and_of_an_unknown_kind_are_told_apart() -> None:
    for data, code in ((struct.pack(">I", 0), "empty"), (struct.pack(">IB", 1, 200), "unknown")):
        with pytest.raises(FrameError) as caught:
            feed(FrameReader(), data)
        assert caught.value.code == code


def test_what_does_not_fit_into_one_frame_goes_into_several_in_order() -> None:
    batch = [Ping(number, bytes(MAX_FRAME // 3)) for number in range(5)]
    frames = CODEC.encode(Kind.MESSAGES, batch)
    assert len(frames) > 1
    assert all(len(frame) <= MAX_FRAME + 4 for frame in frames)
    reader = FrameReader()
    arrived = [message for frame in frames for _, body in feed(reader, bytes(frame))
               for message in CODEC.decode(Kind.MESSAGES, memoryview(body))]  # fmt: skip
    assert arrived == batch


def test_an_item_that_no_frame_holds_is_refused() -> None:
    with pytest.raises(TooLarge, match="a frame holds"):
        CODEC.encode(Kind.MESSAGES, [Pong(1), Ping(1, bytes(MAX_FRAME))])


def test_a_hello_of_another_program_is_malformed() -> None:
    (frame,) = CODEC.encode(Kind.HELLO, HELLO)
    ((kind, body),) = feed(FrameReader(), bytes(frame))
    assert CODEC.decode(kind, memoryview(body)) == HELLO
    with pytest.raises(FrameError, match="hello that cannot be read"):
        CODEC.decode(Kind.HELLO, memoryview(body.replace(b"splitbrain", b"splitbraid")))


def test_requests_and_responses_carry_their_numbers() -> None:
    (frame,) = CODEC.encode(Kind.REQUESTS, [(7, "get"), (8, "set")])
    ((kind, body),) = feed(FrameReader(), bytes(frame))
    assert (kind, CODEC.decode(kind, memoryview(body))) == (Kind.REQUESTS, [(7, "get"), (8, "set")])
