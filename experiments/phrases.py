"""Times and numbers as a sentence has them."""

from __future__ import annotations


def seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.1f} s"


def span(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.2f} s"


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
