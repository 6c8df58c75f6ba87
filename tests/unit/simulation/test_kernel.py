"""Virtual time: order, and an asyncio loop that lives in it."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.simulation.kernel import Kernel, Loop
from experiments.simulation.sampling import STEPS, quantile_table


@given(st.lists(st.integers(0, 20)))
def test_events_happen_in_the_order_of_their_time_and_those_of_one_time_as_they_were_asked_for(
    times: list[int],
) -> None:
    kernel = Kernel()
    happened: list[tuple[int, int]] = []
    for number, moment in enumerate(times):
        kernel.at(moment, lambda number: happened.append((kernel.now, number)), number)
    kernel.run(20)
    assert happened == sorted((moment, number) for number, moment in enumerate(times))
    assert kernel.now == 20
    assert kernel.events == len(times)


def test_time_stops_where_it_was_told_to_and_goes_on_from_there() -> None:
    kernel = Kernel()
    seen: list[int] = []
    kernel.at(5, lambda _: kernel.at(7, seen.append, 1), None)
    kernel.run(6)
    assert (seen, kernel.now) == ([], 6)
    kernel.run(7)
    assert seen == [1]


def test_who_sleeps_an_hour_wakes_at_once_and_an_hour_later() -> None:
    async def sleep() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(60))
        return loop.time(), time.monotonic()

    began = time.monotonic()
    with asyncio.Runner(loop_factory=Loop) as runner:
        virtual, real = runner.run(sleep())
    assert virtual == pytest.approx(3600)
    assert real - began < 5


def test_what_sleeps_see_of_the_kernel_is_what_happened_before_they_woke() -> None:
    async def watch() -> list[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        seen: list[int] = []
        for moment in (1_000_000, 2_000_000, 2_000_001):
            loop.kernel.at(moment, seen.append, moment)
        await asyncio.sleep(0.002)
        return list(seen)

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(watch()) == [1_000_000, 2_000_000]


def test_waiting_for_what_will_never_happen_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=Loop) as runner, pytest.raises(RuntimeError, match="never happen"):
        runner.run(wait())


def test_a_table_has_the_quantiles_it_was_made_of() -> None:
    table = quantile_table([(0.0, 10), (0.5, 100), (0.9, 1000), (1.0, 5000)])
    assert list(table) == sorted(table)
    assert table[STEPS // 2] == pytest.approx(100, abs=5)
    assert table[int(STEPS * 0.9)] == pytest.approx(1000, abs=20)
    with pytest.raises(ValueError, match="not the points of a quantile function"):
        quantile_table([(0.0, 10), (0.5, 5), (1.0, 20)])
