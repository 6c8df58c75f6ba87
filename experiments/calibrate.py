"""``splitbrain calibrate``: what links really do when they are asked for something, on this machine, now.

Each impairment is put on its direction of a fabric that carries nothing else, measured by marked frames (and, for a
rate, by more of them than it lets through), and lifted again. What is obtained is told with its confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from experiments.emulation.inside import Inside
from experiments.plans import named
from experiments.report import words
from experiments.scenario import Impair, Scenario, ScenarioError, directions
from experiments.shell_words import parse_impair
from topologies.impairment import Impairment, expected_delay
from topologies.leaf_spine import LeafSpine
from topologies.machine import require
from topologies.plan import FabricPlan
from topologies.privileges import obstacles, probe
from topologies.sandbox import PrivilegeError, Sandbox
from topologies.supervisor import TEMPORARY

#: What is calibrated where nobody says what: the accuracy of this machine.
BATTERY = (
    "delay=1ms",
    "delay=10ms",
    "delay=100ms",
    "delay=20ms jitter=5ms distribution=normal",
    "loss=1%",
    "loss=10%",
    "loss=10% burst=5",
    "rate=10mbit",
    "rate=100mbit",
)

#: At most one probe every 2 ms is sent, so never more than this many in a minute.
_MOST_PACKETS = 30_000

_PATIENCE = 30.0

Wanted = tuple[str, Impairment]


class Calibration(msgspec.Struct, frozen=True):
    """What one direction did. ``obtained`` is an `topologies.measure.Obtained`, with a ``rate`` where one was asked;
    ``disagreements`` says where it is not what was asked, beyond what chance and a busy machine explain."""

    direction: str
    asked: Impairment
    obtained: dict[str, Any]
    disagreements: list[str]


def calibrate(
    fabric: str | None, impairments: Sequence[str], span_ns: int, say: Callable[[str], None]
) -> tuple[dict[str, str], list[Calibration]]:
    """The backends that did the work, and what each impairment came to, measured for about ``span_ns`` each.

    ``fabric`` is as for `experiments.plans.named`; a scenario brings its own impairments, ``impairments`` are more, as
    the shell has them: ``leaf1>spine1 delay=20ms``. With neither, a battery of usual ones.
    """
    plan, asked = wanted(fabric, impairments)
    lacking = obstacles(probe(), tun=True)
    if lacking:
        raise PrivilegeError("; ".join(lacking))
    require("ip", "tc", "ovs-vswitchd", "ovsdb-server")
    with Sandbox(Inside, plan, Path(TEMPORARY), 1, on_event=lambda event: None) as sandbox:
        facts: dict[str, Any] = sandbox.call_sync("build")
        sandbox.call_sync("wait_forwarding", _PATIENCE)
        found = []
        for direction, impairment in asked:
            say(f"{direction}: {words.impairment(msgspec.to_builtins(impairment))}")
            obtained = sandbox.call_sync("calibrate", {direction: impairment}, span_ns, _MOST_PACKETS)[direction]
            del obtained["asked"]
            found.append(Calibration(direction, impairment, obtained, obtained.pop("disagreements")))
    return facts["backends"], found


def show(console: Console, backends: dict[str, str], found: Sequence[Calibration]) -> None:
    """A table: one line a figure, what was asked beside what was obtained."""
    table = Table("direction", "", "asked", "obtained", "95 % interval", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for one in found:
        name = one.direction
        for row in _rows(one):
            table.add_row(name, *row)
            name = ""
        for problem in one.disagreements:
            table.add_row("", "[red]✘[/]", problem)
    console.print(table)
    wrong = sum(1 for one in found if one.disagreements)
    verdict = f"{wrong} of {len(found)} did not do what was asked" if wrong else "all did what was asked"
    console.print(f"\n{verdict}; impaired by {backends['impairment']}, switched by {backends['datapath']}")


def wanted(fabric: str | None, impairments: Sequence[str]) -> tuple[FabricPlan, list[Wanted]]:
    """The plan, and what is put on which of its directions. Raises what `experiments.plans.named` and
    `experiments.shell_words.parse_impair` do, and `ScenarioError` where that is nothing."""
    if fabric is None:
        plan = LeafSpine(1, 2, 1)
        given = impairments or [f"leaf1>spine1 {one}" for one in BATTERY]
        return plan, _read(plan, given)
    found = named(fabric)
    if isinstance(found, FabricPlan):
        plan, own = found, list(found.impairments.items())
    else:
        plan, own = found.plan, _of_scenario(found)
    asked = own + _read(plan, impairments)
    if not asked:
        raise ScenarioError(
            f"{fabric} impairs no link, so there is nothing to calibrate; say what: "
            f'splitbrain calibrate {fabric} "leaf1>spine1 delay=20ms loss=1%"'
        )
    return plan, asked


def _of_scenario(scenario: Scenario) -> list[Wanted]:
    faults = [fault for fault in scenario.faults if isinstance(fault, Impair)]
    return [
        *scenario.plan.impairments.items(),
        *((way, fault.impairment) for fault in faults for way in directions(scenario.plan, fault.links)),
    ]


def _read(plan: FabricPlan, given: Sequence[str]) -> list[Wanted]:
    read = [parse_impair(plan, line) for line in given]
    return [(way, impairment) for ways, impairment in read for way in ways]


def _rows(one: Calibration) -> list[tuple[str, str, str, str]]:
    asked, obtained = one.asked, one.obtained
    mean, deviation = expected_delay(asked, obtained["size"])
    shown = [
        (what, write(wanted), _or_none(obtained[key], write), _interval(obtained[f"{key}_interval"], write))
        for what, key, wanted, write in (
            ("delay", "delay_mean", mean, _exact),
            ("jitter", "jitter", deviation, _exact),
            ("loss or damage" if asked.corrupt else "loss", "loss", asked.missing, words.share),
        )
    ]
    if asked.burst:
        shown.append(("burst", words.figures(asked.burst), _or_none(obtained["loss_burst"], words.figures), ""))
    if rate := obtained.get("rate"):
        shown.append(
            ("rate", words.rate(asked.rate), words.rate(rate["rate"]), _interval(rate["interval"], words.rate))
        )
    return shown


def _exact(nanoseconds: float) -> str:
    """To the microsecond, which is what there is to see where 10 ms were asked."""
    return f"{nanoseconds / 1e6:,.3f}{words.THIN}ms"


def _or_none(value: float | None, write: Callable[[float], str]) -> str:
    return "–" if value is None else write(value)


def _interval(interval: Sequence[float] | None, write: Callable[[float], str]) -> str:
    return "" if interval is None else f"{write(interval[0])} to {write(interval[1])}"
