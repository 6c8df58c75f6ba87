"""What `splitbrain calibrate` measures is what a scenario asks for, and its table shows both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments.calibrate import BATTERY, Calibration, show, wanted
from experiments.report.proof import calibrations
from experiments.scenario import ScenarioError
from topologies.impairment import Impairment
from topologies.measure import Arrival, summarise

SCENARIO = """
duration = "3s"
[topology]
leaves = 2
[topology.link."leaf1>spine1"]
delay = "5ms"
[system]
nodes = 3
[workload]
clients = 3
[[fault]]
kind = "impair"
at = "1s"
for = "1s"
links = ["leaf2-spine*"]
loss = "10%"
"""


def test_a_scenarios_plan_and_faults_say_what_is_measured_and_the_command_line_adds_to_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)
    _, asked = wanted(str(path), ["leaf1>spine2 rate=10mbit"])
    lossy = [(f"{a}>{b}", Impairment(loss=0.1)) for spine in (1, 2) for a, b in _both("leaf2", f"spine{spine}")]
    assert asked == [
        ("leaf1>spine1", Impairment(delay=5_000_000)),
        *lossy,
        ("leaf1>spine2", Impairment(rate=10_000_000)),
    ]


def _both(one: str, other: str) -> list[tuple[str, str]]:
    return [(one, other), (other, one)]


def test_where_nothing_is_named_a_battery_of_usual_impairments_is_measured() -> None:
    plan, asked = wanted(None, [])
    assert len(asked) == len(BATTERY)
    assert all(plan.ends(direction) for direction, _ in asked)


def test_a_fabric_that_impairs_nothing_is_refused_with_what_to_type() -> None:
    with pytest.raises(ScenarioError, match='calibrate leaf-spine,1,2,1 "leaf1>spine1 delay=20ms'):
        wanted("leaf-spine,1,2,1", [])


def shown(calibration: Calibration) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        show(console, {"impairment": "wire", "datapath": "netdev"}, [calibration])
    return " ".join(captured.get().replace("\u202f", " ").split())


def obtained(delay: int, **more: Any) -> dict[str, Any]:
    arrivals = [Arrival(number, 0, delay + number % 7 * 1000) for number in range(200)]
    return {**msgspec.to_builtins(summarise(200, 128, arrivals)), **more}


def test_the_table_shows_asked_obtained_and_interval_side_by_side() -> None:
    rate = {"offered": 13_000_000, "rate": 9_990_000, "interval": (9_900_000, 10_100_000)}
    asked = Impairment(delay=10_000_000, rate=10_000_000)
    text = shown(Calibration("leaf1>spine1", asked, obtained(10_100_000, rate=rate), []))
    assert "leaf1>spine1 delay 10.102 ms 10.103 ms 10.103 ms to 10.103 ms" in text
    assert "rate 10 Mbit/s 9.99 Mbit/s 9.9 Mbit/s to 10.1 Mbit/s" in text
    assert "all did what was asked; impaired by wire" in text


def test_what_did_not_do_what_was_asked_is_counted_and_said() -> None:
    text = shown(Calibration("leaf1>spine1", Impairment(delay=1), obtained(20_000_000), ["mean delay 20.00 ms"]))
    assert "✘" in text
    assert "mean delay 20.00 ms" in text
    assert "1 of 1 did not do what was asked" in text


def test_a_report_shows_what_a_fault_will_ask_of_a_link_beside_what_it_did_and_how_surely() -> None:
    found = obtained(10_100_000, asked=msgspec.to_builtins(Impairment(delay=10_000_000)), backend="wire")
    found |= {"delay_mean_interval": (10_050_000, 10_150_000), "rate": {"rate": 1, "interval": None}}
    (table,) = calibrations({"leaf1>spine1": found}, None)
    assert table.head[1:] == ["asked", "by 200 probes, 95 % interval"]
    shown = {row[0]: [cell.replace("\u202f", " ") for cell in row[1:]] for row in table.rows}
    assert shown["mean delay"] == ["10 ms", "10.1 ms ± 50 µs"]
    assert shown["lost"] == ["0 %", "0 % (0 to 1.8 %)"]


def test_a_report_of_a_run_without_intervals_is_written_as_before() -> None:
    found = {key: value for key, value in obtained(10_100_000).items() if not key.endswith("_interval")}
    (table,) = calibrations({"leaf1>spine1": found}, None)
    assert table.head[1:] == ["asked", "by 200 probes"]
    assert not any(mark in cell for mark in "(±" for row in table.rows for cell in row)
