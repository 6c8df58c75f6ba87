"""Reading TOML tables so that every problem is told at once, with its key; and the values scenarios are made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from topologies.units import UnitError, parse_duration, parse_share

T = TypeVar("T")


class Table:
    """A TOML table being read: hands out each key once, notes what is wrong, and at the end what nobody asked for."""

    def __init__(
        self, values: Mapping[str, Any], path: str, problems: list[tuple[str, str]], folder: Path = Path()
    ) -> None:
        """``folder`` is where files are looked for that the table names."""
        self.folder = folder
        self.values = dict(values)
        self.path = path
        self.problems = problems
        self.asked: list[str] = []

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, what: str) -> None:
        self.problems.append((self.key(name), what))

    def take(self, name: str, parse: Callable[[Any], T], default: T, required: bool = False) -> T:
        self.asked.append(name)
        if name not in self.values:
            if required:
                self.problems.append((self.key(name), "is missing"))
            return default
        try:
            return parse(self.values.pop(name))
        except UnitError as error:
            self.wrong(name, str(error))
            return default

    def table(self, name: str) -> Table:
        self.asked.append(name)
        value = self.values.pop(name, {})
        if not isinstance(value, Mapping):
            self.wrong(name, f"{value!r} is not a table; write it under [{self.key(name)}]")
            value = {}
        return Table(value, self.key(name), self.problems, self.folder)

    def tables(self, name: str) -> list[Table]:
        self.asked.append(name)
        value = self.values.pop(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            self.wrong(name, f"must be a list of tables, each under [[{self.key(name)}]]")
            return []
        return [
            Table(entry, f"{self.key(name)}[{number}]", self.problems, self.folder)
            for number, entry in enumerate(value)
        ]

    def finish(self) -> None:
        for name in self.values:
            close = difflib.get_close_matches(name, self.asked, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(self.asked)}"
            self.wrong(name, f"unknown key; {hint}")


# ---------------------------------------------------------------------------------------------------------------------
# Values


def positive_duration(value: object) -> int:
    span = parse_duration(value)
    if span <= 0:
        raise UnitError(f"{value!r} is no time at all; it must be longer than zero")
    return span


def text(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise UnitError(f"{value!r} is not a name of letters, digits, '-', '_' and '.'")
    return value


def function(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise UnitError(f'{value!r} is not the name of a function, for example "my_raft.node:kind"')
    return value


def texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UnitError(f'{value!r} is not a list of names, for example ["n1", "n2"]')


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnitError(f"{value!r} is neither true nor false")
    return value


def whole(least: int, most: int | None = None) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least or (most and value > most):
            wanted = f"{least} or more" if most is None else f"from {least} to {most}"
            raise UnitError(f"{value!r} is not a whole number, {wanted}")
        return value

    return check


def number(least: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < float("inf"):
            raise UnitError(f"{value!r} is not a number, {least:g} or more")
        return float(value)

    return check


def choice(*choices: str) -> Callable[[object], Any]:
    def check(value: object) -> str:
        if value not in choices:
            raise UnitError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return check


def span(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise UnitError(f'{value!r} is not two durations, for example ["150ms", "300ms"]')
    low, high = (positive_duration(end) for end in value)
    if low > high:
        raise UnitError(f"{value!r}: the first must not be longer than the second")
    return low, high


def mix(*kinds: str) -> Callable[[object], dict[str, float]]:
    def check(value: object) -> dict[str, float]:
        if not isinstance(value, dict) or not value or set(value) - set(kinds):
            raise UnitError(
                f"{value!r} does not give shares of {', '.join(kinds)}, for example {{ read = 0.5, write = 0.5 }}"
            )
        shares = {kind: parse_share(share) for kind, share in value.items()}
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise UnitError(f"the shares add up to {sum(shares.values()):g}; they must add up to 1")
        return shares

    return check


# ---------------------------------------------------------------------------------------------------------------------
# The same in Python, where a duration may be written as text


def coerce(struct: msgspec.Struct, **fields: object) -> None:
    """Set ``fields`` of a frozen ``struct`` that is being made."""
    for name, value in fields.items():
        msgspec.structs.force_setattr(struct, name, value)


def duration(value: object) -> int:
    """Nanoseconds, from themselves or from text such as ``"20ms"``. Raises `UnitError`."""
    return value if isinstance(value, int) and not isinstance(value, bool) else parse_duration(value)


# ---------------------------------------------------------------------------------------------------------------------
# Places in the text


def opening_comment(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return " ".join(lines)


def line_of(text: str, key: str) -> int | None:
    """Where a key such as ``fault[1].for`` stands, as a line number, or what it is in; None if nothing is there."""
    table, _, name = key.rpartition(".")
    current, nearest = "", None
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$", line)
        if header:
            current = header[2]
            if header[1] == "[[":
                counts[current] = counts.get(current, -1) + 1
                current = f"{current}[{counts[current]}]"
            if current in (table, key) or (header[2] == key and nearest is None):
                nearest = number
        elif current == table and re.match(rf'\s*"?{re.escape(name)}"?\s*[=.]', line):
            return number
    return line_of(text, table) if nearest is None and table else nearest
