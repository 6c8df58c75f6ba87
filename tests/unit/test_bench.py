"""Figures: whether an aim is met, and the object they are printed as."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from experiments.bench import BenchError, as_json, as_table, figure, meets, run_bench


@pytest.mark.parametrize(
    ("value", "aim", "met"),
    [
        (1.0, "≤ 1.0", True),
        (1.1, "≤ 1.0", False),
        (200_000, "≥ 200,000", True),
        (4999.0, "≥ 5000", False),
        (1.66, "1.58 ± 5 %", False),
        (1.5, "1.58 ± 5.1 %", True),
    ],
)
def test_an_aim_is_met_up_to_its_bound(value: float, aim: str, met: bool) -> None:
    assert meets(value, aim) is met
    assert figure("f", value, "ms", aim=aim).met is met


@pytest.mark.parametrize("aim", ["", "fast", "< 3", "≤3", "≥ many"])
def test_an_aim_that_cannot_be_read_is_refused(aim: str) -> None:
    with pytest.raises(ValueError, match="is no aim"):
        meets(1, aim)


def test_figures_are_printed_as_one_object_with_the_machine_and_the_command() -> None:
    figures = [figure("p99", 0.5, "ms", aim="≤ 1.0", peer="bare veth", peer_value=0.1), figure("n", 3, "1/s")]
    printed = json.loads(as_json("wire", figures))
    assert printed["bench"] == "wire"
    assert printed["command"] == "splitbrain bench wire --json"
    assert printed["machine"]["cores"] >= 1
    assert printed["figures"][0] == {
        "name": "p99",
        "value": 0.5,
        "unit": "ms",
        "aim": "≤ 1.0",
        "met": True,
        "peer": "bare veth",
        "peer_value": 0.1,
        "ratio": 5.0,
    }
    assert printed["figures"][1]["met"] is None


def test_the_table_names_what_was_missed() -> None:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(as_table("wire", [figure("p99_ms", 2.0, "ms", aim="≤ 1.0")]))
    assert "p99_ms" in captured.get()
    assert "missed" in captured.get()


def test_an_unknown_bench_is_answered_with_those_there_are() -> None:
    with pytest.raises(BenchError, match="raft"):
        run_bench("wier", json=False)
