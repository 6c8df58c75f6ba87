"""A campaign that was broken off goes on where it was."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments.folder import FolderError
from experiments.simulation import command
from experiments.simulation.ledger import Ledger
from experiments.simulation.seed import play_seed
from tests.unit.simulation.test_world import short

SCENARIO = short(seconds=1)


def told(out: Path, seeds: int) -> str:
    console = Console(file=io.StringIO(), width=200)
    assert command.simulate(console, SCENARIO, 5, seeds, False, False, None, out) == 0
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(said, str)
    return said


def test_what_was_played_is_not_played_again_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[int] = []
    real = command.play_seeds

    def noted(scenario: Any, seeds: Any, random_faults: bool) -> Any:
        played.extend(seeds)
        return real(scenario, seeds, random_faults)

    monkeypatch.setattr(command, "play_seeds", noted)
    assert "2 seeds" in told(tmp_path, 2)
    file = tmp_path / "outcomes.jsonl"
    file.write_bytes(file.read_bytes()[:-30])  # killed while it wrote
    assert "4 seeds" in told(tmp_path, 4)
    assert played == [5, 6, 6, 7, 8]
    assert "3 seeds" in told(tmp_path, 3)
    assert played == [5, 6, 6, 7, 8]
    with Ledger(tmp_path, SCENARIO, False) as ledger:
        assert ledger.outcomes[7] == play_seed(SCENARIO.with_seed(7))


def test_a_folder_of_another_campaign_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path, SCENARIO, False), pytest.raises(FolderError, match="another campaign is writing"):
        Ledger(tmp_path, SCENARIO, False)
    with pytest.raises(FolderError, match="begun with the scenario's own faults"):
        Ledger(tmp_path, SCENARIO, True)
    with pytest.raises(FolderError, match="begun with another scenario"):
        Ledger(tmp_path, short(seconds=2), False)
    (tmp_path / "outcomes.jsonl").write_bytes(b"{}\n")
    with pytest.raises(FolderError, match="not the outcomes of a campaign"):
        Ledger(tmp_path, SCENARIO, False)


def test_a_campaigns_seed_is_not_what_makes_it_another(tmp_path: Path) -> None:
    with Ledger(tmp_path, SCENARIO, False) as ledger:
        ledger.add(play_seed(SCENARIO.with_seed(1)))
    with Ledger(tmp_path, msgspec.structs.replace(SCENARIO, seed=99), False) as ledger:
        assert list(ledger.outcomes) == [1]
