"""Faults that change the network: links that lose their carrier, hosts that no longer hear others.

A fault takes hold when it is made and is lifted when its ``with`` block ends, so it cannot be left behind:

    with fabric.dataplane.drop({"h1": {"h5", "h9"}}):   # h1 hears neither h5 nor h9
        ...

Nothing here needs the controller to be alive, and the controller leaves these rules alone (`plan.FAULT_COOKIE`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Protocol

from topologies import openflow
from topologies.openflow import OpenFlowError
from topologies.openvswitch import RUN_DIRECTORY, OpenVSwitchError, forget_cached_flows
from topologies.plan import FAULT_COOKIE, FabricPlan, PlanError
from topologies.rtnetlink import Netlink, NetlinkError, set_state

#: Table 0's priorities from here to the top, 0xFFFF, belong to faults: each grudge has one to itself, so that two of
#: them with the same pair are two rules, and lifting one leaves the other.
FAULT_PRIORITIES = range(0xF000, 0x10000)

_TABLE = 0

#: Hosts that no longer hear some others: {receiver: senders}.
Grudge = Mapping[str, Set[str]]


class DataplaneError(RuntimeError):
    """A fault that could not be made or lifted; the message says which and why."""


class Dataplane(Protocol):
    """What every kind of fabric can have done to it."""

    def cut(self, link: str) -> Fault:
        """Take the carrier from both ends of a link. Raises `PlanError` for a link the plan does not have."""
        ...

    def restore(self, link: str) -> None:
        """Lift every cut of a link, whoever made it."""
        ...

    def drop(self, grudge: Grudge) -> Fault:
        """Drop what each receiver is sent by its senders, in that direction only; return when it is in force.

        It bites connections that are established. Grudges do not know of one another: what two of them drop stays
        dropped until both are lifted. Raises `PlanError` for a host the plan does not have.
        """
        ...

    def lift(self, fault: Fault) -> None:
        """End a fault; one that has ended already stays so."""
        ...


class Fault:
    """One cut or one grudge, in force until `lift`, or until its ``with`` block ends."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane

    def lift(self) -> None:
        self._dataplane.lift(self)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lift()


class Rule(NamedTuple):
    """One pair's rule, on the receiver's leaf."""

    switch: str
    sender_ip: str
    receiver_ip: str


def grudge_rules(plan: FabricPlan, grudge: Grudge) -> list[Rule]:
    """What to drop, and where: at each receiver's leaf, which all that reaches it must cross, whatever its path.

    Only IPv4 is dropped, since nothing else passes between hosts: IPv6 is off in them, and their ARP requests are
    answered by the switch. Raises `PlanError` for a host the plan does not have, or one that is to be cut off from
    itself.
    """
    rules = []
    for receiver, senders in sorted(grudge.items()):
        to = plan.host(receiver)
        for sender in sorted(senders):
            if sender == receiver:
                raise PlanError(f"{receiver} cannot be cut off from itself: what it sends itself never leaves it")
            rules.append(Rule(to.leaf, plan.host(sender).ip, to.ip))
    return rules


class _InForce(NamedTuple):
    """A grudge's place in the switches' tables."""

    priority: int
    cookie: int
    switches: tuple[str, ...]


class OvsDataplane:
    """Faults on a fabric of Open vSwitch bridges: `Dataplane` by netlink and by OpenFlow rules of our own."""

    def __init__(self, plan: FabricPlan) -> None:
        self._plan = plan
        self._switches = frozenset(switch.name for switch in plan.switches)
        self._serials = itertools.count(1)
        self._cuts: dict[Fault, str] = {}
        self._grudges: dict[Fault, _InForce] = {}

    def cut(self, link: str) -> Fault:
        self._set_carrier(link, up=False)
        fault = Fault(self)
        self._cuts[fault] = link
        return fault

    def restore(self, link: str) -> None:
        self._set_carrier(link, up=True)
        self._cuts = {fault: name for fault, name in self._cuts.items() if name != link}

    def drop(self, grudge: Grudge) -> Fault:
        rules = grudge_rules(self._plan, grudge)
        taken = {grudge.priority for grudge in self._grudges.values()}
        priority = next((number for number in reversed(FAULT_PRIORITIES) if number not in taken), None)
        if priority is None:
            raise DataplaneError(f"{len(taken)} grudges are in force; there is no room for another")
        cookie = FAULT_COOKIE | next(self._serials)
        messages: dict[str, list[bytes]] = {}
        for rule in rules:
            message = openflow.drop_rule(_TABLE, priority, cookie, rule.sender_ip, rule.receiver_ip)
            messages.setdefault(rule.switch, []).append(message)
        in_force = _InForce(priority, cookie, tuple(messages))
        try:
            _change(messages)
        except DataplaneError:
            with suppress(DataplaneError):  # of those switches that did take it
                self._remove(in_force)
            raise
        fault = Fault(self)
        self._grudges[fault] = in_force
        return fault

    def lift(self, fault: Fault) -> None:
        if fault in self._grudges:
            self._remove(self._grudges[fault])
            del self._grudges[fault]
        elif fault in self._cuts:
            link = self._cuts.pop(fault)
            if link not in self._cuts.values():
                self._set_carrier(link, up=True)

    @staticmethod
    def _remove(grudge: _InForce) -> None:
        _change({switch: [openflow.removal(_TABLE, grudge.cookie)] for switch in grudge.switches})

    def _set_carrier(self, link: str, *, up: bool) -> None:
        # Down at the switches' ends only: that takes the carrier from a host's end too, and leaves the host its routes.
        found = self._plan.link(link)
        ends = [end for end in (found.a, found.b) if end.node in self._switches]
        try:
            with Netlink() as netlink:
                netlink.request([set_state(end.interface, up=up) for end in ends])
        except NetlinkError as error:
            raise DataplaneError(f"{link}: {error.filename} failed: {error.strerror}") from error


def _change(messages: Mapping[str, Sequence[bytes]]) -> None:
    try:
        openflow.change({RUN_DIRECTORY / f"{switch}.mgmt": batch for switch, batch in messages.items()})
        forget_cached_flows()
    except (OpenFlowError, OpenVSwitchError) as error:
        raise DataplaneError(str(error)) from error
