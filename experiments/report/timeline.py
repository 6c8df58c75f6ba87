"""What happened over time, as panels on one time axis: which lines, areas and marks, and where their labels stand.

Across, coordinates are whole milliseconds, so that a plot is stretched to whatever width the page has and is zoomed by
its view box alone; down, they are pixels. Text is kept out of the plots for the same reason: labels are placed beside
them, by a share of the time axis or a height.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec

from experiments.checking.availability import is_served
from experiments.checking.fault_record import FaultRecord
from experiments.checking.history import Operation
from experiments.report import words
from experiments.report.events import DOWN, FAILED, SERVING, SUSPECT, UP, Lane, Stretch
from experiments.report.series import RANKS, Counts, Latencies
from topologies.plan import FabricPlan

MS = words.MILLISECOND

#: Fewer entries than this behind the furthest node are what replication always costs.
NOTICEABLY_BEHIND = 10

#: Pixels of the time axis on paper.
NARROW = 560

#: More lines than this cannot be told apart, and more labels have no room.
MOST_SPINES, MOST_LABELS = 4, 6

#: Samples, as (time, value), by source and metric.
Metrics: TypeAlias = Mapping[tuple[str, str], Sequence[tuple[int, float]]]

RANK_NAMES = {50: "p50", 95: "p95", 99: "p99", 100: "max"}


class Tick(msgspec.Struct, frozen=True):
    y: float
    text: str


class Shape(msgspec.Struct, frozen=True):
    """A path; ``kind`` says how it is drawn (``line``, ``area``, ``dots`` …) and ``series`` what it is."""

    kind: str
    series: str
    path: str


class Label(msgspec.Struct, frozen=True):
    """At the right end of a line (``at`` is None), or over the plot at a time in milliseconds."""

    text: str
    series: str
    y: float
    at: float | None = None


class Panel(msgspec.Struct, frozen=True):
    key: str
    title: str
    unit: str
    height: int
    ticks: list[Tick]
    shapes: list[Shape]
    labels: list[Label]


class Window(msgspec.Struct, frozen=True):
    """A fault's time on the axis, milliseconds; ``row`` keeps those that overlap apart."""

    fault: int
    start: float
    end: float
    label: str
    row: int


class Bar(msgspec.Struct, frozen=True):
    """A stretch of a node's role; ``y`` and ``height`` make roles differ in shape as well as in colour."""

    start: float
    width: float
    role: str
    y: float
    height: float
    term: int

    @property
    def label(self) -> str:
        """What stands on it, if anything."""
        match self.role:
            case "leader":
                return f"term {self.term}"
            case "failed":
                return f"failed for {self.term}"
        return "down" if self.role == DOWN else ""

    @property
    def told(self) -> str:
        """The same in full."""
        if self.role == SERVING:
            return f"serves {self.term}"
        return self.label if self.role in (DOWN, FAILED) else f"{self.role.replace('_', '-')}{self._in_term}"

    @property
    def _in_term(self) -> str:
        return f", term {self.term}" if self.role not in (UP, SUSPECT) else ""


class Track(msgspec.Struct, frozen=True):
    node: str
    bars: list[Bar]


class Timeline(msgspec.Struct, frozen=True):
    """``end`` in milliseconds. ``data`` is what the page's script reads values from. ``leading``: so many of the panels
    are about operations, and stand before the nodes' lanes.
    """

    end: int
    ticks: list[tuple[float, str]]
    windows: list[Window]
    panels: list[Panel]
    tracks: list[Track]
    data: dict[str, Any]
    leading: int

    @property
    def roles(self) -> str:
        """What the lanes tell of: ``elected``, ``judged`` by each other, ``serving`` shards, or only ``running``."""
        seen = {bar.role for track in self.tracks for bar in track.bars}
        if UP not in seen:
            return "elected"
        return "judged" if seen & {SUSPECT, FAILED} else "serving" if SERVING in seen else "running"

    @property
    def window_rows(self) -> int:
        return 1 + max((window.row for window in self.windows), default=-1)


#: Top and height of a role's bar in a lane of `LANE` pixels.
LANE = 22
_BARS = {
    "leader": (3.0, 16.0),
    "candidate": (6.0, 10.0),
    "pre_candidate": (8.0, 6.0),
    "follower": (10.0, 2.0),
    UP: (10.0, 2.0),
    SERVING: (3.0, 16.0),
    SUSPECT: (8.0, 6.0),
    FAILED: (6.0, 10.0),
    DOWN: (3.0, 16.0),
}


def build(
    operations: Sequence[Operation],
    counts: Counts,
    latency: Latencies,
    lanes: Sequence[Lane],
    faults: Sequence[FaultRecord],
    end: int,
    asked_rate: float | None,
    metrics: Metrics,
    plan: FabricPlan | None,
) -> Timeline:
    """``end`` in nanoseconds; ``asked_rate`` is the workload's, operations a second; ``metrics`` as in `Record`."""
    step = words.nice_step(end / words.SECOND, 12)
    ticks = [
        (number * step * 1000, words.figures(number * step))
        for number in range(int(end / words.SECOND / step + 1e-9) + 1)
    ]
    panels = [_throughput(counts, end, asked_rate), _latency(operations, latency, end), _errors(counts, end)]
    panels = panels if operations else []
    leading = len(panels)
    behind = _behind(lanes, counts.width, end)
    more = (_lag(behind, counts.width, end), _uplinks(metrics, plan, faults, end), _machine(metrics, end))
    panels += [panel for panel in more if panel is not None]
    most = max((one.term for lane in lanes for one in lane.stretches if one.role == SERVING), default=1)
    tracks = [Track(lane.node, [_bar(one, most) for one in lane.stretches if one.end > 0]) for lane in lanes]
    data = {
        "end": end // MS,
        "counts": {
            "width": counts.width // MS,
            **{name: [round(rate) for rate in counts.rates(getattr(counts, name))] for name in ("ok", "fail", "info")},
        },
        "latency": {
            "width": latency.width // MS,
            **{
                RANK_NAMES[rank]: [None if one is None else round(one / MS, 2) for one in latency.ranks[rank]]
                for rank in RANKS
            },
        },
        "lanes": {track.node: [[bar.start, bar.start + bar.width, bar.told] for bar in track.bars] for track in tracks},
    }
    return Timeline(end // MS, ticks, windows(faults, end), panels, tracks, data, leading)


def windows(faults: Sequence[FaultRecord], end: int) -> list[Window]:
    """From when a fault was applied until it was healed, or the record ends."""
    placed: list[Window] = []
    for fault in faults:
        if fault.applied is None:
            continue
        start = fault.applied.t / MS
        until = (end if fault.healed_at is None else fault.healed_at) / MS
        text = label(fault)
        busy = {window.row for window in placed if max(window.end, window.start + _label_length(window, end)) > start}
        row = next(row for row in range(len(placed) + 1) if row not in busy)
        placed.append(Window(fault.index, start, max(until, start + 1), text, row))
    return placed


def _label_length(window: Window, end: int) -> float:
    """Milliseconds of the axis that the label of a window takes, on a page that is not wide."""
    return (len(window.label) + 4) * 7 / NARROW * end / MS


def label(fault: FaultRecord) -> str:
    """A fault in as few words as its place on the time axis has."""
    resolved = fault.resolved
    if "groups" in resolved:
        return "partition " + " | ".join(" ".join(group) for group in resolved["groups"])
    if "directions" in resolved:
        first = next(iter(resolved["directions"].items()), None)
        what = f"{first[0]}: {words.impairment(first[1])}" if first else ""
        more = len(resolved["directions"]) - 1
        return what + (f", and {more} more" if more > 0 else "")
    if "links" in resolved:
        return words.listed(resolved["links"], 3) + " down"
    if "nodes" in resolved:
        return words.listed(resolved["nodes"], 5) + " killed"
    if "voters" in resolved:
        return "voters " + words.listed(resolved["voters"], 5)
    return fault.kind


def _throughput(counts: Counts, end: int, asked: float | None) -> Panel:
    rates = counts.rates(counts.ok)
    top = max([*rates, asked or 0, 1]) * 1.06
    height = 104
    line = _steps([_y(rate, top, height) for rate in rates], counts.width, end)
    shapes = [
        Shape("area", "ok", f"{line}V{height}H0Z"),
        Shape("line", "ok", line),
    ]
    if asked:
        shapes.append(Shape("rule", "asked", f"M0 {_y(asked, top, height):.1f}H{end // MS}"))
    labels = [Label("answered", "ok", _y(_last(rates), top, height))]
    if asked:
        labels.append(Label("asked", "asked", _y(asked, top, height)))
    return Panel(
        "throughput",
        "Throughput",
        "operations per second",
        height,
        _ticks(top, height, 4),
        shapes,
        _apart(labels, height),
    )


def _latency(operations: Sequence[Operation], latency: Latencies, end: int) -> Panel:
    height = 190
    timed = [one for one in operations if one.complete is not None]
    spans = [max(1000, one.complete - one.invoke) for one in timed if one.complete is not None]
    low, high = min(spans, default=MS) * 0.8, max(spans, default=1000 * MS) * 1.3
    scale = height / math.log(high / low)

    def y(nanoseconds: float) -> float:
        return height - math.log(max(nanoseconds, low) / low) * scale

    dots: dict[str, list[str]] = {"ok": [], "fail": [], "info": []}
    for one, took in zip(timed, spans, strict=True):
        kind = "ok" if is_served(one) else one.type
        mark = "v-7" if kind == "info" else "h.1"
        dots[kind].append(f"M{one.invoke // MS} {y(took):.0f}{mark}")
    shapes = [Shape("dots", kind, "".join(paths)) for kind, paths in dots.items() if paths]
    labels: list[Label] = []
    # The slowest first, so that its label stays on top where it is no slower than the 99th percentile.
    for rank in reversed(RANKS):
        heights = [None if value is None else y(value) for value in latency.ranks[rank]]
        shapes.append(Shape("line", RANK_NAMES[rank], _joined(heights, latency.width, end)))
        known = [value for value in heights if value is not None]
        if known:
            labels.append(Label(RANK_NAMES[rank], RANK_NAMES[rank], known[-1]))
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    values = [factor * 10.0**decade for decade in decades for factor in factors]
    ticks = [Tick(y(value), words.span(value)) for value in values if low <= value <= high]
    return Panel(
        "latency", "Latency", "by the time of asking; logarithmic", height, ticks, shapes, _apart(labels, height)
    )


def _errors(counts: Counts, end: int) -> Panel:
    unit = "operations per second that failed, or whose outcome is unknown"
    if not any(counts.fail) and not any(counts.info):
        return Panel("errors", "Errors", unit, 14, [Tick(14, "0")], [], [Label("none", "asked", 10)])
    height = 46
    failed, unknown = counts.rates(counts.fail), counts.rates(counts.info)
    top = max(map(sum, zip(failed, unknown, strict=True))) * 1.06
    width, shapes = counts.width // MS, []
    gap = max(1, round(width * 0.12))
    for series, below, numbers in (("fail", [0.0] * len(failed), failed), ("info", failed, unknown)):
        bars = [
            f"M{slot * width + gap} {_y(base, top, height):.1f}"
            f"V{_y(base + number, top, height):.1f}h{width - 2 * gap}"
            f"V{_y(base, top, height):.1f}Z"
            for slot, (base, number) in enumerate(zip(below, numbers, strict=True))
            if number
        ]
        shapes.append(Shape("bars", series, "".join(bars)))
    labels = [Label("failed", "fail", height * 0.75), Label("unknown", "info", height * 0.3)]
    labels = [one for one in labels if any(getattr(counts, one.series))]
    return Panel(
        "errors",
        "Errors",
        "operations per second that failed, or whose outcome is unknown",
        height,
        _ticks(top, height, 2),
        shapes,
        _apart(labels, height),
    )


def _behind(lanes: Sequence[Lane], width: int, end: int) -> dict[str, list[int]]:
    """For every node, at the end of every bin: how many entries its commit index is behind the furthest one's."""
    reached: dict[str, list[int]] = {}
    for lane in lanes:
        times = [t for t, _ in lane.commits]
        positions = [bisect_right(times, (slot + 1) * width) for slot in range(-(-end // width))]
        reached[lane.node] = [lane.commits[position - 1][1] if position else 0 for position in positions]
    furthest = [max(column) for column in zip(*reached.values(), strict=True)]
    return {
        node: [most - index for most, index in zip(furthest, indices, strict=True)] for node, indices in reached.items()
    }


def _lag(behind: dict[str, list[int]], width: int, end: int) -> Panel | None:
    peak = max((max(lags, default=0) for lags in behind.values()), default=0)
    if peak < NOTICEABLY_BEHIND:
        return None
    height = 60
    top = peak * 1.1
    shapes, labels = [], []
    # Those that keep up lie on each other at the bottom: drawn first, and all alike.
    for number, (node, lags) in enumerate(sorted(behind.items(), key=lambda each: max(each[1]))):
        noticeable = max(lags) >= max(NOTICEABLY_BEHIND, peak * 0.25)
        series = f"node{number % 7}" if noticeable else "asked"
        shapes.append(Shape("line", series, _steps([_y(lag, top, height) for lag in lags], width, end)))
        if noticeable:
            worst = max(lags)
            slot = lags.index(worst)
            labels.append(Label(node, series, _y(worst, top, height), min((slot + 1) * width, end) / MS))
    return Panel(
        "behind",
        "Behind",
        "entries committed by the furthest node and not yet by this one",
        height,
        _ticks(top, height, 2),
        shapes,
        labels,
    )


def _uplinks(metrics: Metrics, plan: FabricPlan | None, faults: Sequence[FaultRecord], end: int) -> Panel | None:
    """Packets a second that leaves send up to each spine, and in each direction that a fault cut or impaired."""
    if plan is None:
        return None
    lines: list[tuple[str, str, list[tuple[int, int, float]]]] = []
    for number, spine in enumerate(plan.by_role("spine")):
        ways = [way for link in plan.links_of(spine.name) for way in link.directions if way.endswith(f">{spine.name}")]
        together: dict[int, float] = {}
        for way in ways:
            for t, packets in metrics.get((way, "packets"), ()):
                together[t] = together.get(t, 0.0) + packets
        lines.append(
            (f"to {spine.name}", f"node{(number + 1) % 7}" if number < MOST_SPINES else "asked", _rates(together))
        )
    touched = [way for fault in faults for way in fault.resolved.get("directions", ())]
    cut = {name for fault in faults for name in fault.resolved.get("links", ())}
    touched += [way for link in plan.links if link.name in cut for way in link.directions]
    for way in dict.fromkeys(touched):
        lines.append((way, "touched", _rates(dict(metrics.get((way, "packets"), ())))))
    lines = [line for line in lines if line[2]]
    top = max((rate for _, _, steps in lines for _, _, rate in steps), default=0.0) * 1.06
    if not top:
        return None
    height = 84
    shapes = [
        Shape("line", series, _levels([(start, stop, _y(rate, top, height)) for start, stop, rate in steps], end))
        for _, series, steps in lines
    ]
    labels = [Label(name, series, _y(steps[-1][2], top, height)) for name, series, steps in lines[-MOST_LABELS:]]
    unit = "packets a second from the leaves to each spine" + (
        ", and in the directions that were hit" if touched else ""
    )
    return Panel("uplinks", "Uplinks", unit, height, _ticks(top, height, 3), shapes, _apart(labels, height))


def _rates(counted: Mapping[int, float]) -> list[tuple[int, int, float]]:
    """A counter's samples as (from, to, count a second)."""
    return [
        (before, after, (counted[after] - counted[before]) * words.SECOND / (after - before))
        for before, after in pairwise(sorted(counted))
    ]


def _machine(metrics: Metrics, end: int) -> Panel | None:
    samples = metrics.get(("machine", "cpu_idle_share"))
    if not samples:
        return None
    height = 40
    steps = [(a, b, _y(1 - idle, 1.0, height)) for (a, _), (b, idle) in pairwise([(0, 0.0), *samples])]
    line = _levels(steps, end)
    ticks = [Tick(height, "0"), Tick(0, f"100{words.THIN}%")]
    return Panel(
        "machine", "Machine", "share of processor time in use", height, ticks, [Shape("line", "asked", line)], []
    )


def _bar(one: Stretch, most: int) -> Bar:
    """Who serves ``most`` shards has the highest bar."""
    top, height = _BARS.get(one.role, _BARS["follower"])
    if one.role == SERVING:
        top, height = round(top + height * (1 - one.term / most), 1), round(height * one.term / most, 1)
    left = max(0, one.start) / MS
    return Bar(round(left, 1), round(one.end / MS - left, 1), one.role, top, height, one.term)


def _y(value: float, top: float, height: float) -> float:
    return height - value / top * height


def _ticks(top: float, height: float, parts: int) -> list[Tick]:
    step = words.nice_step(top, parts)
    return [Tick(_y(number * step, top, height), words.figures(number * step)) for number in range(int(top / step) + 1)]


def _steps(heights: Sequence[float], width: int, end: int) -> str:
    """One level a bin. Levels that stay are drawn once."""
    path, before = [], None
    for slot, y in enumerate(heights):
        text = f"{y:.1f}"
        if text != before:
            path.append(f"M0 {text}" if before is None else f"H{slot * width // MS}V{text}")
            before = text
    return "".join(path) + f"H{end // MS}" if path else ""


def _levels(steps: Sequence[tuple[int, int, float]], end: int) -> str:
    """Levels from one time to another, in nanoseconds, joined."""
    inside = [(start // MS, min(stop, end) // MS, f"{y:.1f}") for start, stop, y in steps if start < end]
    return "".join(f"{'L' if number else 'M'}{start} {y}H{stop}" for number, (start, stop, y) in enumerate(inside))


def _joined(heights: Sequence[float | None], width: int, end: int) -> str:
    """Bins' middles joined, with gaps where a bin has nothing."""
    path, pen = [], "M"
    for slot, y in enumerate(heights):
        if y is None:
            pen = "M"
            continue
        middle = (slot * width + min((slot + 1) * width, end)) // 2 // MS
        path.append(f"{pen}{middle} {y:.1f}" + ("h.1" if pen == "M" else ""))
        pen = "L"
    return "".join(path)


def _last(values: Sequence[float]) -> float:
    """The last whole bin's value."""
    return values[-2] if len(values) > 1 else values[-1]


def _apart(labels: list[Label], height: float) -> list[Label]:
    ys = words.spread([label.y for label in labels], 13, 5, height - 3)
    return [msgspec.structs.replace(label, y=round(y, 1)) for label, y in zip(labels, ys, strict=True)]
