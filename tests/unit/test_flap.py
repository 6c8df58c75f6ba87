"""Links that flap: when they change, what a file may ask for, and that each change is proved, in virtual time."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.nemesis import flaps
from experiments.run import play
from experiments.scenario import Flap, ScenarioError, parse
from experiments.simulation.shrink import to_toml

MS = 1_000_000

TEXT = """\
seed = 3
duration = "6s"

[system]
nodes = 3

[workload]
clients = 2
rate = 50

[[fault]]
kind = "flap"
at = "1s"
for = "3s"
links = ["leaf1-spine*"]
period = "600ms"
duty = "25%"
jitter = "100ms"
"""


@given(st.integers(0, 2**32), st.integers(50 * MS, 5_000 * MS), st.floats(0.05, 0.95), st.floats(0, 0.99))
def test_a_link_goes_down_and_comes_back_once_a_period_and_never_out_of_turn(
    seed: int, period: int, duty: float, late: float
) -> None:
    jitter = int(late * min(duty, 1 - duty) * period)
    changes = list(islice(flaps(Random(seed), period, duty, jitter), 20))
    assert changes == list(islice(flaps(Random(seed), period, duty, jitter), 20))
    assert [up for _, up in changes] == [False, True] * 10
    assert all(before < after for (before, _), (after, _) in pairwise(changes))
    for number, (moment, up) in enumerate(changes):
        begins = number // 2 * period + (round(duty * period) if up else 0)
        assert begins <= moment <= begins + jitter


def test_a_file_says_how_links_flap_and_may_be_written_again() -> None:
    asked = parse(TEXT)
    assert asked.faults == (Flap(("leaf1-spine*",), 600 * MS, 0.25, 100 * MS, 1_000 * MS, 3_000 * MS),)
    assert parse(to_toml(asked, "again")).faults == asked.faults
    slow = parse(TEXT.replace("seed = 3", "time_scale = 2"))
    assert slow.faults == (Flap(("leaf1-spine*",), 1_200 * MS, 0.25, 200 * MS, 2_000 * MS, 6_000 * MS),)
    assert parse(to_toml(slow, "again")).faults == slow.faults


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('period = "600ms"\n', "", "scenario:11: fault[0].period: is missing"),
        (
            'leaf1-spine*"]\nperiod = "600ms"',
            'leaf1>spine1"]\nperiod = "300ms"',
            "a direction is silent, and passes, 100ms",
        ),
        ('"600ms"', '"10ms"', "scenario:16: fault[0].period: it is 50ms or more"),
        ('"600ms"', '"4s"', "scenario:16: fault[0].period: longer than the fault lasts"),
        ('"25%"', '"100%"', "scenario:17: fault[0].duty: a link that flaps is down for a share"),
        ('"100ms"', '"150ms"', "scenario:18: fault[0].jitter: so late a change comes after the next"),
        ("leaf1-spine*", "leaf9-spine*", "scenario:15: fault[0].links: no link 'leaf9-spine*'"),
    ],
)
def test_flapping_that_cannot_be_is_refused_with_its_place(old: str, new: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(TEXT.replace(old, new))
    assert says in str(caught.value)


def steps(text: str, folder: Path) -> dict[str, dict[str, Any]]:
    run = play(parse(text, "flapping"), folder, "test", lambda stage, detail: None, "simulated").path
    lines = (run / "faults.jsonl").read_text().splitlines()
    return {step["step"]: step for step in map(json.loads, lines)}


def test_every_change_is_seen_while_it_lasts_and_none_is_left_behind(tmp_path: Path) -> None:
    found = steps(TEXT, tmp_path)
    assert found["applied"]["resolved"]["links"] == ["leaf1-spine1", "leaf1-spine2"]
    assert found["proved"]["effective"]
    assert found["healed"]["effective"]
    assert found["healed"]["carrier"] == {"leaf1-spine1": True, "leaf1-spine2": True}
    assert all(4 <= seen["down"] <= 5 and seen["up"] >= 4 for seen in found["healed"]["flapped"].values())
    assert found == steps(TEXT, tmp_path)


def test_one_direction_of_a_link_flaps_by_silence_and_keeps_its_carrier(tmp_path: Path) -> None:
    text = TEXT.replace("leaf1-spine*", "leaf1>spine1").replace('jitter = "100ms"', "")
    assert parse(to_toml(parse(text), "again")).faults == parse(text).faults
    found = steps(text, tmp_path)
    assert found["applied"]["resolved"]["links"] == ["leaf1>spine1"]
    assert found["proved"]["effective"], found["proved"]
    assert found["healed"]["effective"], found["healed"]
    assert all(count >= 5 for count in found["healed"]["flapped"]["leaf1>spine1"].values())
    assert found["healed"]["carrier"] == {}
