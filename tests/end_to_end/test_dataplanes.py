"""The same scenario on either data plane: a triangle of routers, one of whose links flaps, on the real fabric."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.network, pytest.mark.timeout(300), pytest.mark.xdist_group("fabric")]

SCENARIO = """\
# Does a ring survive a link that comes and goes?
name = "ring"
duration = "5s"

[topology]
kind = "graph"
links = [["a", "b"], ["b", "c"], ["c", "a"]]
hosts = 2
dataplane = "{dataplane}"

[topology.link."a>b"]
distribution = "table"
samples = ["2ms", "3ms", "7ms"]
duplicate = "5%"

[system]
nodes = 3
election_timeout = ["300ms", "600ms"]

[workload]
clients = 3
rate = 60

[[fault]]
kind = "flap"
at = "1s"
for = "2500ms"
links = ["b-c"]
period = "800ms"
jitter = "50ms"
"""


@pytest.mark.parametrize("dataplane", ["ovs", "routed"])
def test_a_ring_is_run_on_either_data_plane_and_a_link_flaps(dataplane: str, tmp_path: Path) -> None:
    file = tmp_path / "ring.toml"
    file.write_text(SCENARIO.format(dataplane=dataplane))
    command = [str(Path(sys.executable).with_name("splitbrain")), "run", str(file), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout, done.stderr
    results = json.loads(done.stdout)
    wrong = [check for check in results["checks"] if check["valid"] is not True]
    assert not wrong, done.stdout
    (run,) = (tmp_path / "runs" / "ring").iterdir()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["backends"]["controller"] == {"ovs": "ryu", "routed": "none"}[dataplane]
    steps = {step["step"]: step for step in map(json.loads, (run / "faults.jsonl").read_text().splitlines())}
    assert steps["proved"]["effective"], steps["proved"]
    assert steps["healed"]["effective"], steps["healed"]
    assert steps["healed"]["carrier"] == {"b-c": True}
    assert steps["healed"]["flapped"]["b-c"]["down"] >= 2
