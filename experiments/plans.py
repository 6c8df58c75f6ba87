"""The fabric that a person names on a command line: a kind with its sizes, a scenario, or a plan that was saved."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Literal

import msgspec

from experiments.scenario import Scenario, load, place
from topologies.check import check
from topologies.graph import SingleSwitch
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.three_tier import FatTree, ThreeTier

SCENARIOS = Path(__file__).parent / "scenarios"

#: Kinds of fabric by name; their sizes are what the function must be given, whole numbers in its order.
KINDS: dict[str, Callable[..., FabricPlan]] = {
    "leaf-spine": LeafSpine,
    "three-tier": ThreeTier,
    "fat-tree": FatTree,
    "single": SingleSwitch,
}

#: What is built where nobody says anything else: as in a scenario's ``[topology]``.
DEFAULT = "leaf-spine,2,3,4"


#: Python reads no number of more than 4,300, and no fabric has so many of anything.
_MOST_DIGITS = 12


def scenario_file(name: str) -> Path:
    """The file of a shipped scenario, or of any other. Raises FileNotFoundError that says what is shipped."""
    if name.endswith(".toml") or os.sep in name:
        return Path(name)
    shipped = SCENARIOS / f"{name}.toml"
    if not shipped.exists():
        names = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.toml")))
        raise FileNotFoundError(errno.ENOENT, f"no scenario of that name; there is {names}, or give a .toml file", name)
    return shipped


def on_dataplane(plan: FabricPlan, dataplane: Literal["ovs", "routed"]) -> FabricPlan:
    """The same plan, forwarded by something else. Raises `PlanError` where that cannot do what the plan asks."""
    moved = msgspec.structs.replace(plan, dataplane=dataplane)
    check(moved)
    return moved


def named_plan(text: str) -> FabricPlan:
    """The plan that ``text`` means; raises as `named` does."""
    return named_fabric(text)[0]


def named_fabric(text: str) -> tuple[FabricPlan, dict[str, str]]:
    """The same, with the host of every node and client where a scenario says so; raises as `named` does."""
    found = named(text)
    if isinstance(found, FabricPlan):
        return found, {}
    return found.plan, place(found.plan, found.system, found.workload, found.tenant)


def named(text: str) -> FabricPlan | Scenario:
    """What ``text`` means: ``leaf-spine,2,3,4``, a plan's ``.json``, or a scenario's name or file.

    Raises `PlanError`, `experiments.scenario.ScenarioError`, or OSError for a file that cannot be read.
    """
    if text.endswith(".json"):
        try:
            return FabricPlan.from_json(Path(text).read_bytes())
        except PlanError as error:
            raise PlanError(f"{text}: {error}") from None
    kind, *sizes = text.split(",")
    if kind in KINDS:
        return KINDS[kind](**_sizes(kind, sizes))
    if sizes:
        raise PlanError(f"{text!r} is no fabric: there is no kind {kind!r}, only {_usages()}")
    try:
        return load(scenario_file(text))
    except FileNotFoundError as error:
        if error.filename != text or text.endswith(".toml"):
            raise
        raise FileNotFoundError(
            errno.ENOENT, f"neither a scenario that comes with splitbrain, nor a file, nor a kind ({_usages()})", text
        ) from None


def _sizes(kind: str, given: Sequence[str]) -> Mapping[str, int]:
    names = _parameters(kind)
    if not given:
        raise PlanError(f"{kind} needs its sizes: write {_usage(kind)}, such as {DEFAULT}")
    if long := [name for name, size in zip(names, given, strict=False) if len(size) > _MOST_DIGITS]:
        raise PlanError(f"{', '.join(long)} of {kind} has more than {_MOST_DIGITS} digits: no fabric is so large")
    if len(given) != len(names) or not all(size.strip().isdecimal() for size in given):
        raise PlanError(f"{','.join([kind, *given])!r} does not give {kind} its sizes: write {_usage(kind)}")
    return dict(zip(names, map(int, given), strict=True))


def _usage(kind: str) -> str:
    return ",".join([kind, *map(str.upper, _parameters(kind))])


def _parameters(kind: str) -> list[str]:
    return [name for name, one in signature(KINDS[kind]).parameters.items() if one.default is Parameter.empty]


def _usages() -> str:
    return ", ".join(map(_usage, KINDS))
