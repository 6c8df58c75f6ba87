"""Maelstrom's lines: whatever bytes a binary prints, they are a message or one kind of error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maelstrom.protocol import MAX_DEPTH, Code, LineError, LineReader, decode, encode, is_definite

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
messages = st.fixed_dictionaries(
    {
        "src": st.text(),
        "dest": st.text(),
        "body": st.dictionaries(st.text(), values, max_size=4).flatmap(
            lambda rest: st.fixed_dictionaries(
                {"type": st.text()}, optional={"msg_id": st.integers(0, 2**63), "in_reply_to": st.integers(0, 2**63)}
            ).map(lambda head: {**rest, **head})
        ),
    }
)


def mangled(line: bytes, at: int, length: int, junk: bytes) -> bytes:
    at %= len(line) + 1
    return line[:at] + junk + line[at + length :]


#: Lines of any bytes, of JSON that is no message, and of messages with bytes missing, changed or put in.
lines = st.one_of(
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
    st.builds(
        mangled,
        messages.map(lambda m: json.dumps(m).encode()),
        st.integers(0),
        st.integers(0, 6),
        st.binary(max_size=6),
    ),
)


@settings(deadline=None)
@given(lines)
def test_any_bytes_are_a_message_or_an_error_and_nothing_else(line: bytes) -> None:
    try:
        message = decode(line)
    except LineError as wrong:
        error = wrong
    else:
        assert decode(encode(message.src, message.dest, message.body)) == message
        return
    assert error.code in ("malformed", "shape")
    assert "\n" not in str(error)


@settings(deadline=None)
@given(messages)
def test_every_message_is_read_as_it_was_written(written: dict) -> None:  # type: ignore[type-arg]
    message = decode(json.dumps(written, ensure_ascii=False, default=str).encode(errors="surrogatepass"))
    assert (message.src, message.dest) == (written["src"], written["dest"])
    assert message.type == written["body"]["type"]
    assert message.msg_id == written["body"].get("msg_id")
    assert message.in_reply_to == written["body"].get("in_reply_to")


@settings(deadline=None)
@given(st.integers(MAX_DEPTH - 5, MAX_DEPTH + 5), st.sampled_from(["[", '{"a":']))
def test_what_lies_too_deep_is_refused_before_it_can_exhaust_a_stack(depth: int, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    line = f'{{"src":"a","dest":"b","body":{{"type":"t","x":{opening * depth}1{closing * depth}}}}}'.encode()
    if depth < MAX_DEPTH - 1:
        decode(line)
    elif depth > MAX_DEPTH:
        with pytest.raises(LineError, match="inside each other"):
            decode(line)


def test_a_hundred_thousand_brackets_are_an_error_like_any_other() -> None:
    with pytest.raises(LineError):
        decode(b"[" * 100_000)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line)), st.lists(st.integers(1, 30)))
def test_lines_do_not_depend_on_how_the_stream_is_cut(whole: list[bytes], cuts: list[int]) -> None:
    stream = b"\n".join(whole)
    reader, pieces = LineReader(), []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    read = [line for piece in [*pieces, stream] for line in reader.feed(piece)]
    read += reader.close()
    assert [(line.number, line.text) for line in read] == [
        (number, line) for number, line in enumerate(whole, 1) if line.strip()
    ]


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 7))
def test_a_line_that_is_too_long_is_skipped_and_the_next_one_read(longest: int, length: int, step: int) -> None:
    reader = LineReader(longest)
    stream = b"x" * length + b"\nok\n"
    read = [line for at in range(0, len(stream), step) for line in reader.feed(stream[at : at + step])]
    assert (read[-1].number, read[-1].text) == (2, b"ok" if longest >= 2 else read[-1].text)
    if length:
        assert read[0].oversized is (length > longest)
        assert len(read[0].text) <= max(longest, 80)


@pytest.mark.parametrize("code", [0, 13, 1000, 1001, 12345, -1, 999, 2])
def test_after_a_timeout_a_crash_or_an_unknown_error_nothing_is_known(code: int) -> None:
    assert not is_definite(code)


@pytest.mark.parametrize("code", sorted(set(Code) - {Code.TIMEOUT, Code.CRASH}))
def test_every_other_error_of_maelstrom_says_that_nothing_happened(code: int) -> None:
    assert is_definite(code)
