"""How long streams across the fabric fall silent when a link of theirs dies, near, far or silently, or the controller.

Two leaves with a host each, under four spines; `streams.FLOWS` streams between the hosts, two milliseconds between the
datagrams of each. A round is one failure; its figure is the longest time that any stream's receiver heard nothing.
Then the same over VXLAN, between the members of a tenant in these hosts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from experiments.bench import BenchError, Figure, figure
from experiments.bench.streams import Streamed, p95, stream
from experiments.emulation.inside import Inside
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.sandbox import Sandbox
from topologies.tenants import tenant, with_tenants

SPINES = 4
NEAR, FAR = "leaf1", "leaf2"
ROUNDS = 20
#: Seconds: of a round, of it before the failure, and afterwards until the link is used again.
ROUND, BEFORE, SETTLE = 0.7, 0.2, 0.2
#: BFD finds a link's silence after three intervals, and takes up to two seconds to trust the link again (RFC 5880,
#: §6.8.3: a session that is not up sends once a second).
BFD_INTERVAL_NS = 20_000_000
TRUST = 2.5
SETTLE_BFD = 1.2  # the next round breaks another link of another spine
CONTROLLER_DEAD = 10.0
PATIENCE = 30.0

#: What the sender itself left between two datagrams: a gap that no failure made.
PAUSE = "sender's longest pause"


def bench() -> list[Figure]:
    plan = LeafSpine(SPINES, 2, 1)
    with _fabric(plan) as sandbox:
        local = [sandbox.run_sync(lose_carrier, _link(NEAR, number)) for number in range(ROUNDS)]
        remote = [sandbox.run_sync(lose_carrier, _link(FAR, number)) for number in range(ROUNDS)]
        killed = sandbox.run_sync(kill_controller)
    with _fabric(msgspec.structs.replace(plan, bfd_interval=BFD_INTERVAL_NS)) as sandbox:
        time.sleep(TRUST)
        silent = [sandbox.run_sync(fall_silent, _link((NEAR, FAR)[number % 2], number)) for number in range(ROUNDS)]
    tenants = with_tenants(plan, [tenant("blue", 100, "192.168.0.0/24", [host.name for host in plan.hosts])])
    with _fabric(tenants) as sandbox:
        tunnelled = [sandbox.run_sync(lose_carrier, _link(NEAR, number)) for number in range(ROUNDS)]
        tunnelled_remote = [sandbox.run_sync(lose_carrier, _link(FAR, number)) for number in range(ROUNDS)]
    return [
        _gap("local_p95_ms", local, "≤ 20"),
        _gap("remote_p95_ms", remote, "≤ 50"),
        _gap("silent_p95_ms", silent, "≤ 100"),
        _gap("vxlan_local_p95_ms", tunnelled),
        _gap("vxlan_remote_p95_ms", tunnelled_remote),
        figure("controller_kill_lost", killed.lost, "packets", aim="≤ 0", peer="sent", peer_value=killed.sent),
    ]


def _gap(name: str, rounds: list[Streamed], aim: str | None = None) -> Figure:
    gaps, pauses = [round.gap for round in rounds], [round.pause for round in rounds]
    return figure(name, p95(gaps), "ms", aim=aim, peer=PAUSE, peer_value=p95(pauses))


def _link(leaf: str, number: int) -> str:
    return f"{leaf}-spine{number % SPINES + 1}"


@contextmanager
def _fabric(plan: FabricPlan) -> Iterator[Sandbox]:
    with tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name:
        ended: list[tuple[str, str, int]] = []
        with Sandbox(Inside, plan, Path(name), 1, out=Path(name), on_event=ended.append) as sandbox:
            sandbox.call_sync("build")
            sandbox.call_sync("wait_forwarding", PATIENCE)
            yield sandbox
        if ended and ended != [("exited", "controller", -9)]:
            raise BenchError(f"{ended[0][1]} ended with status {ended[0][2]} in the middle of the bench")


# What follows runs in the sandbox.


def lose_carrier(inside: Inside, link: str) -> Streamed:
    """Both ends of ``link`` lose their carrier."""
    cuts: list[int] = []
    return _round(inside, lambda: cuts.append(inside.cut(link)), lambda: inside.lift(cuts[0]), SETTLE)


def fall_silent(inside: Inside, link: str) -> Streamed:
    """Everything on ``link`` is lost, both ways, and its ends keep their carrier."""
    directions = inside.plan.link(link).directions
    # What will lose them is there before, and passes all: starting it takes longer than what is measured.
    impaired = [inside.impair(direction, Impairment()) for direction in directions]

    def lose() -> None:
        impaired.extend(inside.impair(direction, Impairment(loss=1.0)) for direction in directions)

    def lift() -> None:
        for handle in reversed(impaired):
            inside.lift(handle)

    return _round(inside, lose, lift, SETTLE_BFD)


def _round(inside: Inside, fail: Callable[[], None], heal: Callable[[], None], settle: float) -> Streamed:
    sender, receiver = inside.plan.tenants[0].members if inside.plan.tenants else inside.plan.hosts
    streamed = stream(inside, sender.name, receiver.name, ROUND, BEFORE, fail)
    heal()
    time.sleep(settle)
    return streamed


def kill_controller(inside: Inside) -> Streamed:
    """The controller dies at once and stays dead for `CONTROLLER_DEAD` seconds of traffic."""
    sender, receiver = inside.plan.hosts
    return stream(
        inside, sender.name, receiver.name, BEFORE + CONTROLLER_DEAD, BEFORE, lambda: inside.kill("controller")
    )
