"""A system in a tenant, as a person runs it: faults strike it over the tunnels, and are proved there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.scenarios import PARTITION, write

pytestmark = [pytest.mark.network, pytest.mark.timeout(300), pytest.mark.xdist_group("fabric")]

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))

TENANTS = "".join(
    f'[[tenant]]\nname = "{name}"\nvni = {vni}\nprefix = "192.168.0.0/24"\n'
    for name, vni in (("blue", 100), ("red", 200))
)
FAULTS = [
    PARTITION,
    '[[fault]]\nkind = "impair"\nat = "4s"\nfor = "2s"\nlinks = ["leaf1>spine1"]\ndelay = "20ms"\n',
    '[[fault]]\nkind = "link-down"\nat = "6500ms"\nfor = "1s"\nlinks = ["h1-leaf1"]\n',
]


def test_raft_in_a_tenant_elects_serves_and_bears_faults_within_it_and_under_it(tmp_path: Path) -> None:
    expect = '[expect]\nelection = "1s"\nrecovery = "2s"\n'
    scenario = write(tmp_path, "blue", *FAULTS, TENANTS, expect, duration="8s", system='tenant = "blue"')
    done = subprocess.run(
        [SPLITBRAIN, "run", scenario, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = Path(json.loads(done.stdout)["run"])
    steps = [json.loads(line) for line in (run / "faults.jsonl").read_text().splitlines()]
    seen = {(step["kind"], step["step"]): step for step in steps}

    (leader,), others = seen["partition", "applied"]["resolved"]["groups"]
    assert all(seen["partition", "proved"]["measured"][leader][other] == [3, 0] for other in others)
    assert all(step["effective"] for step in steps if step["step"] in ("proved", "healed"))
    assert seen["impair", "proved"]["obtained"]["leaf1>spine1"]["delay_mean"] > 19_000_000
    (dead,) = (
        node for node, host in json.loads((run / "manifest.json").read_text())["placement"].items() if host == "h1"
    )
    assert not any(arrived for _, arrived in seen["link-down", "proved"]["measured"][dead].values())

    config = json.loads((run / "nodes" / "n1" / "config-0.json").read_text())
    assert config["listen"] == "192.168.0.1:7000"
