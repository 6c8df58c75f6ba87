"""Making a failing seed small: fewer faults, shorter and later ones, fewer clients and operations, as long as it fails
in the same way.

Greedy, and so a local minimum: each change is kept if the seed still breaks the same promise likewise, and shows it no
less clearly.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import tomli_w

from experiments.scenario import Expect, Impair, Register, Scenario
from experiments.scenario import expect as expected
from experiments.simulation.seed import Outcome, play_seed
from topologies.impairment import Impairment
from topologies.units import format_duration

#: A fault is not made shorter than this, and nothing is left of a scenario behind the last one but this.
SHORTEST_NS = 5_000_000
AFTERMATH_NS = 1_500_000_000

#: A fault is not moved by less than this.
LEAST_LATER_NS = 50_000_000

#: What faults have that is written as a duration.
SPANS = ("at", "lasts", "late", "down", "period", "jitter", "offset")

_replace = msgspec.structs.replace


class Failure(NamedTuple):
    """How a seed fails, without the names, numbers and times of that seed: ``findings``, of which the first counts, and
    ``doubts``, as what it may show nothing.
    """

    findings: Sequence[str]
    doubts: frozenset[str] = frozenset()

    def is_shown_by(self, other: Failure | None) -> bool:
        """Whether ``other`` has the same finding, and no doubts but those that are here."""
        return other is not None and self.findings[0] in other.findings and other.doubts <= self.doubts


def failure(scenario: Scenario) -> Failure | None:
    """How ``scenario`` fails with its seed; None if it does not."""
    outcome = play_seed(scenario)
    if outcome.valid is not False:
        return None
    doubts = frozenset(doubt.partition(":")[0] for doubt in outcome.doubts)
    return Failure([_finding(sentence, outcome) for sentence in outcome.broken], doubts)


def _finding(sentence: str, outcome: Outcome) -> str:
    """What kind of failure ``sentence``, one of ``outcome.broken``, tells of: too late is not the same as never."""
    name, _, said = sentence.partition(": ")
    detected = outcome.detection.detected if outcome.detection else []
    times: dict[str, Sequence[int | None]] = {
        "election": outcome.election_times,
        "detection": [one.last for one in detected],
        "reinstatement": [one.back for one in detected],
    }
    if name in times:
        return f"{name}: {'never' if None in times[name] else 'late'}"
    if name == "recovery":
        return f"{name}: {'never' if said.startswith('no steady service') else 'late'}"
    if name == "linearizable":
        verb = re.search(r"process \S+ (\w+)", said)
        return f"{name}: {verb[1] if verb else said}"
    if name in ("acknowledged_writes", "availability", "leader_changes", "stale_reads", "takeover", "false_positives"):
        return name
    # Of a property or a node that broke, the words without who, what and when.
    return re.sub(r"#(?:[,\s]+#)*", "#", re.sub(r"\S*\d\S*", "#", sentence))


def shrink(
    scenario: Scenario, plays: int = 200, fails: Callable[[Scenario], Failure | None] = failure
) -> Scenario | None:
    """The smallest found in ``plays`` plays that fails as ``scenario`` does, None if it does not fail."""
    original = fails(scenario)
    if original is None:
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
            if original.is_shown_by(fails(candidate)):
                scenario, smaller = candidate, True
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """What might do as well, the greatest savings first."""
    faults, workload = scenario.faults, scenario.workload
    for number in range(len(faults)):
        yield _replace(scenario, faults=faults[:number] + faults[number + 1 :])
    end = max((fault.at + fault.lasts for fault in faults), default=0)
    if end + AFTERMATH_NS < scenario.duration:
        yield _replace(scenario, duration=end + AFTERMATH_NS)
    if isinstance(workload, Register):
        yield from (_replace(scenario, workload=smaller) for smaller in _smaller_workloads(workload))
    for number, fault in enumerate(faults):
        for changed in (*_shorter(fault), *_later(fault, end)):
            yield _replace(scenario, faults=(*faults[:number], changed, *faults[number + 1 :]))


def _shorter(fault: Any) -> Iterator[Any]:
    """Half as long: begun later, or ended earlier."""
    half = fault.lasts // 2
    if half >= SHORTEST_NS:
        yield _replace(fault, at=fault.at + fault.lasts - half, lasts=half)
        yield _replace(fault, lasts=half)


def _later(fault: Any, end: int) -> Iterator[Any]:
    """As long, nearer to the ``end`` of the last fault: what happens before a fault matters less then."""
    room = end - fault.at - fault.lasts
    while room >= LEAST_LATER_NS:
        yield _replace(fault, at=fault.at + room)
        room //= 2


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
    """A scenario file (docs/scenarios.md): the one that ``scenario`` comes from, as far as it was made smaller, with
    what was expected when it was judged.
    """
    document = tomllib.loads(scenario.toml)
    scale = scenario.time_scale
    workload = scenario.workload
    document |= {
        "name": scenario.name,
        "seed": scenario.seed,
        "duration": format_duration(round(scenario.duration / scale)),
        "fault": [_fault(fault, scale) for fault in scenario.faults],
        "expect": _expect(scenario.expect, scale),
    }
    if isinstance(workload, Register):
        sizes = {"clients": workload.clients, "rate": workload.rate * scale, "keys": workload.keys}
        document["workload"] = document.get("workload", {}) | sizes
    if scenario.system.implementation:
        document["system"] = document.get("system", {}) | {"implementation": scenario.system.implementation}
    return f"# {comment}\n{tomli_w.dumps(document)}"


def _expect(expect: Expect, scale: float) -> dict[str, Any]:
    """Its table; what is None is not expected."""
    asked = {name: value for name, value in msgspec.structs.asdict(expect).items() if value is not None}
    times = {name: format_duration(round(asked[name] / scale)) for name in expected.SPANS if name in asked}
    return asked | times


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
