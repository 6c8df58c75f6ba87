"""A plan's picture stands by itself: valid XML, everything in it named, and nothing outside its frame."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import msgspec
import pytest

from experiments.plans import named_fabric, named_plan
from experiments.report.fabric import draw
from experiments.report.picture import picture
from topologies.graph import Wan
from topologies.impairment import Impairment
from topologies.plan import FabricPlan
from topologies.tenants import tenant, with_tenants

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def titles(svg: str) -> set[str]:
    return {"".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}title")}


FABRICS = [
    "leaf-spine,1,1,1",
    "leaf-spine,2,3,4",
    "leaf-spine,4,8,16",
    "three-tier,2,2,2,2,2",
    "fat-tree,4",
    "single,3",
]


@pytest.mark.parametrize("fabric", FABRICS)
def test_every_node_address_and_link_is_in_the_picture_and_within_its_frame(fabric: str) -> None:
    plan = named_plan(fabric)
    drawn = picture(plan, {})
    assert {switch.name for switch in plan.switches} <= set(texts(drawn))
    assert {host.name for host in plan.hosts} | {host.ip for host in plan.hosts} <= set(texts(drawn))
    assert {link.name for link in plan.links} <= titles(drawn)
    root = ElementTree.fromstring(drawn)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for box in root.iter(f"{SVG}rect"):
        x, y = float(box.attrib["x"]), float(box.attrib["y"])
        assert left <= x
        assert x + float(box.attrib["width"]) <= left + width
        assert top <= y
        assert y + float(box.attrib["height"]) <= top + height


def test_a_scenarios_picture_says_who_is_where() -> None:
    plan, placement = named_fabric("raft-leader-isolated")
    assert {f"{name} · {host}" for name, host in placement.items()} <= set(texts(picture(plan, placement)))


def test_what_links_do_from_the_start_is_written_on_them() -> None:
    impairments = {"leaf1>spine2": Impairment(delay=5_000_000, loss=0.02)}
    drawn = picture(msgspec.structs.replace(named_plan("leaf-spine,2,2,1"), impairments=impairments), {})
    assert any("5\u202fms" in text and "2\u202f% loss" in text for text in texts(drawn))


def test_names_are_written_as_they_are() -> None:
    plan = named_plan("leaf-spine,1,1,1")
    odd = FabricPlan("<a & b>", plan.switches, plan.hosts, plan.links, plan.router_mac)
    assert any("<a & b>" in title for title in titles(picture(odd, {})))


@pytest.mark.parametrize("fabric", ["leaf-spine,4,32,32", "leaf-spine,2,3,200"])
@pytest.mark.parametrize("placement", [{}, {"n1": "h1", "c1": "h2"}])
def test_hosts_that_are_not_shown_are_counted_and_no_count_runs_into_another(
    fabric: str, placement: dict[str, str]
) -> None:
    plan = named_plan(fabric)
    notes = draw(plan, placement, None).notes
    counts = [len(plan.hosts_of(leaf.name)) for leaf in plan.by_role("leaf")]
    shown = f"and {counts[0] - 2} more" if placement else f"{counts[0]} hosts"
    assert [text for _, _, text in notes] == [shown, *(f"{count} hosts" for count in counts[1:])]
    for (left, _, one), (right, _, other) in pairwise(notes):
        assert left + 6 * len(one) / 2 < right - 6 * len(other) / 2


def test_tenants_and_every_member_are_listed_within_the_frame() -> None:
    plan = named_plan("leaf-spine,2,8,8")
    plan = with_tenants(
        plan,
        [
            tenant("blue", 100, "192.168.0.0/24", [host.name for host in plan.hosts]),
            tenant("red", 200, "192.168.0.0/24", ["h1", "h9"]),
        ],
    )
    svg = picture(plan, {})
    listed = " ".join(texts(svg)).replace("\u00a0", " ")
    for one in plan.tenants:
        assert f"Tenant {one.name}, VNI {one.vni}, {one.prefix}: " in listed
        assert all(f"{member.name} {member.ip}" in listed for member in one.members)
    root = ElementTree.fromstring(svg)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter(f"{SVG}text"):
        assert top < float(element.attrib["y"]) < top + height
        assert left + 6 * len(element.text or "") < left + width


def test_the_table_of_a_plan_has_every_member_of_every_tenant(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.cli import topo

    topo("raft-in-tenant")
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    for one in named_plan("raft-in-tenant").tenants:
        for member in one.members:
            assert [one.name, str(one.vni), member.name, member.host, member.address] in said


def crossed(svg: str) -> list[tuple[str, str]]:
    """Links that run through a switch they do not end at, looked for at a hundred points of each."""
    root = ElementTree.fromstring(svg)
    switches = []
    for group in root.iter(f"{SVG}g"):
        if group.get("class") is None:
            x, y, width, height = (float(group[0].attrib[key]) for key in ("x", "y", "width", "height"))
            switches.append((x, y, x + width, y + height, "".join(group[1].itertext())))
    found = []
    for line in root.iter(f"{SVG}line"):
        x1, y1, x2, y2 = (float(line.attrib[key]) for key in ("x1", "y1", "x2", "y2"))
        for step in range(2, 99):
            x, y = x1 + (x2 - x1) * step / 100, y1 + (y2 - y1) * step / 100
            link = line[0].text or ""
            through = [name for a, b, c, d, name in switches if a < x < c and b < y < d]
            found += [(link, name) for name in through if name not in re.split("[->]", link)]
    return found


@pytest.mark.parametrize("fabric", ["leaf-spine,2,3,4", "three-tier,2,2,2,2,2", "fat-tree,4"])
def test_no_link_runs_through_a_switch(fabric: str) -> None:
    assert crossed(picture(named_plan(fabric), {})) == []


def test_no_link_of_a_mesh_of_regions_runs_through_a_switch() -> None:
    regions = ["eu", "us", "asia", "africa", "oz"]
    plan = Wan(dict.fromkeys(combinations(regions, 2), 10_000_000))
    assert crossed(picture(plan, {})) == []
