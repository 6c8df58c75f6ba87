"""What the controller answers to those who ask about the fabric over HTTP: JSON, and metrics for Prometheus.

``answer`` is all of it but the sockets, and `serve` the sockets. It only ever tells; what programs the switches is the
plan and the links alone. A request that is malformed, too large, unknown or too slow gets one JSON object that says
why, ``{"error": …}``, and costs a connection of its own and nothing else.

======================= =============================================================================================
``/topology``           the plan
``/switches``           which are connected, and which hold all they should
``/links``              which are up
``/paths/h1/h9``        every way from one host to the other now, and which share of the flows takes it
``/partitions``         who is deaf to whom, as read this moment from the tables of the switches
``/metrics``            Prometheus's text format, version 0.0.4
======================= =============================================================================================
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from itertools import islice
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from controllers.pipeline import Flow, Routes, routes
from controllers.reconcile import State
from topologies.plan import FabricPlan, PlanError

JSON, METRICS = "application/json", "text/plain; version=0.0.4; charset=utf-8"

#: Requests answered at once; the next one is told to come again.
MOST_AT_ONCE = 16
#: Seconds a client may take over its request, in all, and we over sending the answer.
PATIENCE_S = 5.0
#: What is read of more than was asked for, so that a client which is still sending it gets to read the answer.
DRAINED_BYTES = 1 << 20
#: Ways told between two hosts: their number grows exponentially with a grid's size.
MOST_WAYS = 1_000

PAGES = ("/topology", "/switches", "/links", "/paths/FROM/TO", "/partitions", "/metrics")


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    content_type: str = JSON


class UnansweredError(RuntimeError):
    """Switches that did not tell what they hold in time; the message names them."""


class Source(Protocol):
    """Where answers come from."""

    plan: FabricPlan

    def state(self) -> State: ...

    def faults(self) -> Mapping[str, list[Flow]]:
        """The flows of faults in every connected switch, read from there. Raises `UnansweredError`."""
        ...


def problem(status: int, error: str, **more: Any) -> Answer:
    return Answer(status, _json({"error": error, **more}))


def answer(source: Source, target: str) -> Answer:
    """What a GET of ``target``, the path of a URL, is answered."""
    try:
        path = urlsplit(target).path
    except ValueError as error:
        return problem(400, f"{target[:200]!r} is not the path of a URL: {error}")
    parts = [unquote(part) for part in path.split("/") if part]
    try:
        match parts:
            case []:
                return Answer(200, _json({"pages": PAGES}))
            case ["topology"]:
                return Answer(200, source.plan.to_json())
            case ["switches"]:
                return Answer(200, _json({"switches": source.state().switches}))
            case ["links"]:
                return Answer(200, _json({"links": _links(source.plan, source.state())}))
            case ["paths", sender, receiver]:
                ways = paths(source.plan, source.state().dead, sender, receiver)
                told = list(islice(ways, MOST_WAYS))
                more = {"truncated": True} if next(ways, None) else {}
                return Answer(200, _json({"from": sender, "to": receiver, "paths": told, **more}))
            case ["partitions"]:
                return Answer(200, _json({"partitions": partitions(source.plan, source.faults())}))
            case ["metrics"]:
                return Answer(200, metrics(source.plan, source.state()).encode(), METRICS)
    except PlanError as error:
        return problem(404, str(error))
    except UnansweredError as error:
        return problem(503, str(error))
    return problem(404, f"there is no {path[:200]}", pages=PAGES)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _links(plan: FabricPlan, state: State) -> list[dict[str, Any]]:
    dead = frozenset(state.dead)
    return [
        {"name": link.name, "ends": [link.a.node, link.b.node], "weight": link.weight, "up": link.name not in dead}
        for link in plan.links
    ]


class Path(msgspec.Struct, frozen=True):
    """The nodes of a way, both hosts included, and the share of flows that the groups' weights give it."""

    nodes: tuple[str, ...]
    share: float


def paths(plan: FabricPlan, dead: tuple[str, ...], sender: str, receiver: str) -> Iterator[Path]:
    """Every way that a packet can take while the links in ``dead`` are down; none where these cut the hosts apart.

    Raises `PlanError` for hosts that are not there, or are the same.
    """
    here, there = plan.host(sender), plan.host(receiver)
    if sender == receiver:
        raise PlanError(f"what {sender} sends itself never leaves it; name another host")
    if {link.name for end in (sender, receiver) for link in plan.links_of(end)} & {*dead}:
        return iter(())
    ways = _ways(routes(plan, dead), frozenset(dead), here.leaf, there.leaf)
    return (Path((sender, *nodes, receiver), float(share)) for nodes, share in ways)


def _ways(
    onward: Mapping[str, Routes], dead: frozenset[str], node: str, last: str
) -> Iterator[tuple[tuple[str, ...], Fraction]]:
    if node == last:
        yield (node,), Fraction(1)
        return
    live = [hop for hop in onward[node].get(last, ()) if hop.link not in dead]
    for hop in live:
        part = Fraction(hop.weight, sum(hop.weight for hop in live))
        for nodes, share in _ways(onward, dead, hop.neighbour, last):
            yield (node, *nodes), share * part


def partitions(plan: FabricPlan, faults: Mapping[str, list[Flow]]) -> list[dict[str, Any]]:
    """Who is deaf to whom by each fault's rules, ``{"cookie": …, "deaf": {receiver: [senders]}}``, oldest first."""
    host_of = {host.ip: host.name for host in plan.hosts}
    by_cookie: dict[int, dict[str, list[str]]] = {}
    for flows in faults.values():
        for flow in flows:
            match = dict(flow.match)
            receiver, sender = (str(match.get(field, "any")) for field in ("ipv4_dst", "ipv4_src"))
            deaf = by_cookie.setdefault(flow.cookie, {})
            deaf.setdefault(host_of.get(receiver, receiver), []).append(host_of.get(sender, sender))
    return [
        {"cookie": f"{cookie:#x}", "deaf": {receiver: sorted(senders) for receiver, senders in sorted(deaf.items())}}
        for cookie, deaf in sorted(by_cookie.items())
    ]


def metrics(plan: FabricPlan, state: State) -> str:
    dead = frozenset(state.dead)
    families: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        (
            "splitbrain_switch_connected",
            "gauge",
            "Whether the switch is connected to the controller.",
            [(f'{{switch="{switch.name}"}}', switch.connected) for switch in state.switches],
        ),
        (
            "splitbrain_switch_ready",
            "gauge",
            "Whether the switch has confirmed all it should hold.",
            [(f'{{switch="{switch.name}"}}', switch.ready) for switch in state.switches],
        ),
        (
            "splitbrain_link_up",
            "gauge",
            "Whether the link carries, as far as its switches told.",
            [(f'{{link="{link.name}"}}', link.name not in dead) for link in plan.links],
        ),
        ("splitbrain_repairs_total", "counter", "Link changes routed around, or back.", [("", state.repairs)]),
        ("splitbrain_changes_total", "counter", "Flow and group messages sent to switches.", [("", state.changes)]),
        (
            "splitbrain_refusals_total",
            "counter",
            "Messages that switches answered with an error.",
            [("", state.refusals)],
        ),
        (
            "splitbrain_repair_seconds",
            "gauge",
            "From the first news to the last confirmation of the latest repair.",
            [] if state.repair_ns is None else [("", state.repair_ns / 1e9)],
        ),
    ]
    lines = []
    for name, kind, told, samples in families:
        lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {float(value):g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


class _Punctual(io.RawIOBase):
    """What comes in on a connection until a moment of the monotonic clock; TimeoutError after it."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def handler(source: Source) -> Callable[[Any, Any], None]:
    """A function of a connection and its address that answers the one request on it, and closes it."""
    places = threading.BoundedSemaphore(MOST_AT_ONCE)

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "splitbrain", ""
        timeout = PATIENCE_S

        def setup(self) -> None:
            super().setup()
            self.rfile = io.BufferedReader(_Punctual(self.connection, time.monotonic() + PATIENCE_S))

        def do_GET(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal():
                self._reply(problem(400, f"Content-Length is {length[:50]!r}, not a number"))
            elif int(length) or "Transfer-Encoding" in self.headers:
                self._reply(problem(413, "a request has no body here; leave it out"))
            else:
                self._reply(answer(source, self.path))

        def _not_get(self) -> None:
            self._reply(problem(405, f"{self.command} is not for here: everything is asked by GET", pages=PAGES))

        do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _not_get  # noqa: N815 - http.server's

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            """What http.server found wrong: a request line or headers that are none, or too long."""
            self._reply(problem(code, message or explain or self.responses[code][0]))

        def _reply(self, reply: Answer) -> None:
            self.close_connection = True
            self.request_version = self.protocol_version  # http.server leaves out the head to a request that has none
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            if reply.status == 405:
                self.send_header("Allow", "GET")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
            if reply.status != 200:
                self._drain()

        def _drain(self) -> None:
            """Read what is still coming: closed with something unread, a connection is reset, and the answer lost
            (RFC 9112 §9.6)."""
            self.connection.shutdown(socket.SHUT_WR)
            left = DRAINED_BYTES
            while left > 0 and (read := self.rfile.read1(left)):
                left -= len(read)

        def log_message(self, *_: Any) -> None:
            pass

    class Refuser(Handler):
        def handle(self) -> None:
            self.command = self.requestline = ""
            self._reply(problem(503, f"{MOST_AT_ONCE} requests are being answered; come again"))

    def handle(connection: Any, address: Any) -> None:
        free = places.acquire(blocking=False)
        try:
            (Handler if free else Refuser)(connection, address, None)  # type: ignore[arg-type]
        except OSError:
            pass  # it went away, or took longer than we wait
        finally:
            connection.close()
            if free:
                places.release()

    return handle
