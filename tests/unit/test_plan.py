"""A plan answers by name, says what it does not have, and survives its own file."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import reduce
from operator import getitem
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.pipeline import programs
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.tenants import tenant, with_tenants

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))


@settings(deadline=None)
@given(SIZES, st.integers(0, 10**9))
def test_a_plan_read_back_from_json_is_the_same(size: tuple[int, int, int], delay: int) -> None:
    plan = LeafSpine(*size)
    impaired = FabricPlan(
        plan.kind,
        plan.switches,
        plan.hosts,
        plan.links,
        plan.router_mac,
        impairments={plan.links[0].directions[0]: Impairment(delay=delay)},
    )
    assert FabricPlan.from_json(impaired.to_json()) == impaired


@settings(deadline=None)
@given(SIZES)
def test_both_directions_of_a_link_have_each_others_ends(size: tuple[int, int, int]) -> None:
    plan = LeafSpine(*size)
    for link in plan.links:
        forth, back = link.directions
        assert plan.ends(forth) == (link.a, link.b)
        assert plan.ends(back) == (link.b, link.a)


@settings(deadline=None)
@given(SIZES)
def test_every_link_is_found_at_both_its_nodes_and_nowhere_else(size: tuple[int, int, int]) -> None:
    plan = LeafSpine(*size)
    for node in {end.node for link in plan.links for end in (link.a, link.b)}:
        assert list(plan.links_of(node)) == [link for link in plan.links if node in (link.a.node, link.b.node)]


@pytest.mark.parametrize(
    ("look_up", "name"),
    [("host", "h99"), ("switch", "leaf9"), ("link", "leaf1-leaf2"), ("ends", "leaf1-spine1")],
)
def test_a_name_the_plan_does_not_have_is_named_beside_those_it_has(look_up: str, name: str) -> None:
    with pytest.raises(PlanError, match=rf"{re.escape(repr(name))}; there is \w+"):
        getattr(LeafSpine(2, 3, 4), look_up)(name)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"kind": "leaf-spine"}', b"\xff"])
def test_what_is_not_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(PlanError, match="not a fabric plan"):
        FabricPlan.from_json(data)


WHOLE = msgspec.structs.replace(
    with_tenants(LeafSpine(2, 2, 2), [tenant("blue", 100, "192.168.0.0/24", ["h1", "h3"], mss=1300)]),
    impairments={"leaf1>spine1": Impairment(delay=5_000_000, loss=0.1)},
)
PLACES = [
    (*place, key)
    for place in (
        (), ("switches", 0), ("hosts", 1), ("links", 0), ("links", 2), ("links", 2, "a"), ("links", 2, "b"),
        ("impairments", "leaf1>spine1"), ("tenants", 0), ("tenants", 0, "members", 1),
    )
    for key in reduce(getitem, place, msgspec.to_builtins(WHOLE))
]  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["h1", "leaf1", "spine1", "10.0.1.1/24", "0.0.0.0/0", "leaf1>spine2", "02:00:00:00:00:01", "", {}, []]
    ),
    st.sampled_from(PLACES).map(lambda place: reduce(getitem, place, msgspec.to_builtins(WHOLE))),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_a_file_that_was_edited_anywhere_is_a_plan_that_works_or_is_refused(edits: list[tuple[Any, Any]]) -> None:
    edited = msgspec.to_builtins(WHOLE)
    for (*place, key), value in edits:
        with suppress(KeyError, IndexError, TypeError):  # an earlier edit took that place away
            reduce(getitem, place, edited)[key] = value
    try:
        plan = FabricPlan.from_json(msgspec.json.encode(edited))
    except PlanError:
        return
    assert all(plan.endpoint(one.name) == one for one in plan.endpoints)
    assert all(plan.ends(way) for link in plan.links for way in link.directions)
    programs(plan)


@pytest.mark.parametrize(("right", "wrong"), [(b'"weight":3', b'"weight":0'), (b'"weight":3', b'"weight":65536')])
def test_a_weight_that_no_switch_takes_is_refused_by_name(right: bytes, wrong: bytes) -> None:
    plan = LeafSpine(2, 2, 1)
    links = tuple(msgspec.structs.replace(link, weight=3) for link in plan.links)
    data = msgspec.structs.replace(plan, links=links).to_json()
    assert right in data
    with pytest.raises(PlanError, match=r"weight"):
        FabricPlan.from_json(data.replace(right, wrong, 1))
