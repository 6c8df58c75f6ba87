"""What the controller decides to send when switches connect, links fail and controllers restart, on a fake fabric."""

from __future__ import annotations

import random
from collections import deque

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.fake_switch import FakeFabric
from controllers.pipeline import Program, programs
from controllers.reconcile import RETRY_NS, Effect, Read, Reconciler, Report, Send
from controllers.status import Disconnected, Event, LinkDown, LinkUp, Ready, Refused, Repaired, read
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan

unhurried = settings(deadline=None)  # a busy machine is no failure


class Network:
    """Carries a reconciler's effects to a fabric's switches and back. Each connection delivers in order, when told."""

    def __init__(self, fabric: FakeFabric) -> None:
        self.fabric = fabric
        self.reported: list[Event] = []
        self.sent = 0
        self.now = 0
        self.restart_controller()

    def restart_controller(self) -> None:
        self.reconciler = Reconciler(self.fabric.plan)
        self.reported.clear()
        self.sent = 0
        self.queues: dict[str, deque[Read | Send]] = {name: deque() for name in self.fabric.switches}

    def connect(self, *names: str) -> None:
        for name in names:
            self.queues[name].clear()
            self.take(self.reconciler.connected(self._tick(), name, self.fabric.live_ports(name)))

    def connect_all(self) -> None:
        self.connect(*self.fabric.switches)
        self.settle()

    def disconnect(self, name: str) -> None:
        self.queues[name].clear()
        self.take(self.reconciler.disconnected(self._tick(), name))

    def set_link(self, name: str, up: bool) -> None:
        """Both ends report, one after the other, unless nothing changed."""
        if up == (name not in self.fabric.dead):
            return
        (self.fabric.dead.remove if up else self.fabric.dead.add)(name)
        link = self.fabric.plan.link(name)
        for end in (link.a, link.b):
            if end.node in self.fabric.switches:
                self.take(self.reconciler.port_changed(self._tick(), end.node, end.port, up))

    def deliver(self, name: str) -> None:
        """Let the switch answer the oldest thing it was sent."""
        switch = self.fabric.switches[name]
        match self.queues[name].popleft():
            case Read():
                self.take(self.reconciler.described(self._tick(), name, switch.program))
            case Send(_, changes, token):
                for change in changes:
                    switch.apply(change)
                self.take(self.reconciler.confirmed(self._tick(), name, token))

    def settle(self) -> None:
        while waiting := [name for name, queue in self.queues.items() if queue]:
            self.deliver(waiting[0])

    def hurry(self) -> None:
        self.take(self.reconciler.hurry(self._tick()))

    def holds(self, dead: set[str]) -> bool:
        wanted = programs(self.fabric.plan, dead)
        return all(_same(switch.program, wanted[name]) for name, switch in self.fabric.switches.items())

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def take(self, effects: list[Effect]) -> None:
        """Take note of what the reconciler wants done."""
        for effect in effects:
            if isinstance(effect, Report):
                self.reported.append(effect.event)
                continue
            self.queues[effect.switch].append(effect)
            if isinstance(effect, Send):
                self.sent += len(effect.changes)


def _same(one: Program, other: Program) -> bool:
    return set(one.flows) == set(other.flows) and set(one.groups) == set(other.groups)


def running(plan: FabricPlan, *dead: str) -> Network:
    """A fabric whose switches were all programmed around ``dead``, and then the controller started anew."""
    fabric = FakeFabric(plan)
    fabric.load(programs(plan, dead))
    fabric.dead.update(dead)
    return Network(fabric)


def test_switches_that_connect_empty_are_programmed_and_reported_ready_one_by_one() -> None:
    network = Network(FakeFabric(LeafSpine(2, 3, 2)))
    network.connect_all()
    assert network.holds(set())
    ready = [event for event in network.reported if isinstance(event, Ready)]
    assert [len(event.ready) for event in ready] == [1, 2, 3, 4, 5]
    assert all(event.changes > 0 for event in ready)
    assert not any(isinstance(event, LinkDown | Repaired) for event in network.reported)


@unhurried
@given(st.randoms(use_true_random=False), st.integers(1, 3), st.integers(1, 3))
def test_whatever_fails_in_whatever_order_of_messages_switches_end_up_with_what_the_live_links_call_for(
    rng: random.Random, spines: int, leaves: int
) -> None:
    plan = LeafSpine(spines, leaves, 1)
    network = Network(FakeFabric(plan))
    network.connect(*network.fabric.switches)
    links = [link.name for link in plan.links]
    for _ in range(30):
        waiting = [name for name, queue in network.queues.items() if queue]
        match rng.randrange(8):
            case 0:
                network.set_link(rng.choice(links), up=False)
            case 1:
                network.set_link(rng.choice(links), up=True)
            case 2:
                name = rng.choice(list(network.fabric.switches))
                network.disconnect(name)
                network.connect(name)
            case _ if waiting:
                network.deliver(rng.choice(waiting))
    network.settle()
    dead = network.fabric.dead
    assert network.holds(dead)
    answers = [event for event in network.reported if isinstance(event, Repaired)]
    changed = any(isinstance(event, LinkDown | LinkUp) for event in network.reported)
    assert [event.dead for event in answers[-1:]] == ([tuple(sorted(dead))] if changed else [])


@unhurried
@given(st.permutations(["leaf1", "leaf2", "leaf3", "spine1", "spine2"]))
def test_a_restarted_controller_sends_nothing_to_a_fabric_that_is_right_whoever_connects_first(
    order: list[str],
) -> None:
    network = running(LeafSpine(2, 3, 2), "leaf1-spine1", "leaf3-spine2", "h1-leaf1")
    for name in order:
        network.connect(name)
        network.settle()
    assert network.sent == 0
    [*_, last] = [event for event in network.reported if isinstance(event, Ready)]
    assert (last.changes, set(last.ready)) == (0, set(order))


def test_a_restarted_controller_repairs_what_failed_while_it_was_gone() -> None:
    network = running(LeafSpine(2, 3, 2))
    network.fabric.dead.add("leaf2-spine1")
    network.connect_all()
    assert network.holds({"leaf2-spine1"})
    [repaired] = [event for event in network.reported if isinstance(event, Repaired)]
    assert repaired.dead == ("leaf2-spine1",)
    assert repaired.changes == network.sent


def test_a_controller_without_one_of_its_switches_waits_before_it_changes_a_running_fabric_but_not_for_ever() -> None:
    network = running(LeafSpine(2, 3, 2))
    network.fabric.dead.add("leaf2-spine1")
    present = [name for name in network.fabric.switches if name != "spine2"]
    network.connect(*present)
    network.settle()
    assert network.sent == 0
    network.hurry()
    network.settle()
    assert network.sent > 0
    wanted = programs(network.fabric.plan, {"leaf2-spine1"})
    assert all(_same(network.fabric.switches[name].program, wanted[name]) for name in present)


def test_a_switch_that_comes_back_empty_is_filled_again() -> None:
    network = running(LeafSpine(2, 2, 1))
    network.connect_all()
    network.disconnect("leaf1")
    network.fabric.load({"leaf1": Program()})
    network.connect("leaf1")
    network.settle()
    assert network.holds(set())
    assert any(isinstance(event, Disconnected) and event.switch == "leaf1" for event in network.reported)


@pytest.mark.parametrize(("link", "switches"), [("leaf1-spine1", 3), ("h1-leaf1", 0)])
def test_a_dead_link_costs_the_leaves_that_route_by_it_a_few_messages_and_is_reported_when_they_confirm(
    link: str, switches: int
) -> None:
    network = running(LeafSpine(3, 3, 2))
    network.connect_all()
    network.set_link(link, up=False)
    assert sum(1 for queue in network.queues.values() if queue) == switches
    assert any(isinstance(event, Repaired) for event in network.reported) == (switches == 0)
    network.settle()
    down, repaired = (event for event in network.reported if isinstance(event, LinkDown | Repaired))
    assert isinstance(repaired, Repaired)
    assert isinstance(down, LinkDown)
    assert (repaired.since, repaired.dead) == (down.t, (link,))
    assert repaired.changes == network.sent <= 4


def test_a_switch_that_never_answers_keeps_a_repair_from_being_reported_until_it_disconnects() -> None:
    network = running(LeafSpine(2, 2, 1))
    network.connect_all()
    network.set_link("leaf1-spine1", up=False)
    network.deliver("leaf1")
    assert not any(isinstance(event, Repaired) for event in network.reported)
    network.disconnect("leaf2")
    assert any(isinstance(event, Repaired) for event in network.reported)


def test_an_answer_that_a_later_change_overtook_does_not_end_the_repair() -> None:
    network = running(LeafSpine(3, 2, 1))
    network.connect_all()
    network.set_link("leaf1-spine1", up=False)
    network.set_link("leaf1-spine2", up=False)
    for name in ("leaf1", "leaf2"):
        network.deliver(name)
    assert not any(isinstance(event, Repaired) for event in network.reported)
    network.settle()
    [repaired] = [event for event in network.reported if isinstance(event, Repaired)]
    assert repaired.dead == ("leaf1-spine1", "leaf1-spine2")


def test_a_switch_that_refuses_a_message_is_not_called_ready_nor_its_repair_done() -> None:
    network = Network(FakeFabric(LeafSpine(2, 2, 1)))
    network.connect("leaf1")
    network.deliver("leaf1")
    network.take(network.reconciler.refused(1, "leaf1", "OFPET_GROUP_MOD_FAILED OFPGMFC_OUT_OF_GROUPS"))
    network.connect("leaf2", "spine1", "spine2")
    network.settle()
    network.set_link("leaf1-spine1", up=False)
    network.settle()
    assert any(isinstance(event, Refused) for event in network.reported)
    assert {event.switch for event in network.reported if isinstance(event, Ready)} == {"leaf2", "spine1", "spine2"}
    assert not any(isinstance(event, Repaired) for event in network.reported)
    assert network.holds({"leaf1-spine1"}), "it is sent what changes all the same"
    network.connect("leaf1")
    network.settle()
    assert {type(event) for event in network.reported[-2:]} == {Ready, Repaired}


def test_what_a_switch_refused_is_read_and_sent_anew_until_it_takes_it_more_and_more_seldom() -> None:
    network = running(LeafSpine(2, 2, 1))
    network.connect_all()
    network.set_link("leaf1-spine1", up=False)
    network.queues["leaf2"].clear()  # it did nothing of that, and says so
    network.take(network.reconciler.refused(10, "leaf2", "OFPET_BAD_REQUEST OFPBRC_EPERM"))
    network.settle()
    assert not network.holds({"leaf1-spine1"})
    assert network.reconciler.retry(9 + RETRY_NS) == []
    [read_it] = network.reconciler.retry(10 + RETRY_NS)
    assert read_it == Read("leaf2")
    assert network.reconciler.retry(11 + RETRY_NS) == [], "it is being read already"
    later = 20 + RETRY_NS
    network.take(network.reconciler.refused(later, "leaf2", "OFPET_BAD_REQUEST OFPBRC_EPERM"))
    network.take([read_it])
    network.queues["leaf2"].popleft()
    network.take(network.reconciler.described(later, "leaf2", network.fabric.switches["leaf2"].program))
    network.queues["leaf2"].clear()
    assert network.reconciler.retry(later + RETRY_NS) == []
    network.take(network.reconciler.retry(later + 2 * RETRY_NS))
    network.settle()
    assert network.holds({"leaf1-spine1"})
    assert {type(event) for event in network.reported[-2:]} == {Ready, Repaired}
    assert network.reconciler.state().refusals == 2


def test_a_status_file_is_read_up_to_the_line_that_is_still_being_written() -> None:
    events = [Ready(5, "leaf1", 3, ("leaf1",)), LinkDown(6, "leaf1-spine1"), Repaired(7, 6, ("leaf1-spine1",), 2)]
    lines = [msgspec.json.encode(event) + b"\n" for event in events]
    assert b'"event":"link_down"' in lines[1]
    assert read(b"".join(lines)) == events
    assert read(b"".join(lines)[:-1]) == events[:-1]
    assert read(b"") == []
