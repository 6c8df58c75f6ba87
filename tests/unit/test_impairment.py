"""Impairments as values, the fates they give to packets, and how several of them share a direction."""

from __future__ import annotations

import itertools
import math
import statistics
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.impair import Attachment, Counters, Direction, ImpairError, Impairments, direction_of, direction_seed
from topologies.impairment import (
    QUANTILE_STEPS,
    Impairment,
    ImpairmentError,
    expected_delay,
    from_samples,
    gilbert,
    quantiles,
)
from topologies.intervals import binomial_tail
from topologies.leaf_spine import LeafSpine
from topologies.plan import PlanError
from topologies.wire import (
    COUNTERS,
    DELAYS,
    OCTAVES,
    REPLY,
    STEPS,
    counters_of,
    histogram_index,
    pack_settings,
    quantile_of,
    settings_of,
    unpack_settings,
)
from topologies.wire_fallback import Fates, draw, on_the_wire

MS = 1_000_000

seeds = st.integers(0, 2**64 - 1)
shares = st.floats(0, 1)
impairments = st.builds(
    Impairment,
    delay=st.integers(0, 1_000 * MS),
    jitter=st.integers(0, 100 * MS),
    distribution=st.sampled_from(["uniform", "normal", "pareto"]),
    loss=shares,
    duplicate=shares,
    reorder=shares,
    corrupt=shares,
    rate=st.sampled_from([0, 1_000_000, 1_000_000_000]),
    queue=st.integers(1, 1_000),
)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"delay": -1}, "delay"),
        ({"jitter": 61_000 * MS}, "60 s"),
        ({"loss": 1.5}, "loss"),
        ({"corrupt": -0.1}, "corrupt"),
        ({"queue": 0}, "queue"),
        ({"loss": 0.1, "burst": 0.5}, "burst"),
        ({"loss": 0.9, "burst": 2.0}, "at most 0.667"),
        ({"rate": -5}, "rate"),
        ({"distribution": "table"}, "both or neither"),
        ({"samples": (1, 2)}, "both or neither"),
        ({"distribution": "table", "samples": (7,)}, "2 to 4,096"),
        ({"distribution": "table", "samples": (7, 7)}, "not all the same"),
        ({"distribution": "table", "samples": (-7, 7)}, "none negative"),
    ],
)
def test_an_impairment_no_link_can_have_is_refused_by_the_name_of_its_field(
    wrong: dict[str, float], names: str
) -> None:
    with pytest.raises(ImpairmentError, match=names):
        Impairment(**wrong)  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError, match=names):
        msgspec.json.decode(msgspec.json.encode(wrong), type=Impairment)


@pytest.mark.parametrize(("distribution", "deviation"), [("uniform", 1 / math.sqrt(3)), ("normal", 1), ("pareto", 1)])
def test_a_jitter_distribution_has_mean_0_and_the_deviation_it_promises(distribution: str, deviation: float) -> None:
    points = quantiles(distribution)
    middles = [(low + high) / 2 for low, high in itertools.pairwise(points)]
    assert list(points) == sorted(points)
    assert statistics.fmean(middles) == pytest.approx(0, abs=0.01)
    assert statistics.pstdev(middles) == pytest.approx(deviation, rel=0.001)


MICROSECONDS = st.integers(0, 1_000_000).map(lambda microseconds: microseconds * 1_000)


@settings(deadline=None, max_examples=20)
@given(st.lists(MICROSECONDS, min_size=50, max_size=300).filter(lambda samples: len(set(samples)) > 1))
def test_packets_are_held_as_long_as_those_that_were_measured(samples: list[int]) -> None:
    fates = Fates(settings_of(from_samples(samples), seed=5))
    delays = [fates.next(0, 100).departures[0] for _ in range(2_000)]
    slack = (max(samples) - min(samples)) / 20 + 10
    assert min(samples) - slack <= min(delays)
    assert max(delays) <= max(samples) + slack
    expected, deviation = expected_delay(from_samples(samples))
    assert expected == pytest.approx(statistics.fmean(samples), abs=slack)
    assert statistics.fmean(delays) == pytest.approx(expected, abs=slack)
    assert deviation == pytest.approx(statistics.pstdev(samples), abs=slack)


@given(st.floats(0.001, 0.6), st.floats(2, 50))
def test_bursts_of_the_asked_length_lose_the_asked_share(loss: float, burst: float) -> None:
    start, end = gilbert(Impairment(loss=loss, burst=burst))
    assert 1 / end == pytest.approx(burst)
    assert start / (start + end) == pytest.approx(loss)


def test_draws_are_the_published_generators() -> None:
    # The first outputs of SplitMix64 for seed 1234567, as its test vectors have them.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [draw(1234567, 0, which) for which in range(4)] == [output >> 32 for output in published]


@given(impairments, seeds)
def test_settings_survive_the_way_to_the_process(impairment: Impairment, seed: int) -> None:
    asked = settings_of(impairment, seed)
    assert unpack_settings(pack_settings(asked)) == asked


@given(impairments, seeds, st.lists(st.tuples(st.integers(0, MS), st.integers(60, 1514)), min_size=1, max_size=100))
@settings(max_examples=50)
def test_the_same_seed_and_packets_have_the_same_fate(
    impairment: Impairment, seed: int, packets: list[tuple[int, int]]
) -> None:
    one, other = (Fates(settings_of(impairment, seed)) for _ in range(2))
    now = 0
    for gap, length in packets:
        now += gap
        fate = one.next(now, length)
        assert fate == other.next(now, length)
        assert all(departure >= now for departure in fate.departures)


@given(impairments, seeds)
@settings(max_examples=50)
def test_which_packets_are_lost_depends_on_nothing_but_loss_and_seed(impairment: Impairment, seed: int) -> None:
    everything = Fates(settings_of(msgspec.structs.replace(impairment, rate=0), seed))
    loss_alone = Fates(settings_of(Impairment(loss=impairment.loss), seed))
    for _ in range(200):
        assert everything.next(0, 100).cause == loss_alone.next(0, 100).cause


@given(st.integers(1, 200), st.lists(st.tuples(st.integers(0, MS), st.integers(60, 1514)), max_size=300))
@settings(max_examples=50)
def test_packets_leave_no_faster_than_the_rate_and_wait_in_no_more_than_the_queue(
    queue: int, packets: list[tuple[int, int]]
) -> None:
    rate = 10_000_000
    fates = Fates(settings_of(Impairment(rate=rate, queue=queue), 1))
    now = before = 0
    waiting: list[int] = []
    for gap, length in packets:
        now += gap
        waiting = [departure for departure in waiting if departure > now]
        fate = fates.next(now, length)
        assert (fate.cause == "queue_full") == (len(waiting) == queue)
        for departure in fate.departures:
            assert departure - max(before, now) == length * 8_000_000_000 // rate
            before = departure
            waiting.append(departure)


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.1, 0.3])
def test_loss_is_the_share_asked(loss: float) -> None:
    fates = Fates(settings_of(Impairment(loss=loss), 7))
    lost = sum(fates.next(0, 100).cause == "lost" for _ in range(20_000))
    assert binomial_tail(20_000, loss, lost) > 0.005


def test_bursts_of_loss_are_as_long_as_asked() -> None:
    fates = Fates(settings_of(Impairment(loss=0.1, burst=5.0), 7))
    runs = [len(list(run)) for lost, run in itertools.groupby(fates.next(0, 100).cause for _ in range(40_000)) if lost]
    assert statistics.fmean(runs) == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto"])
def test_delays_are_spread_as_expected_and_never_negative(distribution: str) -> None:
    impairment = Impairment(delay=5 * MS, jitter=4 * MS, distribution=distribution, reorder=0.1)  # type: ignore[arg-type]
    fates = Fates(settings_of(impairment, 3))
    delays = [fates.next(0, 100).departures[0] for _ in range(20_000)]
    mean, deviation = expected_delay(impairment)
    assert min(delays) >= 0
    assert statistics.fmean(delays) == pytest.approx(mean, rel=0.02)
    assert statistics.pstdev(delays) == pytest.approx(deviation, rel=0.1)


def test_a_frame_that_the_kernel_will_cut_up_counts_as_what_it_becomes() -> None:
    headers, payload, segment = 14 + 20 + 32, 10_000, 1448
    vnet = bytes([1, 1]) + b"".join(n.to_bytes(2, "little") for n in (headers, segment, 34, 16))
    frame = bytearray(10 + headers + payload)
    frame[:10] = vnet
    frame[10 + 34 + 12] = 8 << 4  # TCP's data offset, in words of 4 bytes
    assert on_the_wire(bytes(frame)) == (7, payload + 7 * headers)
    assert on_the_wire(bytes(10 + 60)) == (1, 60)


@given(st.integers(0, 2**39 - 1))
def test_the_histogram_knows_a_delay_to_within_one_percent(delay: int) -> None:
    histogram = [0] * (OCTAVES * STEPS)
    histogram[histogram_index(delay)] = 3
    assert quantile_of(histogram, 0.5) == pytest.approx(delay, rel=0.008)


def test_counters_say_what_became_of_packets_by_cause() -> None:
    counted = dict.fromkeys(COUNTERS, 0) | {"packets": 90, "bytes": 900, "sent": 60, "lost": 20, "queue_full": 10}
    counted |= {"delay_sum": 60 * 5 * MS}
    histogram = [0] * (OCTAVES * STEPS)
    histogram[histogram_index(5 * MS)] = 60
    counters = counters_of(REPLY.pack(0, 1, *counted.values()) + DELAYS.pack(*histogram), tap_dropped=10)
    assert counters.packets == 100
    assert counters.dropped == {"loss": 20, "queue": 10, "overload": 10}
    assert counters.loss == pytest.approx(0.4)
    assert counters.delay_mean == 5 * MS


# ---- several impairments on the directions of a plan


class RecordingBackend:
    """What is in force on each direction, as a kernel would have it."""

    name = "recording"

    def __init__(self) -> None:
        self.in_force: dict[str, Impairment] = {}
        self.seeds: dict[str, int] = {}

    def apply(self, direction: Direction, impairment: Impairment, seed: int) -> None:
        assert direction.name not in self.in_force
        self.in_force[direction.name] = impairment
        self.seeds[direction.name] = seed

    def change(self, direction: Direction, impairment: Impairment) -> None:
        assert direction.name in self.in_force
        self.in_force[direction.name] = impairment

    def clear(self, direction: Direction) -> None:
        del self.in_force[direction.name]

    def counters(self, direction: Direction) -> Counters:
        return Counters(backend=self.name, packets=1, bytes=1, dropped={})

    def close(self) -> None:
        self.in_force.clear()


PLAN = LeafSpine(1, 2, 1)


@given(st.lists(st.tuples(st.sampled_from(["apply", "change", "clear"]), st.integers(0, 5), st.integers(1, 9))))
def test_the_latest_impairment_that_was_not_lifted_is_in_force(steps: list[tuple[str, int, int]]) -> None:
    backend = RecordingBackend()
    lab = Impairments(PLAN, backend)
    model: list[tuple[object, Impairment]] = []
    for verb, which, delay in steps:
        impairment = Impairment(delay=delay)
        if verb == "apply":
            model.append((lab.apply("leaf1>spine1", impairment), impairment))
        elif model and verb == "change":
            place = which % len(model)
            lab.change(model[place][0], impairment)  # type: ignore[arg-type]
            model[place] = (model[place][0], impairment)
        elif model:
            lab.clear(model.pop(which % len(model))[0])  # type: ignore[arg-type]
        assert backend.in_force == ({"leaf1>spine1": model[-1][1]} if model else {})
        assert lab.in_force() == backend.in_force


def test_an_impairment_is_lifted_when_its_block_ends_however_it_ends() -> None:
    backend = RecordingBackend()
    lab = Impairments(PLAN, backend)
    with suppress(ZeroDivisionError), lab.impair("h1>leaf1", Impairment(loss=0.5)):
        assert backend.in_force == {"h1>leaf1": Impairment(loss=0.5)}
        raise ZeroDivisionError
    assert backend.in_force == {}
    with pytest.raises(ImpairError, match="h1>leaf1 is not impaired"):
        lab.counters("h1>leaf1")


def test_lifting_twice_is_refused() -> None:
    lab = Impairments(PLAN, RecordingBackend())
    handle = lab.apply("leaf1>spine1", Impairment(delay=1))
    lab.clear(handle)
    with pytest.raises(ImpairError, match="lifted before"):
        lab.clear(handle)


def test_directions_have_sequences_of_their_own_that_follow_from_the_seed() -> None:
    backend = RecordingBackend()
    lab = Impairments(PLAN, backend, seed=5)
    for direction in ("leaf1>spine1", "spine1>leaf1"):
        lab.apply(direction, Impairment(loss=0.1))
    assert backend.seeds == {direction: direction_seed(5, direction) for direction in backend.seeds}
    assert len(set(backend.seeds.values())) == 2


def test_a_hosts_end_of_a_link_is_in_the_hosts_namespace() -> None:
    assert direction_of(PLAN, "h2>leaf2") == Direction(
        "h2>leaf2", Attachment("h2-eth0", "h2"), Attachment("leaf2-eth1", None)
    )
    with pytest.raises(PlanError, match="no direction 'leaf1>leaf2'"):
        direction_of(PLAN, "leaf1>leaf2")


def test_quantiles_have_as_many_points_as_the_loop_expects() -> None:
    assert {len(quantiles(name)) for name in ("uniform", "normal", "pareto")} == {QUANTILE_STEPS + 1}
