"""The doctor looks at this very machine."""

from __future__ import annotations

import json
import time

import pytest

from experiments.doctor import doctor

pytestmark = pytest.mark.network


def test_the_doctor_says_what_this_machine_will_use_and_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    status = doctor(as_json=True)
    took = time.monotonic() - begun
    said = json.loads(capsys.readouterr().out)
    assert status == (0 if said["healthy"] else 69)
    assert {choice["feature"] for choice in said["choices"]} >= {"sandbox", "datapath", "impairment"}
    assert said["machine"]["tools"]["ip"]["version"]
    assert took < 5  # 1 s and less where nobody else computes


def test_what_it_prints_into_a_pipe_is_plain_and_one_line_a_thing(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(as_json=False)
    page = capsys.readouterr().out
    assert "\x1b" not in page
    assert any(line.split()[:1] == ["datapath"] for line in page.splitlines())
