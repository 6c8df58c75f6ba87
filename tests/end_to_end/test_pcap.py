"""``splitbrain run --pcap`` on the real fabric: what a link delivered, in the directions that were asked for only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.scenarios import write

pytestmark = [pytest.mark.network, pytest.mark.timeout(300), pytest.mark.xdist_group("fabric")]

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))

CUT = '[[fault]]\nkind = "link-down"\nat = "1s"\nfor = "1s"\nlinks = ["leaf1-spine1"]\n'


def test_a_run_leaves_the_packets_of_the_links_that_were_asked_for_with_its_faults(tmp_path: Path) -> None:
    scenario = write(tmp_path, "cut", CUT, duration="3s", system='placement = ["h1", "h2", "h5", "h6", "h9"]')
    command = [SPLITBRAIN, "run", str(scenario), "--pcap", "leaf1>h1", "--pcap", "leaf1-spine1", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode in (0, 2), done.stderr  # 2: this machine is too busy to believe it
    captures = Path(json.loads(done.stdout)["run"]) / "pcap"
    assert sorted(path.name for path in captures.iterdir()) == [
        "leaf1-to-h1.pcapng",
        "leaf1-to-spine1.pcapng",
        "spine1-to-leaf1.pcapng",
    ]
    seen = _packets(captures / "leaf1-to-h1.pcapng")
    assert len(seen) > 100
    assert all("> 10.0.1.1" in line for line in seen if " IP " in line)  # only what h1 was sent
    comments = (captures / "leaf1-to-h1.pcapng").read_bytes()
    assert comments.count(b"fault 1 (link-down) applied at ") == 2  # of the section, and of the packet after it
    assert comments.count(b"fault 1 (link-down) lifted at ") == 2


def _packets(capture: Path) -> list[str]:
    read = subprocess.run(["tcpdump", "-n", "-r", str(capture)], capture_output=True, text=True, check=True)
    return read.stdout.splitlines()


def test_a_link_that_is_not_there_is_named_before_anything_is_built(tmp_path: Path) -> None:
    scenario = write(tmp_path, "cut", CUT)
    for arguments, status, said in (
        (["--pcap", "leaf1-spine9"], 65, "no link 'leaf1-spine9'"),
        (["--pcap", "leaf1-spine1", "--world", "simulated"], 64, "no packets to capture"),
    ):
        done = subprocess.run(
            [SPLITBRAIN, "run", str(scenario), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == status
        assert said in done.stderr
        assert not (tmp_path / "runs").exists()
