"""A whole experiment on the kernel's datapath and netem: `splitbrain run`, from the fabric to the report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.conftest import LANE

pytestmark = [pytest.mark.network, pytest.mark.timeout(660)]

SCENARIO = Path(__file__).with_name("raft.toml")


def test_raft_keeps_its_promises_on_the_kernels_datapath_and_netem(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("splitbrain")
    asked = [command, "run", SCENARIO, "--require", "kernel", "--json"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=640)
    assert done.returncode in (0, 2), done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(done.stdout)
    run = Path(results["run"])
    if lane := os.environ.get(LANE):  # what is to be compared with a run outside
        shutil.copytree(run, Path(lane) / "run", ignore=shutil.ignore_patterns("data"))

    # Promises are kept on any machine. Whether this one kept up is its own affair: the lane may be busy.
    assert [check for check in results["checks"] if check["valid"] is not True] == []
    assert (run / "report.html").exists()

    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["backends"]["datapath"] == "system"
    assert manifest["backends"]["impairment"] == "netem"
    if not results["believable"]["valid"]:
        pytest.skip(
            f"no promise was broken, on a machine too busy to believe: {'; '.join(results['believable']['reasons'])}"
        )
    steps = [json.loads(line) for line in (run / "faults.jsonl").read_text().splitlines()]
    assert {(step["fault"], step["step"]) for step in steps} >= {
        (fault, step) for fault in (0, 1) for step in ("applied", "proved", "healed")
    }
