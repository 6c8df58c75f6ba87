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
#: How many of them come after the one that no order explains.
AFTERWARDS = 5

ROW, BAR, STEP, CHARACTER, LEFT = 34, 24, 15.0, 6.7, 64.0

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
    longest = max((path for path in _paths(details)), key=len, default=[])
    place = {number: at for at, number in enumerate(longest, 1)}
    unplaced = [(number, one) for number, one in numbered if number not in place and one.complete is not None]
    blamed = min(unplaced, key=lambda each: each[1].complete or 0)[0] if longest and unplaced else None
    chosen = _around(numbered, blamed)

    ends = [(one.invoke, 0, number) for number, one in chosen]
    ends += [(one.complete, 1, number) for number, one in chosen if one.complete is not None and one.type == "ok"]
    texts = {number: _text(one) for number, one in chosen}
    starts: dict[int, float] = {}
    stops: dict[int, float] = {}
    x = LEFT
    for _, is_end, number in sorted(ends):
        if is_end:
            x = stops[number] = max(x + STEP, starts[number] + len(texts[number]) * CHARACTER + 14)
        else:
            x = starts[number] = x + STEP
    width = x + 60
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
    worst = asked[blamed] if blamed is not None else None
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
        f"No order goes past here: nothing before or beside it explains {_text(worst)}." if worst else "",
        shown,
    )


def comparison(details: Mapping[str, Any]) -> Comparison | None:
    """The events that contradict a property, side by side."""
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
    for key in keys:
        values = [_brief(one.get(key)) for one in shown]
        rows.append((key, values, len({repr(one.get(key)) for one in shown}) > 1))
    return Comparison(str(details.get("property", "")), heads, rows, len(events) - len(shown))


def _paths(details: Mapping[str, Any]) -> list[list[int]]:
    paths = details.get("final_paths") or []
    return [[number for number in path if isinstance(number, int)] for path in paths if isinstance(path, list)]


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
    before.sort(key=lambda each: limit + 1 if each[1].type != "ok" else each[1].complete or 0)
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
