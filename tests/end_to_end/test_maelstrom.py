"""Programs that only speak Maelstrom's protocol, as nodes on the real fabric while it breaks."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_run import folder_of, splitbrain
from tests.unit.maelstrom.network import LIN_KV, NODES

pytestmark = [pytest.mark.network, pytest.mark.timeout(300), pytest.mark.xdist_group("fabric")]

SCENARIO = """\
# A short run for a test.
name = "{name}"
duration = "4s"

[topology]
hosts_per_leaf = 2

[system]
kind = "maelstrom"
command = {command}
workload = "{workload}"
nodes = 3

[workload]
clients = 3
rate = 60
timeout = "500ms"

[[fault]]
kind = "partition"
at = "1s"
for = "1500ms"
groups = [["n1", "n2"], ["n3"]]
{faults}
"""

KILL = '[[fault]]\nkind = "kill"\nat = "3s"\nfor = "500ms"\nnodes = ["n2"]\n'


def play(folder: Path, name: str, command: list[str], workload: str, faults: str = "") -> tuple[dict[str, Any], Path]:
    """The results and the folder of a run. On a busy machine it may not be believed; what it saw holds all the same."""
    file = folder / f"{name}.toml"
    file.write_text(SCENARIO.format(name=name, command=json.dumps(command), workload=workload, faults=faults))
    done = splitbrain("run", file, "--json", cwd=folder)
    assert done.returncode in (0, 2), done.stdout + done.stderr
    results = json.loads(done.stdout)
    assert all(check["valid"] is not False for check in results["checks"])
    return results, folder_of(folder, name)


def test_a_python_program_keeps_a_register_linearizable_through_a_partition_and_a_crash(tmp_path: Path) -> None:
    results, run = play(tmp_path, "python", LIN_KV, "lin-kv", KILL)
    assert next(check["valid"] for check in results["checks"] if check["name"] == "linearizable") is True
    assert results["availability"]["ok"] > 60
    assert results["availability"]["failed"] + results["availability"]["unknown"] > 0  # at n3, which could not ask n1
    assert '"ev":"ready"' in (run / "nodes/n2/trace/1.ndjson").read_text()  # started again, and initialised


def test_a_compiled_program_echoes_on_both_sides_of_a_cut(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "the wire needs a C compiler too"
    program = tmp_path / "echo"
    subprocess.run([compiler, "-O1", "-o", str(program), str(NODES / "echo.c")], check=True)
    results, _ = play(tmp_path, "compiled", [str(program)], "echo")
    assert [(check["name"], check["valid"]) for check in results["checks"]] == [("echoes", True)]
    assert results["availability"]["ok"] > 100


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('command = "no-such-program --x"', "there is no program 'no-such-program'"),
        ("command = []", "is not a list of names"),
        ("", "system.command: is missing"),
        ('command = ["cat"]\nworkload = "txn-list-append"', "is not one of lin-kv, echo"),
        ('command = ["cat"]\ninit_timout = "1s"', 'did you mean "init_timeout"?'),
    ],
)
def test_a_scenario_that_cannot_start_its_binary_is_refused_before_anything_is_built(
    line: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(f'duration = "2s"\n[system]\nkind = "maelstrom"\n{line}\n')
    done = splitbrain("run", file, cwd=tmp_path)
    assert done.returncode == 65
    assert told in " ".join(done.stderr.split())
    assert not (tmp_path / "runs").exists()
