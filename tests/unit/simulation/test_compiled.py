"""The simulator as machine code is the simulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.simulation import compiled

ROOT = Path(__file__).parents[3]

REPLAY = """
from experiments.plans import SCENARIOS
from experiments.scenario import load
from experiments.simulation import kernel
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import play_seed, play_traced
for seed in range(3):
    scenario = with_random_faults(load(SCENARIOS / "raft-leader-isolated.toml").with_seed(seed))
    print(play_traced(scenario, 5_000_000_000)[0].digest(), play_seed(scenario))
print(kernel.__file__.endswith(".py"))
"""


@pytest.mark.skipif(not compiled.folder().is_dir(), reason="the simulator is not compiled: .ci/setup does it")
def test_machine_code_and_source_leave_the_same_bytes_and_the_same_verdicts() -> None:
    printed: dict[str, list[str]] = {}
    for pure in ("", "1"):
        environment = {**os.environ, "SPLITBRAIN_PURE": pure}
        done = subprocess.run(
            [sys.executable, "-c", REPLAY], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        printed[pure] = done.stdout.splitlines()
    assert [printed[pure].pop() for pure in ("", "1")] == ["False", "True"]
    assert printed[""] == printed["1"]


def test_a_source_that_has_changed_is_not_taken_for_the_one_that_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compiled.folder()
    for name in compiled.sources():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(compiled.ROOT / name, tmp_path / name)
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    assert compiled.folder() == before
    for name in compiled.sources():
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"#\n")
        changed, before = before, compiled.folder()
        assert before != changed
