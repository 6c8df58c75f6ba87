"""The outcomes of a campaign in a folder, a line each as they come: what is there need not be played again."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from experiments.folder import FolderError
from experiments.scenario import Scenario
from experiments.simulation.seed import Outcome

_ROOT = Path(__file__).parents[2]


class Opening(msgspec.Struct, frozen=True):
    """The first line: of what the outcomes are. Those of another scenario, or of other code, do not go with them."""

    schema: int
    scenario: str
    random_faults: bool
    code: str


def opening(scenario: Scenario, random_faults: bool) -> Opening:
    asked = msgspec.structs.replace(scenario, seed=0)
    digest = hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()[:16]
    code = hashlib.sha256()
    for room in ("apps", "controllers", "experiments", "topologies"):
        for path in sorted((_ROOT / room).rglob("*.py")):
            code.update(path.read_bytes())
    return Opening(1, f"{scenario.name} {digest}", random_faults, code.hexdigest()[:16])


class Ledger:
    """``outcomes`` are those that are there, by their seeds. A last line that was cut off is written anew.

    Raises `FolderError` for a folder that holds another campaign, or one that somebody else is writing to.
    """

    def __init__(self, folder: Path, scenario: Scenario, random_faults: bool) -> None:
        self.outcomes: dict[int, Outcome] = {}
        path = folder / "outcomes.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+")
        except OSError as error:
            raise FolderError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            self._read(path, opening(scenario, random_faults))
        except BaseException:
            self._file.close()
            raise

    def _read(self, path: Path, mine: Opening) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{path}: another campaign is writing to it; let it end, or take another --out") from None
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        self._file.truncate(whole)
        lines = data[:whole].splitlines()
        if not lines:
            self._write(mine)
            return
        try:
            theirs = msgspec.json.decode(lines[0], type=Opening)
            if theirs == mine:
                found = msgspec.json.Decoder(Outcome).decode
                self.outcomes = {outcome.seed: outcome for outcome in map(found, lines[1:])}
                return
        except msgspec.DecodeError as error:
            raise FolderError(f"{path}: not the outcomes of a campaign: {error}") from None
        what = "another scenario" if theirs.scenario != mine.scenario else "other code"
        if theirs.random_faults != mine.random_faults:
            what = "random faults" if theirs.random_faults else "the scenario's own faults"
        raise FolderError(f"{path}: it was begun with {what}; take another --out, or begin again without this file")

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.seed] = outcome
        self._write(outcome)

    def missing(self, seeds: Sequence[int]) -> list[int]:
        return [seed for seed in seeds if seed not in self.outcomes]

    def _write(self, line: msgspec.Struct) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
