"""What a person sees while a run plays."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from experiments.narrator import Narrator
from experiments.run import play
from experiments.scenario import Partition
from tests.unit.simulation.test_world import SECOND, short


def test_a_simulated_run_is_told_in_the_scenarios_own_time(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    scenario = short(Partition((("leader",), ("others",)), SECOND, 2 * SECOND), seconds=4)
    with Narrator(console, "a run", scenario.duration, virtual=True) as narrator:
        play(scenario, tmp_path, "test", narrator, "simulated")
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    lines = [line.split() for line in said.splitlines()]
    assert ["1.0", "s", "fault"] in [line[:3] for line in lines]
    assert ["3.0", "s", "heal"] in [line[:3] for line in lines]
