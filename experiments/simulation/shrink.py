"""Making a failing seed small: fewer faults, shorter ones, fewer clients and operations, as long as it still fails.

Greedy, and so a local minimum: each change is kept if the seed still breaks the same promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from experiments.scenario import Impair, Kill, LinkDown, Partition, Scenario
from experiments.simulation.seed import play_seed
from topologies.impairment import Impairment
from topologies.units import format_duration

#: A fault is not made shorter than this, and nothing is left of a scenario behind the last one but this.
SHORTEST_NS = 5_000_000
AFTERMATH_NS = 1_500_000_000

#: What a scenario file can say of an impairment.
IN_FILES = ("delay", "jitter", "distribution", "loss", "rate", "queue")

_replace = msgspec.structs.replace


class CannotWriteError(ValueError):
    """A scenario that no file can say: one of its faults is the simulator's alone."""


def broken_promise(scenario: Scenario) -> str | None:
    """The name of the check that ``scenario`` fails first, None if it fails none."""
    outcome = play_seed(scenario)
    return outcome.broken[0].partition(":")[0] if outcome.valid is False else None


def shrink(
    scenario: Scenario, plays: int = 200, breaks: Callable[[Scenario], str | None] = broken_promise
) -> Scenario | None:
    """The smallest found in ``plays`` plays that breaks the promise ``scenario`` breaks, None if it breaks none."""
    promise = breaks(scenario)
    if promise is None:
        return None
    tried: list[Scenario] = []
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(scenario):
            if len(tried) >= plays:
                return scenario
            if candidate in tried:
                continue
            tried.append(candidate)
            if breaks(candidate) == promise:
                scenario, smaller = candidate, True
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """What might do as well, the greatest savings first."""
    faults, workload = scenario.faults, scenario.workload
    for number in range(len(faults)):
        yield _replace(scenario, faults=faults[:number] + faults[number + 1 :])
    end = max((fault.at + fault.lasts for fault in faults), default=0) + AFTERMATH_NS
    if end < scenario.duration:
        yield _replace(scenario, duration=end)
    if workload.clients > 1:
        fewer = _replace(workload, clients=workload.clients // 2, rate=workload.rate / 2)
        yield _replace(scenario, workload=fewer)
    if workload.keys > 1:
        yield _replace(scenario, workload=_replace(workload, keys=1))
    if workload.rate > 5:
        yield _replace(scenario, workload=_replace(workload, rate=workload.rate / 2))
    for number, fault in enumerate(faults):
        if fault.lasts // 2 >= SHORTEST_NS:
            shorter = _replace(fault, lasts=fault.lasts // 2)
            yield _replace(scenario, faults=(*faults[:number], shorter, *faults[number + 1 :]))


# ---------------------------------------------------------------------------------------------------------------------
# As a file


def to_toml(scenario: Scenario, comment: str) -> str:
    """A scenario file (docs/scenarios.md) for a leaf-spine ``scenario``. Raises `CannotWriteError`."""
    plan, system, workload = scenario.plan, scenario.system, scenario.workload
    leaves = len(plan.by_role("leaf"))
    mix = ", ".join(f"{f} = {share}" for f, share in workload.mix.items())
    low, high = map(format_duration, system.election_timeout)
    lines = [
        f"# {comment}",
        f'name = "{scenario.name}"',
        f"seed = {scenario.seed}",
        f'duration = "{format_duration(scenario.duration)}"',
        "",
        "[topology]",
        'kind = "leaf-spine"',
        f"spines = {len(plan.by_role('spine'))}",
        f"leaves = {leaves}",
        f"hosts_per_leaf = {len(plan.hosts) // leaves}",
        "",
        "[system]",
        'kind = "raft"',
        f"nodes = {system.nodes}",
        f'election_timeout = ["{low}", "{high}"]',
        f'heartbeat_interval = "{format_duration(system.heartbeat_interval)}"',
        f"pre_vote = {_flag(system.pre_vote)}",
        f"check_quorum = {_flag(system.check_quorum)}",
        *([f'implementation = "{system.implementation}"'] if system.implementation else []),
        *([f"placement = {_list(system.placement)}"] if system.placement else []),
        "",
        "[workload]",
        'kind = "register"',
        f"clients = {workload.clients}",
        f"rate = {workload.rate}",
        f"keys = {workload.keys}",
        f"mix = {{ {mix} }}",
        f'timeout = "{format_duration(workload.timeout)}"',
        *([f"placement = {_list(workload.placement)}"] if workload.placement else []),
    ]
    for name, impairment in plan.impairments.items():
        lines += ["", f'[topology.link."{name}"]', *_impairment(impairment)]
    for fault in scenario.faults:
        lines += ["", "[[fault]]", *_fault(fault)]
    lines += ["", "[expect]", f"linearizable = {_flag(scenario.expect.linearizable)}"]
    if scenario.expect.recovery is not None:
        lines.append(f'recovery = "{format_duration(scenario.expect.recovery)}"')
    return "\n".join(lines) + "\n"


def _fault(fault: Any) -> list[str]:
    kind = str(fault.__struct_config__.tag)
    when = [f'kind = "{kind}"', f'at = "{format_duration(fault.at)}"', f'for = "{format_duration(fault.lasts)}"']
    match fault:
        case Partition(groups=groups):
            return [*when, f"groups = [{', '.join(map(_list, groups))}]"]
        case Kill(nodes=nodes):
            return [*when, f"nodes = {_list(nodes)}"]
        case LinkDown(links=links):
            return [*when, f"links = {_list(links)}"]
        case Impair(links=links, impairment=impairment):
            return [*when, f"links = {_list(links)}", *_impairment(impairment)]
    raise CannotWriteError(f"a fault of kind {kind!r} is the simulator's alone: replay it with its seed")


def _impairment(impairment: Impairment) -> list[str]:
    said = []
    for name, default in msgspec.structs.asdict(Impairment()).items():
        value = getattr(impairment, name)
        if value == default:
            continue
        if name not in IN_FILES:
            raise CannotWriteError(f"an impairment with {name} cannot be written: replay it with its seed")
        if name in ("delay", "jitter"):
            said.append(f'{name} = "{format_duration(value)}"')
        elif name == "rate":
            said.append(f'rate = "{value}bit"')
        else:
            said.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
    return said


def _list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _flag(value: bool) -> str:
    return "true" if value else "false"
