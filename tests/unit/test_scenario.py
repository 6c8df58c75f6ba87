"""Scenario files: what they mean, and what a person is told when one is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from experiments.run import Run
from experiments.scenario import (
    BitFlip,
    CrashPoint,
    Disorder,
    Drift,
    FullDisk,
    Impair,
    Kill,
    LinkDown,
    Mute,
    Partition,
    Pause,
    Raft,
    ScenarioError,
    Skew,
    SlowDisk,
    Transfer,
    directions,
    load,
    parse,
    place,
    stretched,
)
from topologies.impairment import Impairment

SHIPPED = sorted((Path(__file__).parents[2] / "experiments" / "scenarios").glob("*.toml"))

SMALL = """\
# What happens to three nodes?
# Look closely.
name = "small"
seed = 4
duration = "10s"

[topology]
spines = 2
leaves = 3
hosts_per_leaf = 2

[topology.link."leaf1-spine1"]
delay = "2ms"

[system]
kind = "raft"
nodes = 3

[workload]
clients = 3

[[fault]]
kind = "kill"
at = "1s"
for = "1s"
nodes = ["n1"]

[[fault]]
kind = "partition"
at = "3s"
for = "2s"
groups = [["leader"], ["others"]]
"""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_is_valid_named_after_its_file_and_says_what_to_look_for(path: Path) -> None:
    scenario = load(path)
    assert scenario.name == path.stem
    assert "ook " in scenario.description
    assert scenario.faults


def test_a_file_becomes_plain_values_in_base_units() -> None:
    scenario = parse(SMALL)
    assert scenario.description == "What happens to three nodes? Look closely."
    assert scenario.duration == 10_000_000_000
    assert scenario.plan.impairments == dict.fromkeys(("leaf1>spine1", "spine1>leaf1"), Impairment(delay=2_000_000))
    assert scenario.faults == (
        Kill(nodes=("n1",), at=1_000_000_000, lasts=1_000_000_000),
        Partition(groups=(("leader",), ("others",)), at=3_000_000_000, lasts=2_000_000_000),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 4", "sede = 4", 'scenario:4: sede: unknown key; did you mean "seed"?'),
        ('"10s"', '"10"', "scenario:5: duration: '10' is not a duration"),
        ('"10s"', "10", "scenario:5: duration: 10 is not a duration"),
        ('"10s"', '"0s"', "scenario:5: duration: '0s' is no time at all"),
        ('duration = "10s"', "", "scenario:1: duration: is missing"),
        ('"10s"', '"4s"', "scenario:31: fault[1].for: the fault ends at 5s, past the end of the scenario (4s)"),
        ('["n1"]', '["n7"]', "scenario:26: fault[0].nodes: 'n7' is neither a node (n1, n2, n3) nor a role"),
        ('["leader"]', '["n1", "n1"]', "scenario:32: fault[1].groups: 'n1' is in two groups"),
        (', ["others"]]', "]", "scenario:32: fault[1].groups: a single group is no partition"),
        (
            '"kill"',
            '"kil"',
            "scenario:23: fault[0].kind: 'kil' is not one of partition, link-down, flap, impair, kill, ",
        ),
        (
            '"leaf1-spine1"',
            '"leaf1-spine9"',
            "scenario:12: topology.link.\"leaf1-spine9\": no link 'leaf1-spine9'; there is h1-leaf1",
        ),
        ('delay = "2ms"', "weight = 0", 'scenario:13: topology.link."leaf1-spine1".weight: 0 is not a whole number'),
        ("spines = 2", 'dataplane = "router"', "scenario:8: topology.dataplane: 'router' is not one of ovs, routed"),
        ("spines = 2", 'bfd = "100us"', "scenario:8: topology.bfd: '100us' is not between 1 ms and 10 s"),
        ("spines = 2", "spines = 0", "scenario:8: topology.spines: 0 is not a whole number, 1 or more"),
        ("clients = 3", "clients = 9", "too few for 3 nodes and 9 clients"),
        ("clients = 3", "clients = 3\nrate = 'fast'", "workload.rate: 'fast' is not a number"),
        ("clients = 3", "clients = 3\nmix = { read = 0.5 }", "the shares add up to 0.5; they must add up to 1"),
        ("nodes = 3", 'nodes = 3\nelection_timeout = ["300ms", "150ms"]', "the first must not be longer"),
        ("nodes = 3", 'nodes = 3\nplacement = ["h1", "h99", "h2"]', "system.placement: no host 'h99'"),
        ("nodes = 3", 'nodes = 3\nheartbeat_interval = "1s"', "must be shorter than the shortest election timeout"),
        ("nodes = 3", 'nodes = 3\nvoters = ["n1", "n4"]', "voters: names each once, and none but the nodes n1, n2, n3"),
        ("nodes = 3", 'nodes = 3\nreads = "stale"', "reads: 'stale' is not one of read-index, lease"),
        ("nodes = 3", "nodes = 3\nsnapshot_entries = 0", "snapshot_entries: 0 is not a whole number, 1 or more"),
        ('kind = "kill"', 'kind = "reconfigure"', "fault[0].voters: is missing"),
        (
            'kind = "kill"\n',
            'kind = "reconfigure"\nvoters = ["n1", "n1"]\n',
            "a node is named twice; a member is a voter",
        ),
        ("[system]", "[system", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_and_the_remedy(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(ScenarioError) as caught:
        parse(SMALL.replace(old, new, 1))
    assert message in str(caught.value)


def test_every_problem_of_a_file_is_told_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(SMALL.replace("seed = 4", "sede = 4").replace('"n1"', '"n9"').replace("spines = 2", "spines = -1"))
    assert len(str(caught.value).splitlines()) == 3


def test_link_faults_take_patterns_and_impairments_take_one_direction_or_both() -> None:
    text = SMALL + (
        '[[fault]]\nkind = "link-down"\nat = "1s"\nfor = "1s"\nlinks = ["leaf2-*"]\n'
        '[[fault]]\nkind = "impair"\nat = "1s"\nfor = "1s"\nlinks = ["leaf1>spine1", "h1-leaf1"]\nloss = "10%"\n'
    )
    scenario = parse(text)
    down, impair = scenario.faults[2:]
    assert isinstance(down, LinkDown)
    assert isinstance(impair, Impair)
    assert impair.impairment.loss == 0.1
    assert directions(scenario.plan, impair.links) == ["leaf1>spine1", "h1>leaf1", "leaf1>h1"]


def test_an_impairment_that_impairs_nothing_is_refused() -> None:
    with pytest.raises(ScenarioError, match="impairs nothing"):
        parse(SMALL + '[[fault]]\nkind = "impair"\nat = "1s"\nfor = "1s"\nlinks = ["leaf1>spine1"]\n')


EVERY_KIND = """
duration = "20s"
[[fault]]
kind = "mute"
nodes = ["leader"]
at = "1s"
for = "1s"
[[fault]]
kind = "pause"
nodes = ["n1", "n2"]
at = "2s"
for = "1s"
[[fault]]
kind = "slow-disk"
nodes = ["minority"]
factor = 50
at = "3s"
for = "1s"
[[fault]]
kind = "full-disk"
nodes = ["n1"]
at = "4s"
for = "1s"
[[fault]]
kind = "bit-flip"
nodes = ["n1"]
at = "5s"
for = "1s"
[[fault]]
kind = "drift"
nodes = ["n1"]
rate = 1.05
at = "6s"
for = "1s"
[[fault]]
kind = "skew"
nodes = ["n2"]
offset = "-200ms"
period = "50ms"
at = "6s"
for = "1s"
[[fault]]
kind = "disorder"
loss = "2%"
stray = 0.1
late = "100ms"
at = "7s"
for = "1s"
[[fault]]
kind = "crash-point"
event = "vote"
share = "50%"
down = "300ms"
at = "8s"
for = "1s"
[[fault]]
kind = "transfer"
nodes = ["followers"]
at = "9s"
for = "1s"
"""


def test_processes_disks_clocks_and_the_transport_have_faults_of_their_own() -> None:
    s = 1_000_000_000
    assert parse(EVERY_KIND).faults == (
        Mute(("leader",), s, s),
        Pause(("n1", "n2"), 2 * s, s),
        SlowDisk(("minority",), 50.0, 3 * s, s),
        FullDisk(("n1",), 4 * s, s),
        BitFlip(("n1",), 5 * s, s),
        Drift(("n1",), 1.05, 6 * s, s),
        Skew(("n2",), -200_000_000, 50_000_000, 6 * s, s),
        Disorder(0.02, 0.0, 0.1, 100_000_000, 7 * s, s),
        CrashPoint("vote", 0.5, 300_000_000, 8 * s, s),
        Transfer(("followers",), 9 * s, s),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("factor = 50", "factor = 0.5", "fault[2].factor: 0.5 is not a number, 1 or more"),
        ("rate = 1.05", "rate = 1000", "fault[5].rate: 1000 is not a rate from 0.01 to 100"),
        ('offset = "-200ms"', 'offset = "-0s"', "fault[6].offset: '-0s' sets no clock off"),
        ('late = "100ms"', "", "fault[7].late: is missing"),
        ('loss = "2%"', "loss = 1", "fault[7].loss: 1: some messages must get through"),
        ('event = "vote"', 'event = "votes"', "fault[8].event: 'votes' is not one of vote"),
        ('nodes = ["leader"]', 'nodes = ["leaders"]', "fault[0].nodes: 'leaders' is neither a node"),
    ],
)
def test_a_fault_of_a_process_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(message)):
        parse(EVERY_KIND.replace(old, new, 1))


def test_what_only_the_simulator_can_do_is_refused_on_the_fabric_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"fault\[2\]: 'slow-disk' is a fault of the simulator's alone") as refused:
        Run(parse(EVERY_KIND), tmp_path, "test")
    assert "fault[0]" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_nodes_are_spread_over_the_leaves_and_clients_get_hosts_of_their_own() -> None:
    scenario = parse(SMALL)
    placement = place(scenario.plan, scenario.system, scenario.workload)
    assert [placement[node] for node in scenario.system.names] == ["h1", "h3", "h5"]
    assert [placement[client] for client in scenario.workload.names] == ["h2", "h4", "h6"]


def test_clients_may_stand_beside_the_nodes() -> None:
    scenario = parse(SMALL.replace("clients = 3", 'clients = 4\nplacement = ["beside"]'))
    placement = place(scenario.plan, scenario.system, scenario.workload)
    assert [placement[client] for client in scenario.workload.names] == ["h1", "h3", "h5", "h1"]


def test_a_scenario_may_require_the_kernels_own_backends_and_nothing_else() -> None:
    assert parse(SMALL).requires == ()
    assert parse(SMALL.replace("seed = 4", 'requires = ["kernel"]')).requires == ("kernel",)
    with pytest.raises(ScenarioError, match="requires: 'moon' is not one of kernel"):
        parse(SMALL.replace("seed = 4", 'requires = ["moon"]'))


def test_a_scenario_may_say_whose_packets_are_captured() -> None:
    text = SMALL.replace("seed = 4", 'captures = ["leaf1-spine2", "h1>leaf1"]')
    assert parse(text).captures == ("leaf1>spine2", "spine2>leaf1", "h1>leaf1")
    with pytest.raises(ScenarioError, match=r"scenario:4: captures: no direction 'leaf1>leaf2'"):
        parse(SMALL.replace("seed = 4", 'captures = ["leaf1>leaf2"]'))


def test_time_scale_stretches_every_duration() -> None:
    slow = parse(SMALL.replace("seed = 4", "seed = 4\ntime_scale = 3"))
    plain = parse(SMALL)
    assert slow.duration == 3 * plain.duration
    assert slow.system.election_timeout == (450_000_000, 900_000_000)
    assert slow.workload.timeout == 3 * plain.workload.timeout
    assert slow.workload.rate == plain.workload.rate / 3
    assert [(fault.at, fault.lasts) for fault in slow.faults] == [(3 * f.at, 3 * f.lasts) for f in plain.faults]


def test_a_time_scale_asked_for_later_replaces_the_files_own() -> None:
    slow = parse(SMALL.replace("seed = 4", "seed = 4\ntime_scale = 3"))
    slower = parse(SMALL.replace("seed = 4", "seed = 4\ntime_scale = 6"))
    assert stretched(slow, 6) == msgspec.structs.replace(slower, toml=slow.toml)
    assert stretched(slow, 3) == slow


def test_python_takes_durations_as_text() -> None:
    assert Raft(nodes=3, election_timeout=("1s", "2s")).election_timeout == (1_000_000_000, 2_000_000_000)  # type: ignore[arg-type]


def test_links_can_have_weights_and_be_watched() -> None:
    text = SMALL.replace('delay = "2ms"', "weight = 3").replace(
        "spines = 2", 'spines = 2\nbfd = "20ms"\ndataplane = "ovs"'
    )
    plan = parse(text, "scenario").plan
    assert plan.bfd_interval == 20_000_000
    assert plan.dataplane == "ovs"
    assert {link.name for link in plan.links if link.weight != 1} == {"leaf1-spine1"}
    assert plan.link("leaf1-spine1").weight == 3
    assert plan.impairments == {}, "a weight alone holds no packet up"
