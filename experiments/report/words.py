"""Numbers and names as a reader wants them: rounded to what they can mean, always with a unit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

MILLISECOND = 1_000_000
SECOND = 1_000_000_000

#: Between a number and its unit: narrow, and no line ends there (Unicode U+202F).
THIN = "\u202f"

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def span(nanoseconds: float) -> str:
    """A length of time to three figures at most: ``1.84 ms``, ``334 ms``, ``6 s``."""
    if nanoseconds == 0:
        return f"0{THIN}s"
    for factor, unit in ((SECOND, "s"), (MILLISECOND, "ms"), (1_000, "µs")):
        value = nanoseconds / factor
        if abs(value) >= (0.9995 if unit != "µs" else 0):
            return f"{figures(value)}{THIN}{unit}"
    raise AssertionError("microseconds take everything")


def moment(nanoseconds: float) -> str:
    """A point in time to the millisecond: ``6.004 s``."""
    return f"{nanoseconds / SECOND:.3f}{THIN}s"


def figures(value: float) -> str:
    """To three significant figures, without an exponent or trailing zeros; whole numbers stay whole."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: float) -> str:
    """``0.972`` as ``97.2 %``. Never rounded up to 100 % or down to 0 % when it is not."""
    percent = 100 * value
    if 0 < percent < 0.01:
        return f"<{THIN}0.01{THIN}%"
    if 99.99 < percent < 100:
        return f">{THIN}99.99{THIN}%"
    decimals = 2 if percent > 99 or percent < 1 else 1
    text = f"{percent:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.')}{THIN}%"


def count(number: int) -> str:
    """Small counts in words: ``five``; others in figures: ``1,604``."""
    return _COUNTS[number] if 0 <= number < len(_COUNTS) else f"{number:,}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(names: Iterable[str], most: int = 12) -> str:
    """``n1, n2 and n3``."""
    some = list(names)
    if len(some) > most:
        return f"{', '.join(some[:most])} and {len(some) - most} more"
    return some[0] if len(some) == 1 else f"{', '.join(some[:-1])} and {some[-1]}" if some else "none"


def spelled(name: str) -> str:
    """A check's name as a person writes it: ``acknowledged writes``, ``election safety``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", " ", name).lower()


def unbroken(name: str) -> str:
    """A name in which no line ends: word joiners (Unicode U+2060) about its hyphens."""
    return name.replace("-", "\u2060-\u2060")


def rate(bits_per_second: float) -> str:
    """``100 Mbit/s``."""
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits_per_second >= factor:
            return f"{figures(bits_per_second / factor)}{THIN}{unit}"
    return f"{figures(bits_per_second)}{THIN}bit/s"


def impairment(value: dict[str, object]) -> str:
    """An `Impairment` as recorded, in a phrase: ``20 ms ± 5 ms, 10 % loss``."""
    parts: list[str] = []
    delay, jitter = _number(value.get("delay")), _number(value.get("jitter"))
    if delay or jitter:
        parts.append(span(delay) + (f" ±{THIN}{span(jitter)}" if jitter else ""))
    if lost := _number(value.get("loss")):
        burst = _number(value.get("burst"))
        parts.append(f"{share(lost)} loss" + (f" in bursts of {figures(burst)}" if burst else ""))
    parts += [
        f"{share(_number(value[name]))} {name}" for name in ("duplicate", "reorder", "corrupt") if value.get(name)
    ]
    if bits := _number(value.get("rate")):
        parts.append(rate(bits))
    return ", ".join(parts) or "no impairment"


def nice_step(extent: float, parts: int) -> float:
    """A round step (1, 2 or 5 times a power of ten) that divides ``extent`` into ``parts`` or fewer."""
    rough = extent / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def spread(positions: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Move labels apart: the given heights, kept in order, at least ``gap`` from each other, between the two ends."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = [0.0] * len(positions)
    at = top - gap
    for index in order:
        at = placed[index] = max(positions[index], at + gap)
    limit = bottom + gap
    for index in reversed(order):
        limit = placed[index] = min(placed[index], limit - gap)
    return placed


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
