"""``[topology]`` of scenario files: every kind of fabric, and what a person is told who asks for one that cannot be."""

from __future__ import annotations

from pathlib import Path

import networkx
import pytest

from experiments.scenario import ScenarioError, load, parse, place
from topologies.impairment import Impairment

REST = """
[system]
nodes = 3

[workload]
clients = 1

[[fault]]
kind = "link-down"
at = "1s"
for = "1s"
links = ["{link}"]
"""

ROUND = '[["a", "b"], ["b", "c"], ["c", "a"]]'


def scenario(topology: str, link: str) -> str:
    return f'duration = "4s"\n[topology]\n{topology}\n{REST.format(link=link)}'


@pytest.mark.parametrize(
    ("topology", "link", "switches", "hosts", "spread"),
    [
        ("spines = 1\nhosts_per_leaf = [1, 3]", "leaf2-spine1", 3, 4, ["h1", "h2", "h3"]),
        ('missing = ["leaf1-spine2"]', "leaf1-spine*", 5, 12, ["h1", "h5", "h9"]),
        (
            'kind = "three-tier"\nsuper_spines = 2\npods = 2\n'
            "spines_per_pod = 1\nleaves_per_pod = 2\nhosts_per_leaf = 2",
            "spine1-super2",
            8,
            8,
            ["h1", "h3", "h5"],
        ),
        ('kind = "fat-tree"\nk = 4', "spine*-super1", 20, 16, ["h1", "h3", "h5"]),
        ('kind = "single"\nhosts = 5', "h1-leaf1", 1, 5, ["h1", "h2", "h3"]),
        ('kind = "wan"\n[topology.delay]\neu = { us = "40ms", ap = "110ms" }', "eu-us", 6, 6, ["h1", "h3", "h5"]),
        (f'kind = "graph"\nhosts = 2\nlinks = {ROUND}', "a-b", 6, 6, ["h1", "h3", "h5"]),
        (f'kind = "graph"\nhosts = {{ a = 3, c = 1 }}\nlinks = {ROUND}', "c-a", 5, 4, ["h1", "h4", "h2"]),
    ],
)
def test_a_scenario_may_be_about_any_kind_of_fabric(
    topology: str, link: str, switches: int, hosts: int, spread: list[str]
) -> None:
    asked = parse(scenario(topology, link))
    assert (len(asked.plan.switches), len(asked.plan.hosts)) == (switches, hosts)
    placement = place(asked.plan, asked.system, asked.workload)
    assert [placement[node] for node in asked.system.names] == spread


def test_a_wans_delays_are_a_matrix_of_one_way_delays_and_a_link_may_say_otherwise() -> None:
    matrix = 'kind = "wan"\n[topology.delay]\neu = { us = "40ms" }\nus = { eu = "45ms", ap = "70ms" }\n'
    plan = parse(scenario(matrix + '[topology.link."us>ap"]\ndelay = "71ms"\nloss = "1%"', "eu-us")).plan
    assert plan.impairments == {
        "eu>us": Impairment(delay=40_000_000),
        "us>eu": Impairment(delay=45_000_000),
        "us>ap": Impairment(delay=71_000_000, loss=0.01),
        "ap>us": Impairment(delay=70_000_000),
    }


def test_uplinks_are_oversubscribed_by_their_weights() -> None:
    text = 'leaves = 2\nhosts_per_leaf = 6\nhost_rate = "100mbit"\noversubscription = 3\n'
    plan = parse(scenario(text + '[topology.link."leaf1-spine1"]\nweight = 3', "leaf1-spine1")).plan
    rates = [plan.impairments[way].rate for way in ("leaf1>spine1", "leaf1>spine2", "spine1>leaf2")]
    assert rates == [150_000_000, 50_000_000, 100_000_000]
    assert plan.link("leaf1-spine1").weight == 3


def test_a_graph_may_come_from_a_file_beside_the_scenario(tmp_path: Path) -> None:
    graph = networkx.Graph([("0", "1"), ("1", "2")])
    graph.nodes["1"]["hosts"] = 0
    graph.edges["0", "1"]["delay"] = "5ms"
    graph.edges["0", "1"]["LinkLabel"] = "OC-3"
    networkx.write_graphml(graph, tmp_path / "net.graphml")
    (tmp_path / "net.json").write_text(
        '{"nodes": [{"id": 0}, {"id": 1, "hosts": 0}, {"id": 2}], "edges": [{"source": 0, "target": 1, "delay": "5ms"},'
        ' {"source": 1, "target": 2}]}'
    )
    plans = []
    for name in ("net.graphml", "net.json"):
        file = tmp_path / "scenario.toml"
        file.write_text(scenario(f'kind = "graph"\nhosts = 2\nfile = "{name}"', "n0-n1"))
        plans.append(load(file).plan)
    assert plans[0] == plans[1]
    assert [leaf.name for leaf in plans[0].by_role("leaf")] == ["n0-lf", "n2-lf"]
    assert plans[0].impairments == dict.fromkeys(("n0>n1", "n1>n0"), Impairment(delay=5_000_000))


@pytest.mark.parametrize(
    ("topology", "says"),
    [
        ('kind = "ring"', "scenario:3: topology.kind: 'ring' is not one of leaf-spine, three-tier, fat-tree, wan"),
        ('kind = "fat-tree"', "scenario:2: topology.k: is missing"),
        ('kind = "fat-tree"\nk = 3', "scenario:2: topology: k is 3; the switches of a fat tree"),
        ('kind = "fat-tree"\nk = 4\nspines = 2', "scenario:5: topology.spines: unknown key"),
        ('kind = "wan"', "topology.delay: the regions and the delays between them are missing"),
        ('kind = "wan"\n[topology.delay]\neu = { us = 40 }', "topology.delay.eu.us: 40 is not a duration"),
        ('kind = "wan"\n[topology.delay]\neu = { eu = "1ms" }', "scenario:2: topology: delays of eu to eu"),
        (
            'kind = "wan"\n[topology.delay]\neu = { us = "61s" }',
            "scenario:5: topology.delay.eu.us: delay is 61000000000 ns",
        ),
        ('dataplane = "routed"\nbfd = "20ms"', "scenario:4: topology.bfd: is Open vSwitch's"),
        ('[topology.link."leaf1-spine1"]\nmtu = 1501', 'scenario:4: topology.link."leaf1-spine1".mtu: 1501 is not'),
        (f"spines = {'9' * 5000}", "scenario: a number in it has more digits"),
        (f"spines = {'9' * 4000}", "topology: such a fabric would be too large: more than 1,000,000,000,000 spines"),
        ('kind = "graph"\nlinks = [["a", "b"], ["b", "a"]]', "scenario:2: topology: a-b and b-a are between the same"),
        ('kind = "graph"\nlinks = [["a>b", "c"]]', "scenario:2: topology: a>b, a>b-lf is no name"),
        ('kind = "graph"', 'topology.links: say either links = [["a", "b"]'),
        ('kind = "graph"\nlinks = [["a"]]', "scenario:4: topology.links: [['a']] is not a list of pairs"),
        ('kind = "graph"\nlinks = [["a", "b"], ["c", "d"]]', "hosts of c-lf, d-lf cannot reach those of a-lf"),
        ('kind = "graph"\nhosts = { z = 1 }\nlinks = [["a", "b"]]', "hosts of z, which no link names; there is a, b"),
        ('kind = "graph"\nfile = "net.txt"', "scenario:4: topology.file: 'net.txt' is neither a .graphml"),
        ('kind = "graph"\nfile = "absent.json"', "scenario:2: topology: [Errno 2] No such file"),
        ("leaves = 3\nhosts_per_leaf = [1, 2]", "scenario:2: topology: hosts_per_leaf has 2 numbers for 3 leaves"),
        ("hosts_per_leaf = [1, 0]", "scenario:3: topology.hosts_per_leaf: 0 is not a whole number, 1 or more"),
        ('missing = ["leaf9-spine1"]', "scenario:2: topology: no link leaf9-spine1 between a leaf and a spine"),
        ("oversubscription = 3", "scenario:3: topology.oversubscription: means nothing without"),
        ("hosts_per_leaf = 300000000", "scenario:2: topology: such a fabric would be too large: 900,000,000 hosts"),
    ],
)
def test_a_fabric_that_cannot_be_is_refused_with_its_place(topology: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(scenario(topology, "*"))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("broken.graphml", "<graphml", "broken.graphml is no graph that can be read"),
        ("broken.json", '{"nodes": 3}', "broken.json is no graph that can be read: Expected `array`"),
        ("broken.json", '{"nodes": [{}]}', 'every node has an "id"'),
        (
            "broken.json",
            '{"nodes": [], "edges": [{"source": "a", "target": "b", "delay": 5}]}',
            "5 is not a duration",
        ),
    ],
)
def test_a_file_that_is_no_graph_is_refused_by_its_name(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "scenario.toml").write_text(scenario(f'kind = "graph"\nfile = "{name}"', "*"))
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path / "scenario.toml")
    assert says in str(caught.value)


def test_a_link_may_do_all_that_an_impairment_can(tmp_path: Path) -> None:
    (tmp_path / "measured").write_text("9ms\n11ms\n\n")
    file = tmp_path / "scenario.toml"
    link = '[topology.link."leaf1>spine1"]\n'
    every = 'loss = "1%"\nburst = 3\nduplicate = "2%"\nreorder = "3%"\ncorrupt = "4%"\nrate = "1mbit"\nqueue = 9'
    for samples in ('["9ms", "11ms"]', '"measured"'):
        file.write_text(scenario(f'{link}distribution = "table"\nsamples = {samples}\n{every}', "leaf1-spine1"))
        assert load(file).plan.impairments["leaf1>spine1"] == Impairment(
            delay=10_000_000,
            jitter=1_000_000,
            distribution="table",
            samples=(9_000_000, 11_000_000),
            loss=0.01,
            burst=3.0,
            duplicate=0.02,
            reorder=0.03,
            corrupt=0.04,
            rate=1_000_000,
            queue=9,
        )


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ('distribution = "table"', '.samples: the distribution "table" is that of samples'),
        ('samples = ["1ms", "2ms"]', '.samples: the distribution "table" is that of samples'),
        ('distribution = "table"\nsamples = "absent"', "samples: 'absent' cannot be read"),
        ('distribution = "table"\nsamples = ["1ms", 2]', "samples: 2 is not a duration"),
        ('loss = "90%"\nburst = 2', ".burst: loss 0.9 in bursts of 2.0 packets"),
        ("burst = 0.5", ".burst: 0.5 is not a number, 1 or more"),
        ('delay = "2min"', ".delay: delay is 120000000000 ns; a packet is held for at most 60 s"),
    ],
)
def test_an_impairment_that_cannot_be_is_refused_by_its_key(link: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(scenario(f'[topology.link."leaf1-spine1"]\n{link}', "leaf1-spine1"))
    assert says in str(caught.value)
