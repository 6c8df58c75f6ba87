"""Quorum stores and failure detectors on the fabric: short runs, judged from what they leave, and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.checking.check import judge
from experiments.run import play
from experiments.scenario import parse

pytestmark = [pytest.mark.network, pytest.mark.timeout(180), pytest.mark.xdist_group("fabric")]

STORE = """\
duration = "5s"
seed = 2
[system]
kind = "quorum"
r = 1
w = 1
quorum = "partial"
[workload]
clients = 5
rate = 80
keys = 3
[[fault]]
kind = "partition"
at = "1s"
for = "2500ms"
groups = [["n1", "n2"], ["others"]]
"""

GROUP = """\
duration = "6s"
seed = 2
[system]
kind = "heartbeat"
nodes = 4
timeout = "1s"
[[fault]]
kind = "kill"
at = "1s"
for = "3s"
nodes = ["n2"]
[expect]
detection = "2500ms"
"""


def test_a_partial_store_goes_on_through_a_partition_and_its_stale_reads_are_counted(tmp_path: Path) -> None:
    run = play(parse(STORE, "store"), tmp_path, "test", lambda stage, detail: None)
    results = judge(run.path)
    checks = {check.name: check for check in results.checks}
    assert {"stale_reads", "acknowledged_writes", "NothingGoesBack", "QuorumsAreMet", "NothingLost"} <= set(checks)
    assert not [check for check in results.checks if check.valid is False]
    assert results.staleness
    assert results.staleness.stale > 0
    assert results.leaders == []
    page = run.report.read_text()
    assert "which of them ran" in page
    assert "stale reads" in page


def test_members_find_a_killed_one_and_the_report_shows_what_they_took_it_for(tmp_path: Path) -> None:
    run = play(parse(GROUP, "group"), tmp_path, "test", lambda stage, detail: None)
    results = judge(run.path)
    assert not [check for check in results.checks if check.valid is False]
    assert results.availability is None
    assert results.detection
    (found,) = results.detection.detected
    assert found.member == "n2"
    assert found.last
    assert results.detection.messages_per_second > 0
    assert results.detection.bytes_per_second
    assert "what the others took each for" in run.report.read_text()
