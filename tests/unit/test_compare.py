"""Two runs side by side: the verdict, where they differ, and what is said to explain it."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments.compare import Comparison, Difference, compare, page, show
from experiments.report import ReportError
from tests.synthetic_runs import write_run

MS = 1_000_000


def changed(run: Path, name: str, **keys: Any) -> None:
    """Replace some of what a file of the run says; a dictionary's keys are merged into what is there."""
    path = run / name
    document = msgspec.json.decode(path.read_bytes())
    for key, value in keys.items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    path.write_bytes(msgspec.json.encode(document))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "a", "held"), write_run(tmp_path / "b", "held")


def of(found: Comparison, what: str) -> Difference:
    return next(difference for difference in found.differences if difference.what == what)


def test_a_run_does_not_differ_from_itself(pair: tuple[Path, Path]) -> None:
    found = compare(pair[0], pair[0])
    assert found.differences == []
    assert found.same_experiment
    assert found.same_verdict
    assert found.exit_status == 0


def test_stand_ins_and_the_kernels_own_can_come_to_one_verdict(pair: tuple[Path, Path]) -> None:
    a, b = pair
    changed(b, "manifest.json", backends={"datapath": "system", "impairment": "netem"}, machine={"virtual": "qemu"})
    found = compare(a, b)
    assert found.same_verdict
    assert found.same_experiment
    assert "on netdev and system, wire and netem, kvm and qemu: the same verdict" in found.summary
    assert of(found, "backends.impairment").why


def test_a_longer_outage_is_put_down_to_late_event_loops_where_they_were(pair: tuple[Path, Path]) -> None:
    a, b = pair
    changed(b, "results.json", availability={"longest_outage": 900 * MS}, fidelity={"loop_lag_p99": 400 * MS})
    assert of(compare(a, b), "longest outage").why.startswith("B's event loops ran 400\u202fms late")


def test_a_longer_outage_within_what_election_timeouts_differ_is_chance(pair: tuple[Path, Path]) -> None:
    a, b = pair
    changed(b, "results.json", availability={"longest_outage": 200 * MS})
    assert of(compare(a, b), "longest outage").why.startswith("chance")


def test_times_at_another_time_scale_are_not_explained_by_anything_else(pair: tuple[Path, Path]) -> None:
    a, b = pair
    changed(b, "manifest.json", time_scale=5.0)
    changed(b, "results.json", availability={"longest_outage": 1700 * MS}, fidelity={"loop_lag_p99": 900 * MS})
    found = compare(a, b)
    assert not found.same_experiment
    assert of(found, "longest outage").why == "they were not asked the same: time_scale"
    assert not any(difference.what.startswith("scenario") for difference in found.differences)


def test_what_was_asked_is_compared_to_the_last_key(pair: tuple[Path, Path]) -> None:
    a, b = pair
    changed(b, "manifest.json", scenario={"workload": {"kind": "register", "clients": 5, "rate": 50, "keys": 5}})
    found = compare(a, b)
    assert not found.same_experiment
    assert (of(found, "scenario.workload.rate").a, of(found, "scenario.workload.rate").b) == ("200.0", "50")


def test_a_broken_promise_is_another_verdict_and_says_which(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", "held"), write_run(tmp_path / "b", "unordered"))
    assert found.exit_status == 1
    assert of(found, "linearizable").b == "broken"
    assert "k3" in of(found, "linearizable").why


def test_a_run_that_is_not_to_be_believed_is_compared_with_its_reasons(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", "held"), write_run(tmp_path / "b", "unbelievable"))
    assert found.exit_status == 2
    assert "B is not to be believed" in of(found, "the run").why


def test_links_whose_measured_intervals_are_apart_are_told(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", "impaired"), write_run(tmp_path / "b", "impaired")
    slow = {"delay_mean_interval": [30 * MS, 31 * MS], "backend": "netem"}
    for run, interval in ((a, {"delay_mean_interval": [10 * MS, 11 * MS], "backend": "wire"}), (b, slow)):
        obtained = msgspec.json.decode((run / "results.json").read_bytes())["fidelity"]["calibration"]["leaf3>spine2"]
        changed(run, "results.json", fidelity={"calibration": {"leaf3>spine2": obtained | interval}})
    assert "wire and netem" in of(compare(a, b), "delay of leaf3>spine2").why


@pytest.mark.parametrize("missing", ["manifest.json", "results.json"])
def test_a_folder_that_lacks_what_is_compared_is_named(pair: tuple[Path, Path], missing: str) -> None:
    (pair[1] / missing).unlink()
    with pytest.raises(ReportError, match=missing):
        compare(*pair)
    with pytest.raises(ReportError, match="no such folder"):
        compare(pair[0], pair[1] / "nowhere")


def test_all_of_it_is_shown(pair: tuple[Path, Path]) -> None:
    changed(pair[1], "manifest.json", seed=9, backends={"impairment": "netem"})
    console = Console(width=200, file=io.StringIO(), record=True)
    found = compare(*pair)
    show(console, found)
    shown = console.export_text()
    assert found.summary in shown
    assert all(difference.what in shown for difference in found.differences)
    assert all(row.what in shown for row in found.figures)


def test_the_page_says_all_of_it_and_loads_nothing(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", "held"), write_run(tmp_path / "b", "unbelievable", seed=8))
    written = html.unescape(page(found))
    for difference in found.differences:
        assert difference.what in written
        assert difference.why in written
    assert "http" not in written.replace("http-equiv", "")
    assert "Unknown." in written
