"""Faults of processes on the fabric: they take hold, are proved, and end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.run import Run, play
from experiments.scenario import load
from tests.end_to_end.scenarios import write

pytestmark = [pytest.mark.network, pytest.mark.timeout(120), pytest.mark.xdist_group("fabric")]

FAULTS = (
    '[[fault]]\nkind = "pause"\nat = "1s"\nfor = "1500ms"\nnodes = ["leader"]\n',
    '[[fault]]\nkind = "mute"\nat = "4s"\nfor = "1500ms"\nnodes = ["leader"]\n',
)

TWICE = (
    '[[fault]]\nkind = "kill"\nat = "1s"\nfor = "1500ms"\nnodes = ["n1", "n2"]\n',
    '[[fault]]\nkind = "kill"\nat = "1500ms"\nfor = "5ms"\nnodes = ["n1", "n3"]\n',
)


def played(folder: Path, faults: Sequence[str], duration: str) -> tuple[Run, list[dict[str, Any]]]:
    """A run on the fabric, and the steps of its faults."""
    run = play(load(write(folder, "faults", *faults, duration=duration)), folder, "test", lambda stage, detail: None)
    return run, [msgspec.json.decode(line) for line in (run.path / "faults.jsonl").read_bytes().splitlines()]


def test_a_stopped_leader_and_one_that_nobody_hears_are_proved_and_replaced(tmp_path: Path) -> None:
    run, steps = played(tmp_path, FAULTS, "7s")
    assert [step["effective"] for step in steps if step["step"] in ("proved", "healed")] == [True] * 4, steps
    applied = [step["resolved"] for step in steps if step["step"] == "applied"]
    assert all(one["nodes"] == [one["leader"]] for one in applied)
    paused = next(step["paused"] for step in steps if step["step"] == "proved")
    assert paused == {applied[0]["leader"]: True}
    assert run.results.availability is not None
    assert None not in run.results.availability.new_leader.values()
    assert applied[1]["leader"] != applied[0]["leader"]
    assert not [check for check in run.results.checks if check.valid is False]


MOVED = (
    '[[fault]]\nkind = "transfer"\nat = "1s"\nfor = "1500ms"\nnodes = ["n2"]\n',
    '[[fault]]\nkind = "transfer"\nat = "3s"\nfor = "1500ms"\nnodes = ["n3"]\n',
    # Nobody leads whom most others do not hear.
    '[[fault]]\nkind = "partition"\nat = "5s"\nfor = "2s"\ngroups = [["n1"], ["others"]]\n',
    '[[fault]]\nkind = "transfer"\nat = "5500ms"\nfor = "1s"\nnodes = ["n1"]\n',
)


def test_who_is_asked_to_lead_does_and_one_that_cannot_is_found_out(tmp_path: Path) -> None:
    run, steps = played(tmp_path, MOVED, "8s")
    proved = {step["fault"]: step for step in steps if step["step"] == "proved"}
    assert [proved[number]["effective"] for number in range(4)] == [True, True, True, False], steps
    assert proved[3]["mismatches"] == ["n3 leads, and not n1"]
    assert run.results.valid == "unknown"
    assert not [check for check in run.results.checks if check.valid is False]


def test_a_node_that_two_faults_killed_is_started_again_once_when_the_last_of_them_ends(tmp_path: Path) -> None:
    run, steps = played(tmp_path, TWICE, "4s")
    assert [step["effective"] for step in steps if step["step"] in ("proved", "healed")] == [True] * 4, steps
    restarted = [step["restarted"] for step in steps if step["step"] == "healed"]
    assert [sorted(node for node, one in nodes.items() if "pid" in one) for nodes in restarted] == [
        ["n3"],
        ["n1", "n2"],
    ]
    assert not [check for check in run.results.checks if check.valid is False]
