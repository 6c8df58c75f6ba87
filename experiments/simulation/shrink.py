"""Making a failing seed small: fewer faults, shorter ones, fewer clients and operations, as long as it still fails.

Greedy, and so a local minimum: each change is kept if the seed still breaks the same promise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import tomli_w

from experiments.scenario import Impair, Register, Scenario
from experiments.simulation.seed import play_seed
from topologies.impairment import Impairment
from topologies.units import format_duration

#: A fault is not made shorter than this, and nothing is left of a scenario behind the last one but this.
SHORTEST_NS = 5_000_000
AFTERMATH_NS = 1_500_000_000

#: What faults have that is written as a duration.
SPANS = ("at", "lasts", "late", "down", "period", "jitter")

_replace = msgspec.structs.replace


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
    if isinstance(workload, Register):
        yield from (_replace(scenario, workload=smaller) for smaller in _smaller_workloads(workload))
    for number, fault in enumerate(faults):
        if fault.lasts // 2 >= SHORTEST_NS:
            shorter = _replace(fault, lasts=fault.lasts // 2)
            yield _replace(scenario, faults=(*faults[:number], shorter, *faults[number + 1 :]))


def _smaller_workloads(workload: Register) -> Iterator[Register]:
    if workload.clients > 1:
        yield _replace(workload, clients=workload.clients // 2, rate=workload.rate / 2)
    if workload.keys > 1:
        yield _replace(workload, keys=1)
    if workload.rate > 5:
        yield _replace(workload, rate=workload.rate / 2)


# ---------------------------------------------------------------------------------------------------------------------
# As a file


def to_toml(scenario: Scenario, comment: str) -> str:
    """A scenario file (docs/scenarios.md): the one that ``scenario`` comes from, as far as it was made smaller."""
    document = tomllib.loads(scenario.toml)
    scale = scenario.time_scale
    workload = scenario.workload
    document |= {
        "name": scenario.name,
        "seed": scenario.seed,
        "duration": format_duration(round(scenario.duration / scale)),
        "fault": [_fault(fault, scale) for fault in scenario.faults],
    }
    if isinstance(workload, Register):
        sizes = {"clients": workload.clients, "rate": workload.rate * scale, "keys": workload.keys}
        document["workload"] = document.get("workload", {}) | sizes
    if scenario.system.implementation:
        document["system"] = document.get("system", {}) | {"implementation": scenario.system.implementation}
    return f"# {comment}\n{tomli_w.dumps(document)}"


def _fault(fault: Any, scale: float) -> dict[str, Any]:
    """Its table; names, numbers and impairments are written as they are read."""
    table = msgspec.to_builtins(fault)
    impaired = _impairment(fault.impairment) if isinstance(fault, Impair) else {}
    table.pop("impairment", None)
    times = {name: format_duration(round(table.pop(name) / scale)) for name in SPANS if name in table}
    times["for"] = times.pop("lasts")
    return {**table, **times, **impaired}


def _impairment(impairment: Impairment) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, default in msgspec.structs.asdict(Impairment()).items():
        value = getattr(impairment, name)
        if value == default:
            continue
        if name in ("delay", "jitter"):
            said[name] = format_duration(value)
        elif name == "samples":
            said[name] = [format_duration(sample) for sample in value]
        else:
            said[name] = f"{value}bit" if name == "rate" else value
    return said
