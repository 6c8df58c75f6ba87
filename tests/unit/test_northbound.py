"""What the controller answers over HTTP, and that no request can make it answer anything but one clear object."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import northbound
from controllers.northbound import answer, handler, partitions, paths
from controllers.pipeline import ETH_IP, Flow
from controllers.reconcile import Reconciler, State
from topologies.leaf_spine import LeafSpine
from topologies.plan import FAULT_COOKIE, FabricPlan, PlanError

PLAN = LeafSpine(4, 3, 2)


def drop(receiver: str, sender: str, serial: int = 1) -> Flow:
    match = (("eth_type", ETH_IP), ("ipv4_dst", PLAN.host(receiver).ip), ("ipv4_src", PLAN.host(sender).ip))
    return Flow(0, 61440, match, cookie=FAULT_COOKIE | serial)


class Source:
    """A controller to whom leaf1 has connected, and whose leaf1-spine2 is down."""

    plan: FabricPlan = PLAN

    def __init__(self) -> None:
        self.reconciler = Reconciler(PLAN)
        self.reconciler.connected(1, "leaf1", {1, 2, 3, 5, 6})
        self.held: dict[str, list[Flow]] = {"leaf1": [drop("h1", "h5"), drop("h1", "h3"), drop("h2", "h3", 2)]}

    def state(self) -> State:
        return self.reconciler.state()

    def faults(self) -> dict[str, list[Flow]]:
        if not self.held:
            raise northbound.UnansweredError("leaf1 did not say")
        return self.held


def asked(target: str) -> Any:
    reply = answer(Source(), target)
    assert reply.status == 200, reply
    return json.loads(reply.body)


def test_topology_is_the_plan_itself() -> None:
    assert FabricPlan.from_json(msgspec.json.encode(asked("/topology"))) == PLAN


def test_links_and_switches_tell_what_the_switches_told() -> None:
    assert [link["name"] for link in asked("/links")["links"] if not link["up"]] == ["leaf1-spine2"]
    assert [switch["name"] for switch in asked("/switches")["switches"] if switch["connected"]] == ["leaf1"]


def test_paths_are_all_the_ways_there_are_now_and_their_shares() -> None:
    ways = asked("/paths/h1/h3")["paths"]
    assert {tuple(way["nodes"]) for way in ways} == {
        ("h1", "leaf1", spine, "leaf2", "h3") for spine in ("spine1", "spine3", "spine4")
    }
    assert all(way["share"] == pytest.approx(1 / 3) for way in ways)
    assert [way["nodes"] for way in asked("/paths/h1/h2")["paths"]] == [["h1", "leaf1", "h2"]]


def test_links_that_cut_two_hosts_apart_leave_no_way() -> None:
    assert [*paths(PLAN, ("h1-leaf1",), "h1", "h3")] == []
    assert [*paths(PLAN, tuple(f"leaf2-spine{number}" for number in range(1, 5)), "h1", "h3")] == []
    with pytest.raises(PlanError, match="never leaves"):
        paths(PLAN, (), "h1", "h1")


def test_partitions_are_grudges_by_the_rules_cookies() -> None:
    assert partitions(PLAN, Source().held) == [
        {"cookie": f"{FAULT_COOKIE | 1:#x}", "deaf": {"h1": ["h3", "h5"]}},
        {"cookie": f"{FAULT_COOKIE | 2:#x}", "deaf": {"h2": ["h3"]}},
    ]
    assert asked("/partitions")["partitions"] == partitions(PLAN, Source().held)


def test_switches_that_do_not_say_what_they_hold_are_named() -> None:
    silent = Source()
    silent.held = {}
    assert (answer(silent, "/partitions").status, b"leaf1" in answer(silent, "/partitions").body) == (503, True)


def test_metrics_have_a_help_a_type_and_well_formed_samples() -> None:
    text = answer(Source(), "/metrics").body.decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) >= 6
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['splitbrain_link_up{link="leaf1-spine2"}'] == "0"
    assert samples['splitbrain_link_up{link="leaf1-spine1"}'] == "1"
    assert samples['splitbrain_switch_connected{switch="leaf1"}'] == "1"


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_path_is_answered_by_an_object_or_says_what_is_wrong(target: str) -> None:
    reply = answer(Source(), "/" + target)
    if reply.status != 200:
        assert reply.status in (400, 404)
        assert json.loads(reply.body)["error"]


def request(data: bytes) -> tuple[int, dict[str, Any]]:
    """What a connection that sends ``data`` and no more is answered."""
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=handler(Source()), args=(theirs, ("", 0)))
    serving.start()
    with ours:
        ours.settimeout(10)
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        reply = b""
        while more := ours.recv(1 << 16):
            reply += more
    serving.join()
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /links HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /paths/h1/h99 HTTP/1.1\r\n\r\n", 404),
        (b"GET //[ HTTP/1.1\r\n\r\n", 404),
        (b"POST /links HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /links HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"GET /links HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET /links HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"BREW /links HTTP/1.1\r\n\r\n", 501),
        (b"what is this\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"\x00\xff\xfe" * 20 + b"\r\n\r\n", 400),
    ],
)
def test_whatever_is_sent_gets_one_json_object_and_a_status_that_fits(data: bytes, status: int) -> None:
    answered, body = request(data)
    assert answered == status
    assert ("error" in body) == (status != 200)


def test_of_more_ways_than_anybody_reads_the_first_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(northbound, "MOST_WAYS", 2)
    told = asked("/paths/h1/h5")
    assert (len(told["paths"]), told["truncated"]) == (2, True)
    monkeypatch.setattr(northbound, "MOST_WAYS", 3)
    assert "truncated" not in asked("/paths/h1/h5")


def test_a_client_that_is_still_sending_gets_to_read_why_that_is_not_wanted() -> None:
    body = b"x" * 900_000
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        serving = threading.Thread(target=handler(Source()), args=listener.accept())
        serving.start()
        ours.settimeout(10)
        ours.sendall(b"POST /links HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        with ours.makefile("rb") as reply:
            assert b" 405 " in reply.readline()
    serving.join(timeout=10)
    assert not serving.is_alive()


def test_a_client_that_drips_does_not_hold_its_place_for_longer_than_one_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(northbound, "PATIENCE_S", 0.5)
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=handler(Source()), args=(theirs, ("", 0)))
    serving.start()
    with ours:
        for _ in range(100):
            try:
                ours.sendall(b"G")
            except BrokenPipeError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("it was listened to for ten seconds")
    serving.join(timeout=10)


def test_a_client_that_says_nothing_is_left_alone_after_a_while_and_more_than_enough_are_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(northbound, "PATIENCE_S", 0.5)
    monkeypatch.setattr(northbound, "MOST_AT_ONCE", 1)
    serve = handler(Source())
    silent, theirs = socket.socketpair()
    late, also_theirs = socket.socketpair()
    waiting = threading.Thread(target=serve, args=(theirs, ("", 0)))
    with silent, late:
        waiting.start()
        while True:  # until the first has its place
            late, also_theirs = socket.socketpair()
            late.sendall(b"GET /links HTTP/1.1\r\n\r\n")
            serve(also_theirs, ("", 0))
            if b" 503 " in late.recv(1 << 16):
                break
        waiting.join(timeout=10)
        assert not waiting.is_alive()
        assert silent.recv(10) == b""
