"""What is concluded from probes: what an impairment does passes, one that did nothing does not."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.impairment import Impairment
from topologies.intervals import binomial_tail
from topologies.measure import Arrival, Obtained, ObtainedRate, summarise, verify, verify_rate
from topologies.wire import settings_of
from topologies.wire_fallback import Fates

MS = 1_000_000


def played(impairment: Impairment, seed: int, packets: int = 200) -> Obtained:
    """What 200 probes 2 ms apart would see of an exact wire on a machine that adds up to 0.2 ms."""
    noise = random.Random(seed)
    fates = Fates(settings_of(impairment, seed))
    arrivals, damaged = [], 0
    for number in range(packets):
        sent = number * 2 * MS
        fate = fates.next(sent, 128)
        damaged += len(fate.departures) if fate.bit is not None else 0
        if fate.bit is None:
            arrivals += [Arrival(number, sent, leaves + noise.randrange(MS // 5)) for leaves in fate.departures]
    return summarise(packets, 128, sorted(arrivals, key=lambda arrival: arrival.received), damaged)


ASKED = [
    Impairment(),
    Impairment(delay=20 * MS),
    Impairment(delay=20 * MS, jitter=5 * MS, loss=0.1),
    Impairment(delay=20 * MS, jitter=8 * MS, distribution="normal"),
    Impairment(delay=20 * MS, jitter=8 * MS, distribution="pareto"),
    Impairment(loss=0.3),
    Impairment(loss=0.2, burst=4.0),
    Impairment(loss=1.0),
    Impairment(duplicate=0.2, corrupt=0.2),
    Impairment(duplicate=0.5, corrupt=0.5, loss=0.2),
    Impairment(delay=30 * MS, reorder=0.5),
    Impairment(rate=1_000_000, delay=5 * MS),
]


@pytest.mark.parametrize("asked", ASKED)
def test_what_was_asked_is_recognised(asked: Impairment) -> None:
    disagreements = [found for seed in range(20) for found in verify(asked, played(asked, seed))]
    assert disagreements == []


@pytest.mark.parametrize("asked", ASKED[1:])
def test_an_impairment_that_did_nothing_is_noticed(asked: Impairment) -> None:
    assert verify(asked, played(Impairment(), 1))


@pytest.mark.parametrize(
    ("asked", "done"),
    [
        (Impairment(delay=20 * MS), Impairment(delay=10 * MS)),
        (Impairment(delay=20 * MS), Impairment(delay=30 * MS)),
        (Impairment(loss=0.1), Impairment(loss=0.4)),
        (Impairment(), Impairment(loss=0.2)),
        (Impairment(delay=20 * MS, jitter=15 * MS), Impairment(delay=20 * MS)),
    ],
)
def test_another_impairment_than_the_one_asked_is_noticed(asked: Impairment, done: Impairment) -> None:
    assert verify(asked, played(done, 1))


def test_a_full_queue_of_other_traffic_is_no_disagreement() -> None:
    asked = Impairment(rate=10_000_000, queue=100)
    queued = Impairment(delay=100 * MS, loss=0.2)  # what probes see of a link that others fill
    assert verify(asked, played(queued, 1)) == []


def test_a_disagreement_says_what_was_obtained_and_what_was_asked() -> None:
    (sentence,) = verify(Impairment(delay=20 * MS), played(Impairment(), 1))
    assert "20.00 ms was asked" in sentence
    assert "mean delay 0.1" in sentence


def test_duplicates_and_overtaking_are_counted_once_a_probe() -> None:
    arrivals = [Arrival(0, 0, 10), Arrival(2, 2, 12), Arrival(2, 2, 13), Arrival(1, 1, 14)]
    obtained = summarise(5, 60, arrivals)
    assert (obtained.arrived, obtained.duplicated, obtained.reordered) == (3, 1, 1)
    assert obtained.loss == pytest.approx(0.4)
    assert obtained.loss_burst == 2
    assert (obtained.delay_min, obtained.delay_max) == (10, 13)


def test_nothing_arriving_has_no_delay() -> None:
    obtained = summarise(5, 60, [])
    assert obtained.loss == 1
    assert obtained.delay_mean is None
    assert verify(Impairment(loss=1.0), msgspec.structs.replace(obtained, sent=100)) == []


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.data())
@settings(max_examples=100)
def test_a_binomial_tail_is_the_sum_of_its_terms(trials: int, share: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    outwards = range(count + 1) if count < trials * share else range(count, trials + 1)
    exact = sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in outwards)
    assert binomial_tail(trials, share, count) == pytest.approx(exact, rel=1e-6)


def test_a_rate_is_judged_only_when_more_was_offered() -> None:
    asked = Impairment(rate=10_000_000)
    assert verify_rate(asked, ObtainedRate(offered=13_000_000, rate=9_900_000)) == []
    assert "13 Mbit/s went through" in verify_rate(asked, ObtainedRate(offered=13_000_000, rate=13_000_000))[0]
    assert "too little" in verify_rate(asked, ObtainedRate(offered=9_000_000, rate=9_000_000))[0]
