"""The shell's own commands are read whole: what cannot be is told with what was expected, nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.plans import named_plan
from experiments.shell_words import (
    WordError,
    complete_impair,
    complete_partition,
    parse_flow,
    parse_impair,
    parse_partition,
)
from topologies.impairment import Impairment, from_samples
from topologies.leaf_spine import LeafSpine
from topologies.plan import PlanError
from topologies.tenants import tenant, with_tenants

PLAN = LeafSpine(2, 3, 4)
HOSTS = [host.name for host in PLAN.hosts]


@given(st.lists(st.sampled_from(HOSTS), min_size=2, unique=True), st.data())
def test_groups_are_read_as_they_were_written(names: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(names) - 1))
    separator = data.draw(st.sampled_from([" ", ",", ", "]))
    groups = [names[:cut], names[cut:]]
    assert parse_partition(PLAN, " | ".join(separator.join(group) for group in groups)) == groups


def test_one_group_is_apart_from_all_other_hosts() -> None:
    assert parse_partition(PLAN, "h1 h2") == [["h1", "h2"], HOSTS[2:]]


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "empty group"), ("h1 |", "empty group"), ("h1 | h1", "twice"), (" ".join(HOSTS), "no host is left")],
)
def test_groups_that_are_none_are_refused_with_the_reason(line: str, said: str) -> None:
    with pytest.raises(WordError, match=said):
        parse_partition(PLAN, line)


def test_a_host_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(PlanError, match="'h99'; there is h1, h2"):
        parse_partition(PLAN, "h1 | h99")


def test_an_impairment_is_read_with_its_units_and_a_link_means_both_directions() -> None:
    line = "leaf1>spine1 leaf2-spine2 delay=20ms jitter=5ms distribution=pareto loss=10% burst=4 rate=100mbit queue=50"
    directions, impairment = parse_impair(PLAN, line)
    assert directions == ["leaf1>spine1", "leaf2>spine2", "spine2>leaf2"]
    assert impairment == Impairment(
        delay=20_000_000,
        jitter=5_000_000,
        distribution="pareto",
        loss=0.1,
        burst=4,
        rate=100_000_000,
        queue=50,
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("leaf1>spine1", "what it does"),
        ("delay=1ms", "which link"),
        ("leaf1>spine1 dealy=1ms", "did you mean delay"),
        ("leaf1>spine1 delay=1", "delay=1: .*unit"),
        ("leaf1>spine1 queue=many", "queue=many: .*whole number"),
        ("leaf1>spine1 samples=1ms,2", "'2' is not a duration"),
        ("leaf1>spine1 distribution=even delay=1ms", "uniform, normal, pareto"),
        ("leaf1>spine1 jitter=5ms", "the jitter is larger than the delay"),
        ("leaf1>spine1 queue=5", "impairs nothing"),
    ],
)
def test_an_impairment_that_cannot_be_read_is_refused_with_the_reason(line: str, said: str) -> None:
    with pytest.raises(WordError, match=said):
        parse_impair(PLAN, line)


def test_samples_bring_the_delay_and_the_jitter_that_they_have() -> None:
    _, impairment = parse_impair(PLAN, "leaf1>spine1 distribution=table samples=1ms,2ms,9ms")
    assert impairment == from_samples((1_000_000, 2_000_000, 9_000_000))
    assert impairment.delay == 4_000_000


def test_a_flow_is_read_whole() -> None:
    assert parse_flow(PLAN, "h1 h5 udp 40000 7000") == ("h1", "h5", "udp", 40_000, 7_000)


@pytest.mark.parametrize("line", ["", "h1 h5 udp 1", "h1 h5 sctp 1 2", "h1 h5 udp 1 65536", "h1 h1 udp 1 2"])
def test_a_flow_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(WordError, match=r"path h1 h5 udp 40000 7000|name another host"):
        parse_flow(PLAN, line)


def test_completion_offers_what_can_stand_there() -> None:
    assert complete_partition(PLAN, "h1", "partition h1") == ["h1", "h10", "h11", "h12"]
    assert complete_partition(PLAN, "h1", "partition h10 | h1") == ["h1", "h11", "h12"]
    assert complete_impair(PLAN, "leaf1-") == ["leaf1-spine1", "leaf1-spine2"]
    assert complete_impair(PLAN, "spine1>leaf3") == ["spine1>leaf3"]
    assert complete_impair(PLAN, "d") == ["delay=", "duplicate=", *(f"distribution={kind}" for kind in KINDS)]


KINDS = ("uniform", "normal", "pareto", "table")


def test_a_fabric_is_named_by_kind_and_sizes_or_by_a_scenario() -> None:
    assert named_plan("leaf-spine,2,3,4") == PLAN
    assert named_plan("raft-leader-isolated").kind == "leaf-spine"


@pytest.mark.parametrize("text", ["leaf-spine", "leaf-spine,2,3", "leaf-spine,2,3,x", "torus,3,3"])
def test_a_fabric_that_is_none_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(PlanError, match="leaf-spine,SPINES,LEAVES,HOSTS_PER_LEAF"):
        named_plan(text)


def test_a_name_that_is_nothing_is_told_with_all_there_is() -> None:
    with pytest.raises(FileNotFoundError, match="leaf-spine,SPINES") as refused:
        named_plan("raft-leadr")
    assert refused.value.filename == "raft-leadr"


def test_members_of_a_tenant_are_parted_and_completed_as_hosts_are() -> None:
    plan = with_tenants(PLAN, [tenant("blue", 100, "192.168.0.0/24", ["h1", "h5", "h9"])])
    assert parse_partition(plan, "h5_blue") == [["h5_blue"], ["h1_blue", "h9_blue"]]
    assert complete_partition(plan, "h1_", "partition h5_blue | h1_") == ["h1_blue"]
    with pytest.raises(PlanError, match="h1_blue is a tenant's member, and a host is meant here: h1"):
        parse_flow(plan, "h1_blue h5_blue udp 5000 7000")
