"""Paths, and what connections make of a network that loses, holds and drops."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.process import Event, Received
from experiments.simulation.kernel import Kernel
from experiments.simulation.network import LEAST_RTO_NS, NOTICED_NS, ROUTED_NS, Network, ProcessEndpoint
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.tenants import tenant, with_tenants

MS = 1_000_000
SECOND = 1_000 * MS
SILENCE = 600 * MS
REPAIRED = 20 * MS
PLAN = LeafSpine(2, 3, 2)
PLACEMENT = {"n1": "h1", "n2": "h3", "n3": "h5", "c1": "h2"}


class Fabric:
    """Three nodes and a client, all up; what each gets is in ``inbox`` with the time it came."""

    def __init__(self, seed: int = 1, plan: FabricPlan = PLAN, tenant: str = "") -> None:
        self.kernel = Kernel()
        self.network = Network(self.kernel, plan, PLACEMENT, ("n1", "n2", "n3"), SILENCE, seed, tenant)
        self.inbox: dict[str, list[tuple[int, Any]]] = {name: [] for name in PLACEMENT}
        self.endpoints: dict[str, ProcessEndpoint] = {}
        for name in PLACEMENT:
            self.start(name)
        self.run(SECOND)

    def start(self, name: str) -> None:
        self.endpoints[name] = self.network.endpoint(name)

        def take(events: list[Event]) -> None:
            for event in events:
                assert isinstance(event, Received)
                self.inbox[name].append((self.kernel.now, event.message))

        self.endpoints[name].start(take)

    def run(self, nanoseconds: int) -> None:
        self.kernel.run(self.kernel.now + nanoseconds)

    def send(self, sender: str, receiver: str, message: Any) -> None:
        self.endpoints[sender].send(receiver, [Received(sender, message)], self.kernel.now)

    def stream(self, sender: str, receiver: str, count: int, every: int) -> list[int]:
        """Send 0, 1, 2 …; return what came."""
        for message in range(count):
            self.send(sender, receiver, message)
            self.run(every)
        self.run(20 * MS)
        return [message for _, message in self.inbox[receiver]]


def test_between_leaves_a_path_goes_over_one_spine_and_within_a_leaf_over_none() -> None:
    network = Fabric().network
    path = network.path("h1", "h5", "some flow")
    assert path is not None
    assert [lane.name.split(">")[0] for lane in path][:2] == ["h1", "leaf1"]
    assert path[1].name in ("leaf1>spine1", "leaf1>spine2")
    assert path[2].name == path[1].name.split(">")[1] + ">leaf3"
    assert [lane.name for lane in network.path("h1", "h2", "flow") or ()] == ["h1>leaf1", "leaf1>h2"]
    assert network.path("h1", "h1", "flow") == []


def test_flows_are_spread_over_the_spines_and_only_those_of_a_dead_link_move() -> None:
    fabric = Fabric()
    network = fabric.network

    def spines() -> dict[str, str]:
        paths = {f"flow {number}": network.path("h1", "h5", f"flow {number}") for number in range(200)}
        return {flow: path[1].name for flow, path in paths.items() if path}

    before = spines()
    assert 60 < sum(spine == "leaf1>spine1" for spine in before.values()) < 140
    network.cut("leaf3-spine1")
    fabric.run(REPAIRED)
    after = spines()
    assert set(after.values()) == {"leaf1>spine2"}
    assert all(after[flow] == spine for flow, spine in before.items() if spine == "leaf1>spine2")


def test_a_link_that_goes_down_loses_packets_until_it_is_repaired_around() -> None:
    fabric = Fabric()
    handle = fabric.network.cut("leaf1-spine1")
    reached = [fabric.network.probe("h1", "h5") for _ in range(100)]
    assert 20 < sum(reached) < 80
    fabric.run(REPAIRED)
    assert all(fabric.network.probe("h1", "h5") for _ in range(100))
    fabric.network.cut("leaf1-spine2")
    fabric.run(REPAIRED)
    assert not any(fabric.network.probe("h1", "h5") for _ in range(100))
    assert fabric.network.probe("h1", "h2")
    fabric.network.lift(handle)
    fabric.run(REPAIRED)
    assert all(fabric.network.probe("h1", "h5") for _ in range(100))


def test_a_link_is_up_again_only_when_every_fault_that_cut_it_is_lifted() -> None:
    network = Fabric().network
    first, second = network.cut("leaf1-spine1"), network.cut("leaf1-spine1")
    network.lift(first)
    assert not network.carrier("leaf1-spine1")
    network.lift(second)
    assert network.carrier("leaf1-spine1")


def test_between_the_ends_of_a_dead_link_noticing_it_and_the_others_being_told_its_traffic_has_no_way() -> None:
    fabric = Fabric(plan=LeafSpine(1, 3, 2))
    fabric.network.cut("leaf3-spine1")
    assert fabric.network.path("h1", "h5", "flow")
    fabric.run(NOTICED_NS[1])
    assert fabric.network.path("h1", "h5", "flow") is None
    assert fabric.network.path("h1", "h3", "flow")


@pytest.mark.parametrize("bfd_interval", [0, 20 * MS])
def test_a_link_that_passes_nothing_one_way_is_left_only_where_bfd_watches_it(bfd_interval: int) -> None:
    fabric = Fabric(plan=msgspec.structs.replace(PLAN, bfd_interval=bfd_interval))
    network = fabric.network

    def first_hops() -> set[str]:
        return {path[1].name for flow in range(50) for path in [network.path("h1", "h5", f"{flow}")] if path}

    handle = network.impair("spine1>leaf1", Impairment(loss=1.0))
    fabric.run(3 * bfd_interval - 1)
    assert first_hops() == {"leaf1>spine1", "leaf1>spine2"}
    fabric.run(REPAIRED + 1)
    assert first_hops() == ({"leaf1>spine2"} if bfd_interval else {"leaf1>spine1", "leaf1>spine2"})
    network.lift(handle)
    fabric.run(2 * SECOND + REPAIRED)
    assert first_hops() == {"leaf1>spine1", "leaf1>spine2"}


def test_the_routed_data_plane_is_repaired_as_soon_as_it_was_measured_to_be() -> None:
    fabric = Fabric(plan=msgspec.structs.replace(PLAN, dataplane="routed"))
    fabric.network.cut("leaf3-spine1")
    fabric.run(ROUTED_NS[1])
    assert all(fabric.network.probe("h1", "h5") for _ in range(50))


def test_on_an_unbroken_network_everything_arrives_in_order_and_soon() -> None:
    fabric = Fabric()
    assert fabric.stream("n1", "n2", 50, MS // 10) == list(range(50))
    assert fabric.network.dropped == fabric.network.resets == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.05, 0.3]), st.sampled_from([0, 5 * MS]))
def test_a_lossy_link_costs_time_but_no_order_and_nothing_while_the_connection_stands(
    seed: int, loss: float, jitter: int
) -> None:
    fabric = Fabric(seed)
    for direction in ("leaf1>spine1", "leaf1>spine2"):
        fabric.network.impair(direction, Impairment(delay=10 * MS, jitter=jitter, loss=loss))
    arrived = fabric.stream("n1", "n2", 60, 20 * MS)
    fabric.run(5 * SECOND)
    arrived = [message for _, message in fabric.inbox["n2"]]
    assert arrived == sorted(set(arrived))
    if not fabric.network.resets:
        assert arrived == list(range(60))


def test_a_lost_frame_is_sent_again_when_its_timer_runs_out_or_sooner_when_later_ones_arrive() -> None:
    waits: dict[str, int] = {}
    for what, followers in (("alone", 0), ("followed", 5)):
        fabric = Fabric()
        handle = fabric.network.drop({"n2": ["n1"]})
        began = fabric.kernel.now
        fabric.send("n1", "n2", 0)
        fabric.network.lift(handle)
        for message in range(1, followers + 1):
            fabric.run(2 * MS)
            fabric.send("n1", "n2", message)
        fabric.run(SECOND)
        assert [message for _, message in fabric.inbox["n2"]] == list(range(followers + 1))
        waits[what] = fabric.inbox["n2"][0][0] - began
    assert LEAST_RTO_NS < waits["alone"] < LEAST_RTO_NS + 30 * MS
    assert waits["followed"] < 40 * MS


def test_a_peer_that_acknowledges_nothing_is_given_up_after_the_silence_and_dialled_until_it_answers() -> None:
    fabric = Fabric()
    handle = fabric.network.drop({"n2": ["n1"], "n1": ["n2"]})
    assert fabric.stream("n1", "n2", 40, 100 * MS) == []
    assert fabric.network.resets == 2  # the connection they speak on, and then their other one
    assert fabric.network.dropped > 20
    fabric.network.lift(handle)
    fabric.run(SECOND)
    fabric.send("n1", "n2", 99)
    fabric.run(SECOND)
    assert [message for _, message in fabric.inbox["n2"]] == [99]


def test_in_a_one_way_partition_what_is_said_arrives_once_though_no_acknowledgement_does() -> None:
    fabric = Fabric()
    fabric.network.drop({"n1": ["n2"]})
    fabric.send("n1", "n2", 7)
    fabric.run(550 * MS)
    assert [message for _, message in fabric.inbox["n2"]] == [7]
    fabric.run(SECOND)
    assert fabric.network.resets == 1
    assert len(fabric.inbox["n2"]) == 1


def test_two_nodes_speak_on_the_one_of_their_connections_that_is_up() -> None:
    for lost in (("n1", "n2"), ("n2", "n1")):
        fabric = Fabric()
        call = fabric.network.calls[lost]
        assert call.connection is not None
        call.connection.reset()
        fabric.send("n1", "n2", 1)
        fabric.send("n2", "n1", 2)
        fabric.run(5 * MS)  # dialled anew, it would take longer
        assert [message for _, message in fabric.inbox["n2"]] == [1]
        assert [message for _, message in fabric.inbox["n1"]] == [2]


def test_clients_hear_answers_on_the_connection_they_dialled() -> None:
    fabric = Fabric()
    fabric.endpoints["n2"].reply("c1", [Received("n2", 5)], fabric.kernel.now)
    fabric.run(100 * MS)
    assert [message for _, message in fabric.inbox["c1"]] == [5]


def test_what_was_in_flight_to_a_process_that_dies_is_lost_and_its_next_life_is_dialled() -> None:
    fabric = Fabric()
    fabric.send("n1", "n2", 1)
    fabric.endpoints["n2"].stop()
    fabric.run(2 * SECOND)
    assert fabric.inbox["n2"] == []
    fabric.send("n1", "n2", 2)
    assert fabric.network.dropped == 1
    fabric.start("n2")
    fabric.run(2 * SECOND)
    fabric.send("n1", "n2", 3)
    fabric.send("n2", "n1", 4)
    fabric.run(100 * MS)
    assert [message for _, message in fabric.inbox["n2"]] == [3]
    assert [message for _, message in fabric.inbox["n1"]] == [4]


@pytest.mark.parametrize("queue", [5, 1000])
def test_a_rate_holds_what_it_cannot_send_at_once_and_a_full_queue_drops(queue: int) -> None:
    fabric = Fabric()
    lane = fabric.network.twin("leaf1>spine1", Impairment(rate=1_000_000, queue=queue))
    arrived = [lane.cross(0, 1250) for _ in range(20)]
    came = [moment for moment in arrived if moment is not None]
    assert len(came) == min(queue, 20)
    assert came[-1] - came[0] == (len(came) - 1) * 10 * MS


def test_the_last_impairment_put_on_a_direction_is_in_force_and_lifting_it_restores_the_one_before() -> None:
    network = Fabric().network
    first = network.impair("leaf1>spine1", Impairment(delay=5 * MS))
    second = network.impair("leaf1>spine1", Impairment(delay=9 * MS))
    lane = network.lane("leaf1>spine1")
    assert lane.impairment == Impairment(delay=9 * MS)
    network.lift(second)
    assert lane.impairment == Impairment(delay=5 * MS)
    network.lift(first)
    assert lane.impairment is None


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.sampled_from(["uniform", "normal", "pareto"]), st.sampled_from([0.0, 4.0]))
def test_a_lane_loses_and_delays_as_its_impairment_says(seed: int, distribution: str, burst: float) -> None:
    impairment = Impairment(delay=50 * MS, jitter=5 * MS, distribution=distribution, loss=0.2, burst=burst)  # type: ignore[arg-type]
    lane = Fabric(seed).network.twin("leaf1>spine1", impairment)
    crossed = [lane.cross(0, 100) for _ in range(4000)]
    came = [moment for moment in crossed if moment is not None]
    assert 0.14 < 1 - len(came) / len(crossed) < 0.26
    assert sum(came) / len(came) == pytest.approx(50 * MS, rel=0.05)


def narrow(mtu: int, mss: int | None = None, dataplane: Any = "ovs") -> FabricPlan:
    """Leaf 1's uplinks carry ``mtu`` bytes. With ``mss`` there is a tenant, clamped to that, or, with 0, to nothing."""
    plan = PLAN
    if mss is not None:
        plan = with_tenants(plan, [tenant("blue", 100, "192.168.0.0/24", [host.name for host in PLAN.hosts], mss=mss)])
    links = tuple(
        msgspec.structs.replace(link, mtu=mtu) if link.name.startswith("leaf1-spine") else link for link in plan.links
    )
    return msgspec.structs.replace(plan, links=links, dataplane=dataplane)


def of_frame(size: int) -> bytes:
    """A message whose frame is so long: 5 bytes before a list of one, and msgpack's own of a long string of bytes."""
    return bytes(size - 5 - 1 - 3)


@pytest.mark.parametrize("extra", [0, 1, 1000, 100_000])
@pytest.mark.parametrize(
    ("mtu", "mss", "fits"),
    [
        (1450, None, 1450 - 52),  # IP and TCP with time stamps
        (1450, 0, 1450 - 50 - 52),  # the tunnel, too
        (1400, 1360, 1400 - 50 - 52),  # clamped to less, and not enough
    ],
)
def test_a_frame_that_a_narrow_link_cannot_carry_never_arrives_and_a_small_one_does(
    mtu: int, mss: int | None, fits: int, extra: int
) -> None:
    fabric = Fabric(plan=narrow(mtu, mss), tenant="" if mss is None else "blue")
    fabric.send("n1", "n2", of_frame(fits + extra))
    fabric.run(2 * SECOND)
    assert len(fabric.inbox["n2"]) == (extra == 0)
    assert (fabric.network.resets > 0) == (extra > 0)
    fabric.send("n1", "n2", 1)  # which is dialled anew
    fabric.send("n2", "n3", of_frame(100_000))
    fabric.run(SECOND)
    assert [message for _, message in fabric.inbox["n2"]][-1] == 1
    assert len(fabric.inbox["n3"]) == 1


def test_behind_what_does_not_fit_everything_waits_until_the_connection_is_given_up() -> None:
    fabric = Fabric(plan=narrow(1450, 0), tenant="blue")
    fabric.send("n1", "n2", of_frame(3000))
    assert fabric.stream("n1", "n2", 10, MS) == []
    fabric.run(2 * SECOND)
    assert fabric.inbox["n2"] == []
    assert fabric.stream("n2", "n1", 10, MS) == list(range(10))


@pytest.mark.parametrize(
    ("plan", "within"),
    [
        (narrow(1450, 1360), "blue"),  # clamping
        (narrow(1450, 0, "routed"), "blue"),  # routers fragment tunnels' packets
        (narrow(1450, None, "routed"), ""),  # and tell hosts
        (narrow(1550, 0), "blue"),
    ],
)
def test_nothing_is_too_large_where_segments_fit_or_routers_do_what_routers_do(plan: FabricPlan, within: str) -> None:
    fabric = Fabric(plan=plan, tenant=within)
    for size in (100, 1348, 1349, 1448, 1449, 100_000):
        fabric.send("n1", "n2", of_frame(size))
    fabric.run(SECOND)
    assert len(fabric.inbox["n2"]) == 6
