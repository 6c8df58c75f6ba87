"""A bridge between a binary that may do anything and a cluster that must not care."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maelstrom.bridge import (
    CHILD,
    FLOOD,
    Bridge,
    BridgeConfig,
    Call,
    Called,
    Carried,
    Declined,
    End,
    Ended,
    Gone,
    Heard,
    Lost,
    Ready,
    Rejected,
    Tell,
)
from apps.process import Effect, Received, Reply, Requested, Send, SetTimer, Started, TimerFired, Trace
from apps.runtime.framing import Codec, Kind
from tests.unit.maelstrom.test_protocol import lines

NODES = ["n1", "n2", "n3"]
CONFIG = BridgeConfig(command=("node",))


class Bench:
    """A bridge, and what it says to whom."""

    def __init__(self, node: str = "n2", ready: bool = True) -> None:
        self.bridge = Bridge(node, NODES, CONFIG, Random(1))
        self.node, self.now, self.lines = node, 0, 0
        self.told: list[dict[str, Any]] = []
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.replies: list[tuple[str, int, Any]] = []
        self.traced: list[Any] = []
        self.ended = False
        self.take(self.bridge.handle(0, Started()))
        if ready:
            self.say("c0", type="init_ok", in_reply_to=0)

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Reply(client=client, result=Tell(line=line)) if client == CHILD:
                    assert line.endswith(b"\n")
                    self.told.append(json.loads(line))
                case Reply(client=client, result=End()) if client == CHILD:
                    self.ended = True
                case Reply(client=client, request=request, result=result):
                    self.replies.append((client, request, result))
                case Send(to=to, message=Carried(line=line)):
                    self.sent.append((to, json.loads(line)))
                case Trace(event=event):
                    self.traced.append(event)

    def hear(self, line: bytes, oversized: bool = False) -> None:
        self.lines += 1
        self.take(self.bridge.handle(self.now, Requested(CHILD, self.lines, Heard(line, oversized))))

    def say(self, dest: str, src: str = "", **body: Any) -> None:
        self.hear(json.dumps({"src": src or self.node, "dest": dest, "body": body}).encode())

    def call(self, client: str, request: int, **body: Any) -> None:
        self.take(self.bridge.handle(self.now, Requested(client, request, Call(msgspec.json.encode(body)))))

    def carry(self, sender: str, src: str, dest: str, **body: Any) -> None:
        line = json.dumps({"src": src, "dest": dest, "body": body}).encode()
        self.take(self.bridge.handle(self.now, Received(sender, Carried(line))))

    def end(self, why: str) -> None:
        self.take(self.bridge.handle(self.now, Requested(CHILD, 0, Ended(why))))

    @property
    def rejected(self) -> list[tuple[str, int]]:
        return [(event.code, event.line) for event in self.traced if isinstance(event, Rejected)]


def test_the_binary_is_told_who_it_is_and_who_the_others_are() -> None:
    bench = Bench(ready=False)
    (init,) = bench.told
    assert init["dest"] == "n2"
    assert init["body"] == {"type": "init", "msg_id": 0, "node_id": "n2", "node_ids": NODES}
    bench.say(init["src"], type="init_ok", in_reply_to=0)
    assert [type(event) for event in bench.traced] == [Ready]


@pytest.mark.parametrize(
    ("asked", "answer", "said"),
    [
        ("read", {"type": "init_ok"}, "read was answered with 'init_ok', neither read_ok nor error"),
        ("write", {"type": "read_ok", "value": 1}, "write was answered with 'read_ok', neither write_ok nor error"),
        ("read", {"type": "read_ok"}, "read_ok came without 'value'"),
        ("echo", {"type": "echo_ok"}, "echo_ok came without 'echo'"),
        (
            "cas",
            {"type": "error", "code": "x"},
            "cas was answered with an error whose code is 'x', and no whole number",
        ),
        ("cas", {"type": "error"}, "cas was answered with an error whose code is None, and no whole number"),
        (
            "cas",
            {"type": "error", "code": True},
            "cas was answered with an error whose code is True, and no whole number",
        ),
    ],
)
def test_an_answer_of_the_wrong_shape_is_rejected_counted_and_says_nothing(
    asked: str, answer: dict[str, Any], said: str
) -> None:
    bench = Bench()
    bench.call("c1", 70, type=asked, key=1)
    bench.say("c1", in_reply_to=bench.told[-1]["body"]["msg_id"], **answer)
    assert bench.rejected == [("shape", 2)]
    assert bench.traced[-1].said == said
    assert bench.replies == [("c1", 70, Lost(said))]


@pytest.mark.parametrize("answer", [{"type": "read_ok", "value": None}, {"type": "error", "code": 1234, "text": 5}])
def test_answers_that_mean_something_are_passed_on(answer: dict[str, Any]) -> None:
    bench = Bench()
    bench.call("c1", 70, type="read", key=1)
    bench.say("c1", in_reply_to=bench.told[-1]["body"]["msg_id"], **answer)
    assert bench.rejected == []
    assert isinstance(bench.replies[-1][2], Called)


def test_a_client_gets_what_the_binary_answered_to_it() -> None:
    bench = Bench()
    bench.call("c1", 70, type="echo", echo=["x"])
    bench.call("c2", 70, type="echo", echo="y")
    first, second = bench.told[-2:]
    assert (first["src"], second["src"]) == ("c1", "c2")
    bench.say("c2", type="echo_ok", echo="y", in_reply_to=second["body"]["msg_id"])
    bench.say("c1", type="echo_ok", echo=["x"], in_reply_to=first["body"]["msg_id"])
    assert [(client, request) for client, request, _ in bench.replies] == [("c2", 70), ("c1", 70)]
    assert json.loads(bench.replies[1][2].body)["echo"] == ["x"]


def test_what_the_binary_says_to_peers_travels_as_it_was_said_and_reaches_theirs() -> None:
    one, other = Bench("n2"), Bench("n3")
    one.say("n3", type="gossip", values=[1, 2**70])
    ((to, message),) = one.sent
    assert to == "n3"
    other.carry("n2", **{key: message[key] for key in ("src", "dest")}, **message["body"])
    assert other.told[-1] == message
    one.say("n2", type="note to self")
    assert one.told[-1]["body"] == {"type": "note to self"}


def test_messages_of_peers_wait_for_a_binary_that_has_yet_to_answer_init() -> None:
    bench = Bench(ready=False)
    bench.carry("n3", "n3", "n2", type="hello")
    assert len(bench.told) == 1
    bench.call("c1", 1, type="read", key=1)
    assert isinstance(bench.replies[-1][2], Declined)
    bench.say("c0", type="init_ok", in_reply_to=0)
    assert bench.told[-1]["body"] == {"type": "hello"}


def test_nobody_speaks_in_anothers_name() -> None:
    bench = Bench()
    bench.say("n3", src="n1", type="I am n1")
    assert bench.sent == []
    assert bench.rejected == [("forged", 2)]
    told = len(bench.told)
    bench.carry("n3", "n1", "n2", type="I am n1")  # nor does a bridge take it from another
    assert len(bench.told) == told


def test_garbage_is_rejected_counted_and_told_of_with_its_line_and_the_rest_goes_on() -> None:
    bench = Bench()
    for _ in range(1000):
        bench.hear(b"debug: tick")
    found = [event for event in bench.traced if isinstance(event, Rejected)]
    assert found[0] == Rejected("malformed", 2, "not a line of JSON: 'debug: tick'", 1)
    assert [event.count for event in found] == [1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 256, 512]
    bench.hear(b"x" * 80, oversized=True)
    assert bench.rejected[-1][0] == "oversized"
    bench.say("n3", type="still here")
    assert len(bench.sent) == 1


def test_an_answer_that_nobody_asked_for_and_a_message_to_nobody_are_rejected() -> None:
    bench = Bench()
    bench.call("c1", 1, type="read")
    number = bench.told[-1]["body"]["msg_id"]
    bench.say("c2", type="read_ok", in_reply_to=number)
    bench.say("c1", type="read_ok", in_reply_to=number + 1)
    bench.say("n9", type="hello", msg_id=4)
    assert [code for code, _ in bench.rejected] == ["unasked", "unasked", "unknown"]
    assert bench.told[-1]["body"] == {"type": "error", "code": 1, "text": "there is no 'n9'", "in_reply_to": 4}
    bench.say("c1", type="read_ok", value=1, in_reply_to=number)
    bench.say("c1", type="read_ok", value=1, in_reply_to=number)
    assert [code for code, _ in bench.rejected] == ["unasked", "unasked", "unknown", "unasked"]
    assert len(bench.replies) == 1


def test_when_the_binary_ends_those_who_wait_are_told_that_nothing_is_known() -> None:
    bench = Bench()
    bench.call("c1", 5, type="write")
    bench.end("it exited with status 3")
    assert bench.replies == [("c1", 5, Lost("it exited with status 3"))]
    assert bench.traced[-1] == Gone("it exited with status 3")
    bench.call("c1", 6, type="write")
    assert bench.replies[-1] == ("c1", 6, Declined("it exited with status 3"))
    bench.carry("n3", "n3", "n2", type="hello")
    assert len(bench.told) == 2


def test_a_binary_that_never_answers_init_is_given_up() -> None:
    bench = Bench(ready=False)
    effects = Bridge("n1", NODES, CONFIG, Random(1)).handle(0, Started())
    (timer,) = [effect for effect in effects if isinstance(effect, SetTimer)]
    assert timer.after == CONFIG.init_timeout
    bench.take(bench.bridge.handle(timer.after, TimerFired(timer.timer)))
    assert bench.ended
    assert bench.traced == [Gone("it did not answer init within 10 s")]


def test_a_binary_that_refuses_init_is_given_up() -> None:
    bench = Bench(ready=False)
    bench.say("c0", type="error", code=13, text="no", in_reply_to=0)
    assert bench.ended
    assert bench.traced[-1] == Gone("it answered init with 'error'")


def test_a_flood_is_given_up_and_the_same_number_of_lines_in_more_time_is_not() -> None:
    calm, flood = Bench(), Bench()
    for number in range(FLOOD + 1):
        calm.now = number * 60_000
        calm.hear(b'{"src":"n2","dest":"n2","body":{"type":"x"}}')
        flood.hear(b'{"src":"n2","dest":"n2","body":{"type":"x"}}')
    assert not calm.ended
    assert flood.ended
    assert flood.traced[-1] == Gone(f"it printed more than {FLOOD} lines within a second")


def test_services_answer_at_the_first_node_and_from_there() -> None:
    first, other = Bench("n1"), Bench("n2")
    first.say("lin-kv", type="write", key="x", value=1, msg_id=9)
    assert first.told[-1]["src"] == "lin-kv"
    assert first.told[-1]["body"] == {"type": "write_ok", "in_reply_to": 9}
    other.say("lin-kv", type="read", key="x", msg_id=4)
    ((to, asked),) = other.sent
    assert to == "n1"
    first.carry("n2", asked["src"], asked["dest"], **asked["body"])
    to, answer = first.sent[-1]
    assert to == "n2"
    other.carry("n1", answer["src"], answer["dest"], **answer["body"])
    assert other.told[-1] == answer
    assert answer["body"] == {"type": "read_ok", "value": 1, "in_reply_to": 4}


@settings(deadline=None)
@given(
    st.lists(st.one_of(lines, st.just(b'{"src":"n2","dest":"lin-kv","body":{"type":"cas","msg_id":1}}')), max_size=5)
)
def test_whatever_the_binary_prints_the_bridge_lives_and_all_it_says_can_be_sent(printed: list[bytes]) -> None:
    for node in ("n1", "n2"):
        bench = Bench(node)
        codec = Codec(Carried, Call, None)
        for line in printed:
            effects = bench.bridge.handle(0, Requested(CHILD, 1, Heard(line)))
            codec.encode(Kind.MESSAGES, [effect.message for effect in effects if isinstance(effect, Send)])
            for effect in effects:
                if isinstance(effect, Reply):
                    codec.encode(Kind.RESPONSES, [(1, effect.result)])
                if isinstance(effect, Trace):
                    msgspec.json.encode(effect.event)
        bench.call("c1", 1, type="read")
        assert bench.told[-1]["body"]["type"] == "read"


def test_a_clients_number_of_any_size_reaches_the_binary_and_comes_back() -> None:
    bench = Bench()
    bench.take(bench.bridge.handle(0, Requested("c1", 1, Call(b'{"type":"echo","echo":%d}' % 10**40))))
    number = bench.told[-1]["body"]["msg_id"]
    bench.say("c1", type="echo_ok", echo=bench.told[-1]["body"]["echo"], in_reply_to=number)
    assert isinstance(bench.replies[-1][2], Called)
    assert json.loads(bench.replies[-1][2].body)["echo"] == 10**40
