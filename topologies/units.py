"""Quantities as people write them (``"20ms"``, ``"1gbit"``, ``"10%"``), as numbers the code counts in.

Durations are integer nanoseconds, rates integer bits per second, shares floats from 0 to 1. Nothing here guesses:
a number without a unit is refused, since "20" is a delay of a different size to everybody who reads it.
"""

from __future__ import annotations

import re

NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
BITS_PER_SECOND = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ%]*)\s*", re.IGNORECASE)


class UnitError(ValueError):
    """A quantity that cannot be read: the message says what was expected."""


def _parse(text: object, units: dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UnitError(f"{text!r} is not {example}; its unit is one of {', '.join(units)}")
    return float(match[1]) * factor


def parse_duration(text: object) -> int:
    """Nanoseconds in a duration such as ``"150ms"`` or ``"1.5s"``. Raises `UnitError`."""
    return round(_parse(text, NANOSECONDS, 'a duration such as "20ms"'))


def parse_rate(text: object) -> int:
    """Bits per second in a rate such as ``"100mbit"``. Raises `UnitError`."""
    return round(_parse(text, BITS_PER_SECOND, 'a rate such as "100mbit"'))


def parse_share(text: object) -> float:
    """The fraction, 0 to 1, that a share such as ``"10%"`` or the number ``0.1`` stands for. Raises `UnitError`."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        share = float(text)
    else:
        share = _parse(text, {"%": 1}, 'a share such as "10%" or 0.1') / 100
    if not 0 <= share <= 1:
        raise UnitError(f"{text!r} is not a share: it lies outside 0 % to 100 %")
    return share


def format_duration(nanoseconds: int) -> str:
    """The shortest exact text for a duration: ``format_duration(1_500_000_000) == "1.5s"``."""
    for unit in ("h", "min", "s", "ms", "us"):
        factor = NANOSECONDS[unit]
        if abs(nanoseconds) >= factor and (nanoseconds * 1000) % factor == 0:
            return f"{nanoseconds / factor:.10g}{unit}"
    return f"{nanoseconds}ns"
