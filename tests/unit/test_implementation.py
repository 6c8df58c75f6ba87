"""A system's own implementation is found where a person would put it, and what is wrong with it is told in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.scenarios import write

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))
OURS = "from apps.runtime.kinds import raft\n\ndef ours(config):\n    return raft(config)\n"


def splitbrain(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [SPLITBRAIN, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("beside", ["the scenario", "the command"])
def test_a_module_is_found_beside_the_scenario_and_where_the_command_is_run(beside: str, tmp_path: Path) -> None:
    there, here, elsewhere = tmp_path / "there", tmp_path, tmp_path / "elsewhere"
    there.mkdir()
    elsewhere.mkdir()
    home = there if beside == "the scenario" else here
    (home / "mine").mkdir()
    (home / "mine" / "my_raft.py").write_text(OURS)
    scenario = write(there, "own", system='implementation = "mine.my_raft:ours"', duration="1s")
    done = splitbrain("run", scenario, "--world", "simulated", "--json", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    # More seeds than one worker gets: the others look where the command does.
    assert splitbrain("simulate", scenario, "--seeds", 9, cwd=here).returncode == 0
    run = Path(json.loads(done.stdout)["run"])
    assert json.loads((run / "manifest.json").read_text())["implementation_from"] == str(home)
    again = splitbrain("rerun", run, "--json", cwd=elsewhere)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("function", "module", "said"),
    [
        ("absent:ours", OURS, "there is no module 'absent'"),
        ("my_raft:absent", OURS, "has no function 'absent'"),
        ("my_raft:ours", "import absent\n", "there is no module 'absent'|ModuleNotFoundError"),
        ("my_raft:ours", "def ours(config:\n", "SyntaxError"),
        ("my_raft:ours", "def ours(config): raise RuntimeError('boom')\n", "RuntimeError: boom, in ours"),
        ("my_raft:ours", "def ours(config): return 7\n", "it returned 7"),
        ("my_raft:ours", "import sys\nsys.exit(3)\n", "SystemExit"),
    ],
)
@pytest.mark.parametrize("command", [("run", "--world", "simulated"), ("simulate",)])
def test_one_that_cannot_be_had_is_told_with_file_key_and_name_before_anything_is_built(
    command: tuple[str, ...], function: str, module: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "my_raft.py").write_text(module)
    scenario = write(tmp_path, "own", system=f'implementation = "{function}"')
    done = splitbrain(*command, scenario, cwd=tmp_path)
    assert done.returncode == 65
    assert done.stderr.startswith("splitbrain: ")
    assert "own.toml:14: system.implementation: " in done.stderr
    assert any(one in done.stderr for one in said.split("|")), done.stderr
    assert function.partition(":")[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
