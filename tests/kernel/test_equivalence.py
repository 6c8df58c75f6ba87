"""netem and the wire do the same: each asked the same in one boot, in turns, and judged by two one-sided tests.

Two one-sided tests (Schuirmann, 1987) at 5 %: the backends are equivalent where the 90 % confidence interval of the
mean of their paired differences lies within the margin. A difference that was not found would not be evidence; this is.
"""

from __future__ import annotations

import math
import statistics
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
#: Student's t for ROUNDS - 1 degrees of freedom, 95 % one-sided.
T = 1.895


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
    "jitter": Quantity(Impairment(delay=30 * MS, jitter=10 * MS), "30 ms ± 10 ms, its deviation", "jitter", "ms", 1.5),
    "loss": Quantity(Impairment(loss=0.1), "10 %", "loss", "%", 4.0, packets=300),
    "rate": Quantity(Impairment(rate=4_000_000), "4 Mbit/s", "rate", "Mbit/s", 0.4),
}

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

    async def obtained(self, quantity: Quantity, backend: str, seed: int) -> float:
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


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 90 % confidence interval of their mean."""
    mean = statistics.fmean(differences)
    half = T * statistics.stdev(differences) / math.sqrt(len(differences))
    return mean - half, mean + half


@pytest.fixture(scope="module")
def pair() -> Iterator[Sandbox]:
    with Sandbox(Pair) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", QUANTITIES)
def test_netem_and_the_wire_obtain_the_same(
    pair: Sandbox, name: str, record_property: Callable[[str, object], None]
) -> None:
    quantity = QUANTITIES[name]
    pairs = []
    for seed in range(ROUNDS):
        # In turns the other way round, so that whatever drifts in the machine favours neither.
        order = ("netem", "wire") if seed % 2 else ("wire", "netem")
        got = {backend: pair.call_sync("obtained", quantity, backend, seed) for backend in order}
        pairs.append((got["netem"], got["wire"]))
    low, high = interval([netem - wire for netem, wire in pairs])
    netem, wire = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    said = (
        f"| {name}: {quantity.shown} | {netem:.3f} {quantity.unit} | {wire:.3f} {quantity.unit} "
        f"| {low:+.3f} to {high:+.3f} | ±{quantity.margin:g} |"
    )
    record_property(MEASURED, said)
    assert -quantity.margin < low, said
    assert high < quantity.margin, said
