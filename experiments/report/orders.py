"""Why a check failed, drawn: operations that no order explains, as Porcupine draws them, and events that contradict.

In a diagram of operations time runs to the right but not to scale: only what came before what decides, so every start
and every end gets a place of its own, wide enough for the text. The times themselves are in each bar's title.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from experiments.report import words

#: More bars than this do not fit a page.
MOST_OPERATIONS = 22
MOST_KEYS = 4
#: How many of them come after the one that no order explains.
AFTERWARDS = 5

ROW, BAR, STEP, CHARACTER, LEFT, RIGHT = 36, 24, 15.0, 6.9, 72.0, 80.0
#: A diagram with few operations is spread over the page.
WIDTH, WIDEST_STEP = 1080.0, 48.0

#: More events than this are no longer compared at a glance.
MOST_EVENTS = 6
LONGEST_VALUE = 48


class Asked(msgspec.Struct, frozen=True):
    """One operation of a failed check's ``details``. ``complete`` is None where it never returned."""

    process: int
    f: str
    invoke: int
    value: Any = None
    complete: int | None = None
    type: str = "ok"


class Path(msgspec.Struct, frozen=True):
    """An order that fits as far as it goes: operations by number, and the state they leave."""

    order: list[int]
    state: Any = None


class Bar(msgspec.Struct, frozen=True):
    """``place``: its place in the longest order that was found, from 1; None: it has none."""

    x: float
    y: float
    width: float
    text: str
    title: str
    kind: str
    open: bool
    blamed: bool
    place: int | None


class Diagram(msgspec.Struct, frozen=True):
    """``stop``: where the longest order breaks off."""

    width: float
    height: float
    key: str
    rows: list[tuple[float, str]]
    bars: list[Bar]
    stop: float | None
    sentence: str
    shown: str


class Comparison(msgspec.Struct, frozen=True):
    """Events side by side: one column an event, one row a key; ``differs`` marks the rows to look at."""

    title: str
    heads: list[str]
    rows: list[tuple[str, list[str], bool]]
    left_out: int


def diagrams(details: Mapping[str, Any]) -> list[Diagram]:
    """One for each key without an order, `MOST_KEYS` at most."""
    found = [diagram(one) for one in (details, *details.get("others", ()))[:MOST_KEYS]]
    return [one for one in found if one is not None]


def diagram(details: Mapping[str, Any]) -> Diagram | None:
    """The operations on the key that has no order, around the one where the longest order breaks off."""
    try:
        asked = msgspec.convert(details.get("operations", []), list[Asked])
    except msgspec.ValidationError:
        return None
    # What failed did not happen, and an order need not explain it.
    numbered = [(number, one) for number, one in enumerate(asked) if one.type != "fail"]
    if not numbered:
        return None
    path = _longest(details)
    place = {number: at for at, number in enumerate(path.order, 1)} if path else {}
    blamed = details.get("stuck")
    if not isinstance(blamed, int) or not any(number == blamed for number, _ in numbered):
        blamed = None
    chosen = _around(numbered, blamed)

    texts = {number: _text(one) for number, one in chosen}
    starts, stops, width = _laid_out(chosen, texts, STEP)
    if width < WIDTH:
        step = min(WIDEST_STEP, STEP + (WIDTH - width) / len(chosen) / 2)
        starts, stops, width = _laid_out(chosen, texts, step)
    processes = sorted({one.process for _, one in chosen})
    row = {process: index for index, process in enumerate(processes)}
    bars = [
        Bar(
            starts[number],
            10 + row[one.process] * ROW,
            stops.get(number, width) - starts[number],
            texts[number],
            _title(one),
            one.f,
            number not in stops,
            number == blamed,
            place.get(number),
        )
        for number, one in chosen
    ]
    sentence = ""
    if blamed is not None and path is not None:
        held = f", and leaves {_brief(path.state)} there" if path.state is not None else ""
        sentence = f"Every order gets stuck before {_text(asked[blamed])} is explained"
        sentence += f": the longest has {words.plural(len(path.order), 'operation')}{held}."
    shown = (
        f"{len(chosen)} of {words.plural(len(numbered), 'operation')} on {details.get('key')} shown"
        if len(chosen) < len(numbered)
        else ""
    )
    return Diagram(
        width,
        len(processes) * ROW + 34,
        str(details.get("key", "")),
        [(10 + index * ROW, f"process {process}") for process, index in row.items()],
        bars,
        stops.get(blamed) if blamed is not None else None,
        sentence,
        shown,
    )


def broke_at(details: Mapping[str, Any], epoch: int | None) -> int | None:
    """The moment from which on the check could not hold: nanoseconds from the start of the workload."""
    operations, stuck = details.get("operations"), details.get("stuck")
    if isinstance(operations, list) and isinstance(stuck, int) and stuck < len(operations):
        complete = operations[stuck].get("complete")
        return complete if isinstance(complete, int) else None
    times = [event["t"] for event in details.get("events", ()) if isinstance(event, dict) and "t" in event]
    return max(times) - epoch if times and epoch is not None else None


def comparison(details: Mapping[str, Any], epoch: int | None) -> Comparison | None:
    """The events that contradict a property, side by side. ``epoch``: when the workload started, on their clock."""
    events = [event for event in details.get("events", ()) if isinstance(event, dict)]
    if not events:
        return None
    shown = events[:MOST_EVENTS]
    heads = [
        f"{one.get('node', '?')}, incarnation {one.get('incarnation', '?')}, line {one.get('line', '?')}"
        for one in shown
    ]
    keys = list(dict.fromkeys(key for one in shown for key in one if key not in ("node", "incarnation", "line", "t")))
    rows = []
    if epoch is not None:
        rows.append(("at", [words.moment(one["t"] - epoch) if "t" in one else "" for one in shown], True))
    for key in keys:
        values = [_brief(one.get(key)) for one in shown]
        rows.append((key, values, len({repr(one.get(key)) for one in shown}) > 1))
    return Comparison(str(details.get("property", "")), heads, rows, len(events) - len(shown))


def _laid_out(
    chosen: Sequence[tuple[int, Asked]], texts: Mapping[int, str], step: float
) -> tuple[dict[int, float], dict[int, float], float]:
    """Where each operation starts and, if it does, ends; and how wide all is. Order is kept, texts fit."""
    ends = [(one.invoke, 0, number) for number, one in chosen]
    ends += [(one.complete, 1, number) for number, one in chosen if one.complete is not None and one.type == "ok"]
    starts: dict[int, float] = {}
    stops: dict[int, float] = {}
    x = LEFT
    for _, is_end, number in sorted(ends):
        if is_end:
            x = stops[number] = max(x + step, starts[number] + len(texts[number]) * CHARACTER + 16)
        else:
            x = starts[number] = x + step
    return starts, stops, x + RIGHT


def _longest(details: Mapping[str, Any]) -> Path | None:
    try:
        paths = msgspec.convert(details.get("final_paths") or [], list[Path])
    except msgspec.ValidationError:
        return None
    return max(paths, key=lambda path: len(path.order), default=None)


def _around(numbered: Sequence[tuple[int, Asked]], blamed: int | None) -> list[tuple[int, Asked]]:
    """Those that say most: what ended last before the blamed operation did, and a few after it."""
    if len(numbered) <= MOST_OPERATIONS:
        return list(numbered)
    if blamed is None:
        return list(numbered[-MOST_OPERATIONS:])
    limit = next(one.complete or 0 for number, one in numbered if number == blamed)
    before = [each for each in numbered if each[1].invoke <= limit]
    after = [each for each in numbered if each[1].invoke > limit][:AFTERWARDS]
    # What never returned may have taken effect at any time since: it is evidence, and stays in the picture.
    before.sort(key=lambda each: (each[0] == blamed, each[1].type != "ok", each[1].complete or 0))
    return sorted(before[-(MOST_OPERATIONS - len(after)) :] + after, key=lambda each: each[1].invoke)


def _text(one: Asked) -> str:
    value = one.value
    if one.f == "cas" and isinstance(value, list) and len(value) == 2:
        said = f"cas {_brief(value[0])}→{_brief(value[1])}"
    elif one.f == "read":
        said = f"read {'absent' if value is None else _brief(value)}"
    else:
        said = one.f if value is None else f"{one.f} {_brief(value)}"
    return said if one.type == "ok" else f"{said} ?"


def _title(one: Asked) -> str:
    ended = words.moment(one.complete) if one.complete is not None and one.type == "ok" else "never known"
    return f"process {one.process}: {_text(one)}, asked at {words.moment(one.invoke)}, answered {ended}"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
