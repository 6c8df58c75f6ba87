"""The Ryu application: carries what switches say to a `Reconciler`, and what it decides to the switches.

Load it with ``python -m controllers.launch``, or by a manager of Ryu's kind. It reads the path of the plan (JSON) from
``SPLITBRAIN_PLAN`` and writes `controllers.status` events to the file that ``SPLITBRAIN_STATUS`` names, or else to
standard output; ``SPLITBRAIN_NORTHBOUND`` (``127.0.0.1:8080``) is where `controllers.northbound` listens, if anywhere.
It needs no packet-in: when it is gone, the switches forward as before.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from controllers import framework, northbound, openflow, status
from controllers.framework import hub, ofp_event, ofproto, on
from controllers.pipeline import Flow, Group, Program
from controllers.reconcile import Effect, Read, Reconciler, Report, Send, State
from topologies.plan import FAULT_COOKIE, FabricPlan

PLAN, STATUS, NORTHBOUND = "SPLITBRAIN_PLAN", "SPLITBRAIN_STATUS", "SPLITBRAIN_NORTHBOUND"

#: How long a controller that finds a running fabric waits for the last of its switches, before it does without.
PATIENCE_S = 3.0

#: How often it looks whether a switch that refused something is due to be told anew.
RETRY_EVERY_S = 1.0

#: How long switches have to say which faults they hold.
ANSWER_WITHIN_S = 2.0

MAIN, DEAD = framework.handler.MAIN_DISPATCHER, framework.handler.DEAD_DISPATCHER


class PlanMissingError(RuntimeError):
    """`PLAN` is not set, so there is nothing to control."""


def reporter(path: str | None) -> Callable[[status.Event], None]:
    """A function that appends an event to the file at ``path``, or writes it to standard output if that is None."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else sys.stdout.fileno()

    def report(event: status.Event) -> None:
        os.write(descriptor, msgspec.json.encode(event) + b"\n")

    return report


class Hurry(framework.event.EventBase):
    """Sent to ourselves once `PATIENCE_S` have passed."""


class Retry(framework.event.EventBase):
    """Sent to ourselves every `RETRY_EVERY_S`."""


class Fabric(framework.App):
    OFP_VERSIONS = (ofproto.OFP_VERSION,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        path = os.environ.get(PLAN)
        if not path:
            raise PlanMissingError(f"{PLAN} is not set; it names the JSON file of the fabric's plan")
        self.plan = plan = FabricPlan.from_json(Path(path).read_bytes())
        self._names = {switch.datapath_id: switch.name for switch in plan.switches}
        self._reconciler = Reconciler(plan)
        self._report = reporter(os.environ.get(STATUS))
        self._connections: dict[str, _Connection] = {}

    def start(self) -> Any:
        hub.spawn(self._remind)
        if where := os.environ.get(NORTHBOUND):
            host, _, port = where.rpartition(":")
            hub.spawn(hub.StreamServer((host, int(port)), northbound.handler(self)).serve_forever)
        return super().start()

    def state(self) -> State:
        return self._reconciler.state()

    def faults(self) -> dict[str, list[Flow]]:
        """The flows of faults in every connected switch, asked for now. Raises `northbound.UnansweredError`."""
        asked = {name: _Question() for name in self._connections}
        for name, question in asked.items():
            datapath = self._connections[name].datapath
            self._send(name, question, [openflow.flows_request(datapath, FAULT_COOKIE)])
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while missing := [name for name, question in asked.items() if not question.answered]:
            if time.monotonic() > deadline:
                raise northbound.UnansweredError(f"{', '.join(missing)} did not say in time what faults they hold")
            hub.sleep(0.002)  # os-ken's events of its own threads cannot be waited for with a limit
        return {name: question.flows for name, question in asked.items()}

    def _remind(self) -> None:
        hub.sleep(PATIENCE_S)
        self.send_event(self.name, Hurry())
        while True:
            hub.sleep(RETRY_EVERY_S)
            self.send_event(self.name, Retry())

    @on(Hurry)
    def _on_hurry(self, event: Any) -> None:
        self._carry_out(self._reconciler.hurry(time.monotonic_ns()))

    @on(Retry)
    def _on_retry(self, event: Any) -> None:
        self._carry_out(self._reconciler.retry(time.monotonic_ns()))

    @on(ofp_event.EventOFPStateChange, MAIN, DEAD)
    def _on_state_change(self, event: Any) -> None:
        now, datapath = time.monotonic_ns(), event.datapath
        name = self._names.get(datapath.id)
        if event.state == MAIN:
            if name is None:
                self.logger.warning("a switch that the plan does not have: datapath id %#x", datapath.id)
                return
            before = self._connections.get(name)
            self._connections[name] = _Connection(datapath)
            if before:  # Half open, or not the one it says it is: the true one connects anew, and is heard again.
                before.datapath.close()
                with contextlib.suppress(OSError):  # or else it would notice with its next message
                    before.datapath.socket.shutdown(socket.SHUT_RDWR)
            up = [port.port_no for port in datapath.ports.values() if _carries(port)]
            self._carry_out(self._reconciler.connected(now, name, up))
        elif name and self._connection(datapath):  # and not the connection before its present one
            del self._connections[name]
            self._carry_out(self._reconciler.disconnected(now, name))

    @on(ofp_event.EventOFPFlowDescStatsReply, MAIN)
    def _on_flows(self, event: Any) -> None:
        if connection := self._connection(event.msg.datapath):
            question = connection.questions.get(event.msg.xid)
            (question or connection).flows += openflow.read_flows(event.msg.body)

    @on(ofp_event.EventOFPGroupDescStatsReply, MAIN)
    def _on_groups(self, event: Any) -> None:
        if connection := self._connection(event.msg.datapath):
            connection.groups += openflow.read_groups(event.msg.body)

    @on(ofp_event.EventOFPPortStatus, MAIN)
    def _on_port_status(self, event: Any) -> None:
        now, port = time.monotonic_ns(), event.msg.desc
        if self._connection(event.msg.datapath):
            up = event.msg.reason != ofproto.OFPPR_DELETE and _carries(port)
            name = self._names[event.msg.datapath.id]
            self._carry_out(self._reconciler.port_changed(now, name, port.port_no, up))

    @on(ofp_event.EventOFPBarrierReply, MAIN)
    def _on_barrier(self, event: Any) -> None:
        now = time.monotonic_ns()
        connection = self._connection(event.msg.datapath)
        if connection is None:
            return
        match connection.barriers.pop(event.msg.xid, None):
            case Read(name):
                have = Program(tuple(connection.flows), tuple(connection.groups))
                self._carry_out(self._reconciler.described(now, name, have))
            case Send(name, _, token):
                self._carry_out(self._reconciler.confirmed(now, name, token))
            case _Question() as question:
                question.answered = True
                connection.questions = {
                    xid: other for xid, other in connection.questions.items() if other is not question
                }

    @on(ofp_event.EventOFPErrorMsg, MAIN)
    def _on_error(self, event: Any) -> None:
        message = event.msg
        if self._connection(message.datapath):
            name = self._names[message.datapath.id]
            kind = ofproto.ofp_error_type_to_str(message.type)
            code = ofproto.ofp_error_code_to_str(message.type, message.code)
            self._carry_out(self._reconciler.refused(time.monotonic_ns(), name, f"{kind} {code}"))

    def _connection(self, datapath: Any) -> _Connection | None:
        """What is under way on ``datapath``, unless its switch is not ours or has connected anew since."""
        connection = self._connections.get(self._names.get(datapath.id, ""))
        return connection if connection and connection.datapath is datapath else None

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Report(event):
                    self._report(event)
                case Read(name):
                    connection = self._connections[name]
                    datapath, connection.flows, connection.groups = connection.datapath, [], []
                    self._send(name, effect, [openflow.flows_request(datapath), openflow.groups_request(datapath)])
                case Send(name, changes, _):
                    datapath = self._connections[name].datapath
                    self._send(name, effect, [openflow.change_message(datapath, change) for change in changes])

    def _send(self, name: str, why: Read | Send | _Question, messages: list[Any]) -> None:
        """Send ``messages`` in one piece, then a barrier: once it is answered, the switch is done with all of them."""
        connection = self._connections[name]
        barrier = framework.parser.OFPBarrierRequest(connection.datapath)
        packed = bytearray()
        for message in (*messages, barrier):
            connection.datapath.set_xid(message)
            message.serialize()
            packed += message.buf
            if isinstance(why, _Question):
                connection.questions[message.xid] = why
        connection.barriers[barrier.xid] = why
        connection.datapath.send(packed)


class _Connection:
    """One switch's present connection: what it has told of itself, and the barriers it has yet to answer."""

    def __init__(self, datapath: Any) -> None:
        self.datapath = datapath
        self.flows: list[Flow] = []
        self.groups: list[Group] = []
        self.questions: dict[int, _Question] = {}
        self.barriers: dict[int, Read | Send | _Question] = {}


class _Question:
    """What somebody wants to know of a switch beside its programming, and what it has told so far."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []
        self.answered = False


def _carries(port: Any) -> bool:
    """Whether packets pass it: there is a carrier and, where BFD watches the link, the other end hears and is heard.

    Open vSwitch says both by OFPPS_LIVE, which its groups' watch ports go by, too (OpenFlow 1.5.1, §7.2.1.1).
    """
    return bool(port.state & ofproto.OFPPS_LIVE) and not port.config & ofproto.OFPPC_PORT_DOWN
