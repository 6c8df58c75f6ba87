"""What a person may name on a command line is a fabric, or an error that says how to write one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from experiments.lab import lab
from experiments.nemesis import expected_reach
from experiments.plans import named_plan, on_dataplane, scenario_file
from experiments.run import recorded
from experiments.scenario import ScenarioError, load
from topologies.leaf_spine import LeafSpine
from topologies.plan import PlanError
from topologies.three_tier import FatTree


@pytest.mark.parametrize(
    ("text", "kind", "hosts"),
    [
        ("leaf-spine,2,3,4", "leaf-spine", 12),
        ("three-tier,2,2,2,2,3", "three-tier", 12),
        ("fat-tree,4", "fat-tree", 16),
    ],
)
def test_a_kind_with_its_sizes_is_a_fabric(text: str, kind: str, hosts: int) -> None:
    plan = named_plan(text)
    assert (plan.kind, len(plan.hosts)) == (kind, hosts)


def test_sizes_that_are_missing_are_asked_for_by_name() -> None:
    with pytest.raises(PlanError, match="three-tier,SUPER_SPINES,PODS,SPINES_PER_POD,LEAVES_PER_POD,HOSTS_PER_LEAF"):
        named_plan("three-tier,2")


def test_a_size_of_absurd_length_is_refused() -> None:
    with pytest.raises(PlanError, match="leaves of leaf-spine has more than 12 digits"):
        named_plan(f"leaf-spine,2,{'9' * 5000},1")


def test_a_file_of_a_plan_that_cannot_be_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "edited.json"
    file.write_bytes(LeafSpine(1, 2, 1).to_json().replace(b'"h2"', b'"h1"'))
    with pytest.raises(PlanError, match=r"edited.json: name h1 is there more than once"):
        named_plan(str(file))


def test_what_must_be_reached_in_three_tiers_goes_by_every_way_that_is_left() -> None:
    plan = FatTree(4)
    placement = {"a": "h1", "b": "h16"}
    assert expected_reach(plan, placement, {}, ["leaf1-spine1", "spine2-super3"]) == {
        "a": {"b": True},
        "b": {"a": True},
    }
    both = ["leaf1-spine1", "leaf1-spine2"]
    assert expected_reach(plan, placement, {}, both) == {"a": {"b": False}, "b": {"a": False}}


def test_a_recorded_run_and_a_lab_with_a_plan_that_cannot_be_are_refused(tmp_path: Path) -> None:
    plan = LeafSpine(1, 2, 1)
    unreached = msgspec.structs.replace(plan, links=plan.links[:-1])
    scenario = load(scenario_file("raft-leader-isolated"))
    said = {name: value for name, value in msgspec.to_builtins(scenario).items() if name not in ("plan", "toml")}
    for one in (scenario.plan, unreached):
        manifest = {"world": "simulated", "scenario": said, "plan": msgspec.to_builtins(one)}
        (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        if one is scenario.plan:
            assert recorded(tmp_path)[0].plan == one
            continue
        with pytest.raises(ScenarioError, match="hosts of leaf2 cannot reach those of leaf1"):
            recorded(tmp_path)
        with pytest.raises(PlanError, match="hosts of leaf2 cannot reach those of leaf1"):
            lab(one, scenario.system, scenario.workload)


def test_a_plan_may_be_forwarded_by_something_else_unless_that_cannot_do_what_it_asks() -> None:
    plan = LeafSpine(2, 3, 4)
    assert on_dataplane(plan, "routed") == msgspec.structs.replace(plan, dataplane="routed")
    watched = msgspec.structs.replace(plan, bfd_interval=20_000_000)
    with pytest.raises(PlanError, match=r"(?i)bfd"):
        on_dataplane(watched, "routed")
