"""How packets were spread over equal ways: what every switch sent up, by link, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.report import words
from experiments.report.proof import Table
from topologies.plan import End, FabricPlan

#: ``(direction, what): [(nanoseconds, count so far), …]``.
Samples = Mapping[tuple[str, str], Sequence[tuple[int, float]]]


def balance(metrics: Samples, plan: FabricPlan | None) -> Table | None:
    """What each switch sent to the tier above, over the whole run, as shares; None where there is no choice of ways.

    Shares are of packets, by the links' counters; where weights are uneven the plan's are beside them.
    """
    if plan is None:
        return None
    tier = _tiers(plan)
    rows = []
    for switch in plan.switches:
        ups: dict[str, tuple[float, int]] = {}
        for link in plan.links_of(switch.name):
            near, far = (link.a, link.b) if link.a.node == switch.name else (link.b, link.a)
            if tier.get(far.node, 0) > tier[near.node]:
                ups[far.node] = _sent(metrics, near, far), link.weight
        total, weights = sum(sent for sent, _ in ups.values()), sum(weight for _, weight in ups.values())
        if len(ups) < 2 or not total:
            continue
        even = len({weight for _, weight in ups.values()}) == 1
        told = [
            f"{name} {words.share(sent / total)}" + ("" if even else f" (planned {words.share(weight / weights)})")
            for name, (sent, weight) in ups.items()
        ]
        rows.append([switch.name, f"{round(total):,}", ", ".join(told)])
    if not rows:
        return None
    return Table("Packets sent up, by the links' counters, over the whole run", ["from", "packets", "to"], rows)


def _tiers(plan: FabricPlan) -> dict[str, int]:
    """How many links each switch is away from the nearest leaf."""
    tiers = {leaf.name: 0 for leaf in plan.by_role("leaf")}
    reached = list(tiers)
    for name in reached:
        for link in plan.links_of(name):
            for end in (link.a, link.b):
                if end.port and end.node not in tiers:
                    tiers[end.node] = tiers[name] + 1
                    reached.append(end.node)
    return tiers


def _sent(metrics: Samples, near: End, far: End) -> float:
    counted = metrics.get((f"{near.node}>{far.node}", "packets"), ())
    return counted[-1][1] - counted[0][1] if counted else 0.0
