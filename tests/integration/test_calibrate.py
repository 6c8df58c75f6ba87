"""Calibration on real links: what was asked lies where the machine lets it be, and is said with its confidence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))


@pytest.mark.network
def test_delay_and_rate_are_measured_with_intervals_and_told_as_json() -> None:
    asked = ["leaf1>spine1 delay=10ms loss=10%", "spine1>leaf2 rate=10mbit delay=60ms"]
    done = subprocess.run(
        [SPLITBRAIN, "calibrate", "leaf-spine,1,2,1", *asked, "--for", "1s", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr  # 2: this machine is too busy, which is what it is for
    found = json.loads(done.stdout)
    held, limited = found["calibrations"]
    assert (held["direction"], held["asked"]["delay"]) == ("leaf1>spine1", 10_000_000)
    low, high = held["obtained"]["delay_mean_interval"]
    assert 9_800_000 < low <= held["obtained"]["delay_mean"] <= high < 60_000_000
    low, high = held["obtained"]["loss_interval"]
    assert 0 < low < held["obtained"]["loss"] < high < 0.4
    rate = limited["obtained"]["rate"]
    assert rate["offered"] > 10_000_000
    assert 8_000_000 < rate["rate"] < 12_000_000
    assert rate["interval"][0] < rate["rate"] < rate["interval"][1]
    assert found["backends"]["impairment"] in ("wire", "netem")
