"""The folder that a run leaves: its place, and writing into it so that what was recorded before a crash is there.

``docs/run-folder.md`` says what every file in it means.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

SCHEMA = 1


class FolderError(OSError):
    """The run's folder cannot be made or written; the message says which and what to do."""


class Folder:
    """A run's folder, unique to it. ``parent`` gets ``<scenario>/<time>-<seed>``."""

    def __init__(self, parent: Path, scenario: str, seed: int) -> None:
        stem = f"{time.strftime('%Y%m%dT%H%M%S')}-{seed}"
        try:
            (parent / scenario).mkdir(parents=True, exist_ok=True)
            for serial in range(1, 1000):
                self.path = (parent / scenario / (stem if serial == 1 else f"{stem}.{serial}")).resolve()
                try:
                    self.path.mkdir()
                    break
                except FileExistsError:
                    continue
            self._faults = os.open(
                self.path / "faults.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise FolderError(
                f"{parent}: cannot make a folder for the run there ({error.strerror}); choose another with --out DIR"
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Replace a file as a whole: readers see the old or the new, never half of it."""
        target = self.path / name
        draft = target.with_name(f".{name}.tmp")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        draft.replace(target)

    def fault(self, line: dict[str, Any]) -> None:
        """Append one step of a fault to ``faults.jsonl``; it is with the kernel when this returns."""
        os.write(self._faults, msgspec.json.encode(line) + b"\n")

    def directory(self, *parts: str) -> Path:
        path = self.path.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        os.close(self._faults)

    def discard_if_empty(self) -> None:
        """Remove the folder of a run that nothing was built for: there is nothing in it to look at."""
        if any(path.is_dir() for path in self.path.iterdir()):
            return
        shutil.rmtree(self.path)
        for parent in (self.path.parent, self.path.parent.parent):
            with suppress(OSError):  # of other runs too
                parent.rmdir()
