"""What the detectors' configurations have in common."""

from __future__ import annotations

from typing import Any

import msgspec


class DetectorConfigError(ValueError):
    """A configuration that cannot work; the message names the setting and what it must be."""


def above_zero(config: msgspec.Struct, *names: str) -> None:
    """Raises `DetectorConfigError` for the first of the settings ``names`` that is not above 0."""
    for name in names:
        value: Any = getattr(config, name)
        if not value > 0:
            raise DetectorConfigError(f"{name} is {value}; it must be above 0")
