"""Benchmarks: what is promised in figures, measured on this machine, each beside its aim and a peer where there is one.

A bench is a module here with ``bench() -> list[Figure]``; ``splitbrain bench NAME`` runs it.
"""

from __future__ import annotations

import importlib
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

BENCHES = ("detectors", "ecmp", "fabric", "failover", "mtu", "raft", "simulator", "throughput", "wire")

_NEAR = re.compile(r"(\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?) %")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {"≤": operator.le, "≥": operator.ge}


class BenchError(Exception):
    """A bench that does not exist or cannot run here; the message says why and what to do."""


class Figure(msgspec.Struct, frozen=True):
    """One measured value. ``aim`` is written like ``≤ 1.0``; ``peer`` is what was measured beside it in the same run.

    ``met`` and ``ratio`` (value over peer_value) follow from the others: make figures by `figure`.
    """

    name: str
    value: float
    unit: str
    aim: str | None = None
    met: bool | None = None
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    aim: str | None = None,
    peer: str | None = None,
    peer_value: float | None = None,
) -> Figure:
    """A figure with ``met`` and ``ratio`` filled in. Raises ValueError for an aim that `meets` cannot read."""
    met = None if aim is None else meets(value, aim)
    ratio = value / peer_value if peer_value else None
    return Figure(name, value, unit, aim, met, peer, peer_value, ratio)


def meets(value: float, aim: str) -> bool:
    """Whether ``value`` is what ``aim`` (``≤ 1.0``, ``≥ 5000``, ``1.58 ± 5 %``) asks for."""
    if match := _NEAR.fullmatch(aim):
        wanted, percent = map(float, match.groups())
        return abs(value - wanted) <= abs(wanted) * percent / 100
    relation, _, bound = aim.partition(" ")
    try:
        return _RELATIONS[relation](value, float(bound.replace(",", "")))
    except (KeyError, ValueError):
        raise ValueError(f"{aim!r} is no aim: write '≤ 1.0', '≥ 5000' or '1.58 ± 5 %'") from None


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "cpu": _cpu_model(Path("/proc/cpuinfo").read_text()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu_model(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def as_json(name: str, figures: Sequence[Figure]) -> bytes:
    """One object: the bench, its figures, the machine and the command that measures them again."""
    command = f"splitbrain bench {name} --json"
    return msgspec.json.encode({"bench": name, "figures": figures, "machine": machine(), "command": command})


def as_table(name: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=f"splitbrain bench {name}", title_justify="left")
    for heading in ("figure", "value", "unit", "aim", "", "peer", "peer's value", "ratio"):
        justify: Literal["left", "right"] = "right" if heading in ("value", "peer's value", "ratio") else "left"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in figures:
        mark = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
        cells = [row.name, _number(row.value), row.unit, row.aim or "", mark]
        table.add_row(*cells, row.peer or "", _number(row.peer_value), _number(row.ratio))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def run_bench(name: str, json: bool) -> int:
    """Run a bench and print its figures; 0 when every aim was met, else 1. Raises `BenchError`."""
    if name not in BENCHES:
        raise BenchError(f"there is no bench {name!r}; there is {', '.join(BENCHES)}")
    figures: list[Figure] = importlib.import_module(f"experiments.bench.{name}").bench()
    if json:
        sys.stdout.buffer.write(as_json(name, figures) + b"\n")
        sys.stdout.flush()
    else:
        # A file has no width: figures are not cut off for one.
        Console(width=None if sys.stdout.isatty() else 140).print(as_table(name, figures))
    return 1 if any(row.met is False for row in figures) else 0
