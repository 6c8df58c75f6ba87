"""netem and the wire do the same: each asked the same in one boot, in turns, and judged by two one-sided tests.

Two one-sided tests (Schuirmann, 1987): the backends are equivalent where the confidence interval of their paired
differences lies within the margin. A difference that was not found would not be evidence; this is. The tests are sign
tests, of the median: one bad moment of a busy machine, in one of the rounds, does not move it.

The wire is a process and wakes as late as any here. Where that alone fills a margin, no difference is held against it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.kernel.conftest import MEASURED
from topologies import netns
from topologies.impair import Attachment, Direction, run
from topologies.impairment import Impairment
from topologies.measure import measure_link, measure_rate
from topologies.netem import NetemBackend
from topologies.sandbox import Sandbox
from topologies.wire import WireBackend

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]

MS = 1_000_000
ROUNDS = 8
#: The second least and the second greatest of eight differences enclose their median with this confidence, in percent:
#: all but twice the chance that one of eight fair coins or none shows heads, 2 (1 + 8) / 256.
CONFIDENCE = 93


class Quantity(msgspec.Struct, frozen=True):
    """What is asked, what of the obtained is compared, in which unit, and how far apart the two may be."""

    asked: Impairment
    shown: str
    what: str
    unit: str
    margin: float
    packets: int = 120


QUANTITIES = {
    # The median: where the processor is emulated, now and then a process waits for it, which delays a few packets much.
    "delay": Quantity(Impairment(delay=20 * MS), "20 ms", "delay_p50", "ms", 5.0),
    "jitter": Quantity(Impairment(delay=30 * MS, jitter=10 * MS), "30 ms ± 10 ms, its deviation", "jitter", "ms", 2.0),
    # Chance alone must hardly ever fill the margin: with 900 packets each, a difference has a deviation of 1.4 %, and
    # two of eight beyond 4 % on one side come about once in 6,000 times.
    "loss": Quantity(Impairment(loss=0.1), "10 %", "loss", "%", 4.0, packets=900),
    "rate": Quantity(Impairment(rate=4_000_000), "4 Mbit/s", "rate", "Mbit/s", 0.4),
}

#: Where every tenth sleep ends later than this while it measures, in ms, backends that are not shown to be equivalent
#: are not shown to differ either.
MOST_LATENESS = 5.0

_SCALES = {"ms": 1e-6, "%": 100.0, "Mbit/s": 1e-6}


class Pair:
    """A veth between two namespaces, whose direction ``near>far`` both backends impair in turns."""

    def __init__(self) -> None:
        netns.DIRECTORY.mkdir(parents=True, exist_ok=True)
        for name in ("near", "far"):
            with netns.created(name):
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
                if name == "far":
                    run(["ip", "link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", "near"])
        for name in ("near", "far"):
            with netns.inside(name):
                run(["ip", "link", "set", f"{name}0", "up"])
        self.direction = Direction("near>far", Attachment("near0", "near"), Attachment("far0", "far"))
        self.backends = {"netem": NetemBackend(), "wire": WireBackend()}

    async def obtained(self, quantity: Quantity, backend: str, seed: int) -> tuple[float, float]:
        """What was obtained, and how late processes woke meanwhile, in ms."""
        late = asyncio.create_task(asyncio.to_thread(sleeps_end_late))
        value = await self._obtained(quantity, backend, seed)
        return value, await late

    async def _obtained(self, quantity: Quantity, backend: str, seed: int) -> float:
        doer = self.backends[backend]
        doer.apply(self.direction, quantity.asked, seed)
        try:
            if quantity.asked.rate:
                rate = await measure_rate(self.direction, offered=2 * quantity.asked.rate, duration=1200 * MS)
                return rate.rate * _SCALES[quantity.unit]
            probed = await measure_link(self.direction, packets=quantity.packets, interval=3 * MS, wait=200 * MS)
            return float(getattr(probed, quantity.what)) * _SCALES[quantity.unit]
        finally:
            doer.clear(self.direction)


def sleeps_end_late() -> float:
    """How late a process wakes, in ms: the 90th percentile of some sleeps."""
    late = []
    for _ in range(100):
        before = time.perf_counter_ns()
        time.sleep(0.003)
        late.append((time.perf_counter_ns() - before - 3 * MS) / MS)
    return statistics.quantiles(late, n=10)[-1]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The interval of `CONFIDENCE` for the median of so many of them as there are rounds."""
    ordered = sorted(differences)
    return ordered[1], ordered[-2]


@pytest.fixture(scope="module")
def pair() -> Iterator[Sandbox]:
    with Sandbox(Pair) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", QUANTITIES)
def test_netem_and_the_wire_obtain_the_same(
    pair: Sandbox, name: str, record_property: Callable[[str, object], None]
) -> None:
    quantity = QUANTITIES[name]
    pairs: list[tuple[float, float]] = []
    late: list[float] = []
    for seed in range(ROUNDS):
        # In turns the other way round, so that whatever drifts in the machine favours neither.
        order = ("netem", "wire") if seed % 2 else ("wire", "netem")
        got = {backend: pair.call_sync("obtained", quantity, backend, seed) for backend in order}
        pairs.append((got["netem"][0], got["wire"][0]))
        late += [got[backend][1] for backend in order]
    low, high = interval([netem - wire for netem, wire in pairs])
    netem, wire = (statistics.median(values) for values in zip(*pairs, strict=True))
    said = (
        f"| {name}: {quantity.shown} | {netem:.3f} {quantity.unit} | {wire:.3f} {quantity.unit} "
        f"| {low:+.3f} to {high:+.3f} | ±{quantity.margin:g} |"
    )
    record_property(MEASURED, said)
    if -quantity.margin < low and high < quantity.margin:
        return
    lateness = statistics.median(late)
    if lateness > MOST_LATENESS:
        pytest.skip(f"not shown, where processes wake {lateness:.1f} ms late: {said}")
    pytest.fail(said, pytrace=False)
