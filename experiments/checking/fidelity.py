"""Whether the machine served well enough for a run to be believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from experiments.checking.history import HistoryError
from experiments.checking.results import Fidelity
from experiments.phrases import span

#: A node's loop that is later than this share of the shortest election timeout may itself cost a leader its place.
MOST_LAG = 0.25

#: Where less than this share of the processors' time was left, loops this late already tell of a machine that made
#: everybody wait; with none left, but loops on time, others may have used the processors without harm.
LEAST_HEADROOM = 0.02
MOST_LAG_WITHOUT_HEADROOM = 0.05


class _Lag(msgspec.Struct, frozen=True):
    t: int
    loop_lag_max: int


def read_fidelity(
    run: Path, epoch: int, headroom: Mapping[str, float], calibration: dict[str, dict[str, Any]]
) -> Fidelity:
    """What the nodes of ``run`` measured of their event loops since ``epoch``, beside what the manifest has.

    Raises `HistoryError` for metrics that cannot be read.
    """
    decode = msgspec.json.Decoder(_Lag).decode
    lags: list[int] = []
    for path in sorted(run.glob("nodes/*/trace/metrics.ndjson")):
        data = path.read_bytes()
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            try:
                figures = decode(line)
            except msgspec.DecodeError as error:
                raise HistoryError(f"{path}:{number}: not a line of a node's metrics: {error}") from None
            if figures.t >= epoch:
                lags.append(figures.loop_lag_max)
    return Fidelity(
        # A line is a second, in which a loop is woken fifty times: the latest of them is its 98th percentile, and the
        # median of these over all seconds is the 99th of all.
        round(median(lags)) if lags else None,
        max(lags) if lags else None,
        headroom.get("cpu_headroom"),
        headroom.get("cpu_headroom_min"),
        calibration,
    )


def unfaithful(fidelity: Fidelity, timeout: tuple[int, int], elects: bool = True) -> list[str]:
    """Why the machine may have made the result, beside ``timeout``: the shortest and longest silence a node bears."""
    reasons: list[str] = []
    lag = fidelity.loop_lag_p99
    if lag is not None and lag > MOST_LAG * timeout[0]:
        patience = "an election timeout" if elects else "nodes that take for silent what is late by"
        reasons.append(
            f"the nodes' event loops ran {span(lag)} late (99th percentile), too much beside {patience}"
            f"{' of' if elects else ''} {span(timeout[0])}: give the machine less to do, or the scenario a time_scale"
        )
    headroom = fidelity.cpu_headroom
    on_time = lag is not None and lag <= MOST_LAG_WITHOUT_HEADROOM * timeout[0]
    if headroom is not None and headroom < LEAST_HEADROOM and not on_time:
        reasons.append(f"only {headroom:.1%} of the processors' time was left: fewer processes, or a time_scale")
    reasons += (
        f"{direction} did not do what was asked when it was calibrated: {problem}"
        for direction, obtained in fidelity.calibration.items()
        for problem in obtained.get("disagreements", ())
    )
    return reasons
