"""Three tiers: pods of leaves and spines, joined by super-spines; and the fat tree, three tiers of equal switches."""

from __future__ import annotations

from topologies.draft import Draft, at_least, at_most, leaf_networks, shown
from topologies.plan import FabricPlan, PlanError


def ThreeTier(  # noqa: N802 - it reads as a noun in scenarios
    super_spines: int, pods: int, spines_per_pod: int, leaves_per_pod: int, hosts_per_leaf: int
) -> FabricPlan:
    """Leaf-spine fabrics, ``pods`` of them, whose spines share the super-spines evenly.

    The *i*-th spines of all pods are a plane: they meet in the same ``super_spines / spines_per_pod`` super-spines, so
    every spine reaches every pod (Andreyev, Introducing data center fabric, 2014). Leaves, spines and hosts are
    numbered through the pods. Raises `PlanError` for a fabric that cannot be.
    """
    at_least(
        1,
        super_spines=super_spines,
        pods=pods,
        spines_per_pod=spines_per_pod,
        leaves_per_pod=leaves_per_pod,
        hosts_per_leaf=hosts_per_leaf,
    )
    if super_spines % spines_per_pod:
        raise PlanError(
            f"{shown(super_spines)} super-spines cannot be shared evenly by a pod's {shown(spines_per_pod)} spines: "
            f"super_spines must be a multiple of spines_per_pod"
        )
    return _pods("three-tier", super_spines, pods, spines_per_pod, leaves_per_pod, hosts_per_leaf)


def FatTree(k: int) -> FabricPlan:  # noqa: N802 - it reads as a noun in scenarios
    """The fat tree of switches with ``k`` ports each: k³/4 hosts, as many paths between pods as (k/2)².

    Its edge switches are our leaves, its aggregation switches our spines, its core our super-spines (Al-Fares,
    Loukissas, Vahdat, A scalable, commodity data center network architecture, 2008, §3). Raises `PlanError` for an odd
    ``k``, or one that is too large.
    """
    if k < 2 or k % 2:
        raise PlanError(f"k is {shown(k)}; the switches of a fat tree have an even number of ports, at least 2")
    half = k // 2
    return _pods("fat-tree", half * half, k, half, half, half)


def _pods(kind: str, super_spines: int, pods: int, spines: int, leaves: int, hosts: int) -> FabricPlan:
    at_most(
        leaves=pods * leaves,
        spines=super_spines + pods * spines,
        hosts=pods * leaves * hosts,
        links=pods * (leaves * hosts + leaves * spines + super_spines),
    )
    draft = Draft()
    leaf_names = draft.switches("leaf", (f"leaf{number}" for number in range(1, pods * leaves + 1)))
    spine_names = draft.switches("spine", (f"spine{number}" for number in range(1, pods * spines + 1)))
    super_names = draft.switches("spine", (f"super{number}" for number in range(1, super_spines + 1)))
    for number, (leaf, network) in enumerate(zip(leaf_names, leaf_networks(pods * leaves, hosts), strict=True)):
        pod = number // leaves
        draft.hosts(leaf, hosts, network)
        for spine in spine_names[pod * spines : (pod + 1) * spines]:
            draft.link(leaf, spine)
    plane = super_spines // spines
    for number, spine in enumerate(spine_names):
        first = number % spines * plane
        for super_spine in super_names[first : first + plane]:
            draft.link(spine, super_spine)
    return draft.plan(kind)
