"""Backends that need a kernel with netem and openvswitch, run for real. Bounds are those of an emulated processor."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from topologies.fabric import Fabric
from topologies.impair import Counters, ImpairError, Impairments, choose_backend, run
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.machine import choices, probe
from topologies.measure import Obtained, ObtainedRate, measure_link, measure_rate, verify, verify_rate
from topologies.plan import FabricPlan
from topologies.sandbox import Sandbox

pytestmark = [pytest.mark.network, pytest.mark.timeout(240)]

MS = 1_000_000
PLAN = LeafSpine(2, 2, 1)

#: One direction of every kind: what a host sends is impaired behind an ifb, the rest where it leaves.
KINDS = ("h1>leaf1", "leaf1>spine1", "spine1>leaf2", "leaf2>h2")

#: What an emulated processor may add to a delay.
PATIENCE = 30 * MS


class Lab:
    """A fabric on the kernel's datapath, with its controller."""

    def __init__(self, plan: FabricPlan, out: Path) -> None:
        self.plan = plan
        written = Path("/run/plan.json")
        written.write_bytes(plan.to_json())
        launch = [sys.executable, "-m", "controllers.launch", "--plan", str(written), "--status", "/run/status.jsonl"]
        self._controller = subprocess.Popen(launch)
        self.net = Fabric(plan, datapath="system", log_directory=out)
        self.net.start()
        self.impairments = Impairments(plan, choose_backend("netem", datapath="kernel"))

    async def wait_ready(self) -> None:
        await self.net.wait_ready(60)

    def datapaths(self) -> str:
        return run(["ovs-appctl", "-t", f"/run/openvswitch/ovs-vswitchd.{self._vswitchd()}.ctl", "dpif/show"])

    def _vswitchd(self) -> int:
        return int(Path("/run/openvswitch/ovs-vswitchd.pid").read_text())

    async def reached(self) -> dict[str, dict[str, list[int]]]:
        return await self.net.prober.matrix(["h1", "h2"], 3, 1.0)

    def cut(self, link: str) -> None:
        self.net.dataplane.cut(link)

    async def reached_despite_grudge(self) -> tuple[dict[str, Any], dict[str, Any]]:
        with self.net.dataplane.drop({"h1": {"h2"}}):
            during = await self.reached()
        return during, await self.reached()

    async def measured(self, impairment: Impairment, names: Sequence[str]) -> dict[str, tuple[Obtained, Counters]]:
        """What probes see of directions while all of them are impaired."""
        handles = {name: self.impairments.apply(name, impairment) for name in names}
        found = {}
        for name in names:
            obtained = await measure_link(self.impairments.measured(name), packets=120, interval=4 * MS, wait=500 * MS)
            found[name] = (obtained, self.impairments.counters(name))
        for handle in handles.values():
            self.impairments.clear(handle)
        return found

    async def rates(self, impairment: Impairment) -> dict[str, ObtainedRate]:
        found = {}
        for name in KINDS:
            with self.impairments.impair(name, impairment):
                measured = self.impairments.measured(name)
                found[name] = await measure_rate(measured, offered=2 * impairment.rate, duration=1500 * MS)
        return found

    async def changed(self) -> list[Obtained]:
        """``h1>leaf1`` under one impairment, under another, and lifted."""
        handle = self.impairments.apply("h1>leaf1", Impairment(delay=80 * MS))
        seen = [await measure_link(self.impairments.measured("h1>leaf1"), packets=30)]
        self.impairments.change(handle, Impairment(loss=1.0))
        seen.append(await measure_link(self.impairments.measured("h1>leaf1"), packets=30))
        self.impairments.clear(handle)
        return seen

    def leftovers(self) -> str:
        """What netem and its detours have left on the fabric's interfaces."""
        return run(["tc", "qdisc", "show"]) + run(["ip", "-o", "link", "show", "type", "ifb"])

    def remove(self, interface: str) -> None:
        run(["ip", "link", "del", interface])

    def refused(self, name: str, impairment: Impairment) -> str:
        """Why an impairment is."""
        try:
            self.impairments.apply(name, impairment)
        except ImpairError as error:
            return str(error)
        return "not refused"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    out = tmp_path_factory.mktemp("lab")
    try:
        with Sandbox(Lab, PLAN, out, out=out) as sandbox:
            sandbox.call_sync("wait_ready")
            yield sandbox
    finally:
        for log in out.glob("*.log"):
            print(f"--- {log.name}", log.read_text(errors="replace"), sep="\n", end="")


def test_doctor_finds_the_kernels_own_backends() -> None:
    used = {choice.feature: choice.backend for choice in choices(probe())}
    assert used["datapath"] == "system"
    assert used["impairment"] == "netem"


def test_the_fabric_forwards_through_the_kernels_datapath(lab: Sandbox) -> None:
    assert lab.call_sync("reached") == {"h1": {"h2": [3, 3]}, "h2": {"h1": [3, 3]}}
    shown = lab.call_sync("datapaths")
    assert shown.startswith("system@"), shown
    assert all(f"{switch.name}:" in shown for switch in PLAN.switches)


def test_a_grudge_holds_on_the_kernels_datapath_and_ends(lab: Sandbox) -> None:
    during, after = lab.call_sync("reached_despite_grudge")
    assert during == {"h1": {"h2": [3, 0]}, "h2": {"h1": [3, 3]}}
    assert after == {"h1": {"h2": [3, 3]}, "h2": {"h1": [3, 3]}}


@pytest.mark.parametrize(
    "asked",
    [
        Impairment(delay=40 * MS, loss=0.2),
        Impairment(delay=60 * MS, jitter=20 * MS),
        Impairment(delay=60 * MS, jitter=10 * MS, distribution="normal"),
        Impairment(loss=0.3, burst=4.0),
        Impairment(delay=20 * MS, duplicate=0.2),
    ],
    ids=lambda asked: "-".join(name for name in ("jitter", "loss", "burst", "duplicate") if getattr(asked, name)),
)
def test_netem_does_what_is_asked_in_every_kind_of_direction(lab: Sandbox, asked: Impairment) -> None:
    found = lab.call_sync("measured", asked, KINDS)
    assert {name: verify(asked, obtained, tolerance=PATIENCE) for name, (obtained, _) in found.items()} == {
        name: [] for name in KINDS
    }
    for obtained, counters in found.values():
        assert counters.packets >= obtained.sent
    assert "netem" not in lab.call_sync("leftovers")
    assert "ifb-" not in lab.call_sync("leftovers")


def test_damage_that_would_crash_the_kernel_is_refused_and_leaves_nothing(lab: Sandbox) -> None:
    assert "h1>leaf1" in lab.call_sync("refused", "h1>leaf1", Impairment(corrupt=0.1))
    assert "ifb-" not in lab.call_sync("leftovers")


def test_netem_keeps_a_rate_in_every_kind_of_direction(lab: Sandbox) -> None:
    asked = Impairment(rate=2_000_000)
    found = lab.call_sync("rates", asked)
    assert {name: verify_rate(asked, rate, tolerance=0.1) for name, rate in found.items()} == {
        name: [] for name in KINDS
    }


def test_an_impairment_is_changed_in_place_and_lifted(lab: Sandbox) -> None:
    delayed, cut = lab.call_sync("changed")
    assert delayed.arrived == 30
    assert delayed.delay_min is not None
    assert delayed.delay_min >= 80 * MS
    assert cut.arrived == 0
    assert "netem" not in lab.call_sync("leftovers")


def test_a_cut_spine_link_is_routed_around(lab: Sandbox) -> None:
    lab.call_sync("cut", "leaf1-spine1")
    lab.call_sync("wait_ready")


def test_what_tc_refuses_leaves_nothing_and_names_the_interface(lab: Sandbox) -> None:
    lab.call_sync("remove", "leaf2-eth1")
    assert "leaf2-eth1" in lab.call_sync("refused", "h2>leaf2", Impairment(delay=MS))
    assert "ifb-" not in lab.call_sync("leftovers")
