"""Very many seeds of a scenario, over all cores, and what was measured of all of them together."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from statistics import fmean

import msgspec

from experiments.checking.results import Valid
from experiments.scenario import Scenario
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import Outcome, play_seed

#: How many seeds a worker gets at a time: enough that handing them out costs nothing.
SHARE = 4

#: Shares handed out ahead, for each worker.
AHEAD = 2


class Spread(msgspec.Struct, frozen=True):
    """How something turned out over many seeds, in nanoseconds. ``never``: how often it did not come to that."""

    count: int
    never: int
    p50: int | None
    p99: int | None
    max: int | None


class Summary(msgspec.Struct, frozen=True):
    """All seeds of a campaign. Counts of operations are totals; ``share`` is the part of them that was served.

    ``reads`` are those that may have been stale, ``oldest_read`` tells of the worst of each seed; ``found_failed`` is
    how long it took until all others had found a failed node.
    """

    seeds: int
    valid: int
    failed: list[int]
    unknown: list[int]
    operations: int
    served: int
    unserved: int
    in_doubt: int
    lost_writes: int
    share: float | None
    least_share: float | None
    elections_per_seed: float
    new_leader: Spread
    recovery: Spread
    longest_outage: Spread
    events: int
    reads: int = 0
    stale_reads: int = 0
    oldest_read: Spread = Spread(0, 0, None, None, None)
    found_failed: Spread = Spread(0, 0, None, None, None)
    false_positives: int = 0

    @property
    def verdict(self) -> Valid:
        """False if any seed failed, else unknown if any shows nothing, else true."""
        return False if self.failed else "unknown" if self.unknown or not self.seeds else True


def play_seeds(scenario: Scenario, seeds: Sequence[int], random_faults: bool = False) -> Iterator[Outcome]:
    """The outcomes of ``scenario`` with each of ``seeds``, in their order, as far as they have come.

    Leaving the iteration early ends the workers when they are done with what they have.
    """
    shares = [list(seeds[at : at + SHARE]) for at in range(0, len(seeds), SHARE)]
    workers = min(len(os.sched_getaffinity(0)), max(1, len(shares)))
    if workers == 1 or len(shares) == 1:
        for share in shares:
            yield from _play_share(scenario, share, random_faults)
        return
    # Started afresh: a fork would copy whatever threads and locks the caller has.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        under_way: dict[Future[list[Outcome]], int] = {}
        done: dict[int, list[Outcome]] = {}
        given = told = 0
        try:
            while told < len(shares):
                while given < len(shares) and len(under_way) < workers * AHEAD:
                    under_way[pool.submit(_play_share, scenario, shares[given], random_faults)] = given
                    given += 1
                finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in finished:
                    done[under_way.pop(future)] = future.result()
                while told in done:
                    yield from done.pop(told)
                    told += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _play_share(scenario: Scenario, seeds: Sequence[int], random_faults: bool) -> list[Outcome]:
    return [play_seed(prepared(scenario, seed, random_faults)) for seed in seeds]


def prepared(scenario: Scenario, seed: int, random_faults: bool) -> Scenario:
    """``scenario`` with another seed, and with faults drawn by it if asked for."""
    seeded = scenario.with_seed(seed)
    return with_random_faults(seeded) if random_faults else seeded


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    served = [outcome.availability for outcome in outcomes if outcome.availability is not None]
    operations = sum(one.operations for one in served)
    ok = sum(one.ok + one.refused for one in served)
    return Summary(
        seeds=len(outcomes),
        valid=sum(outcome.valid is True for outcome in outcomes),
        failed=[outcome.seed for outcome in outcomes if outcome.valid is False],
        unknown=[outcome.seed for outcome in outcomes if outcome.valid == "unknown"],
        operations=operations,
        served=ok,
        unserved=sum(one.failed for one in served),
        in_doubt=sum(one.unknown for one in served),
        lost_writes=sum(outcome.lost_writes for outcome in outcomes),
        share=ok / operations if operations else None,
        least_share=min((one.share for one in served if one.share is not None), default=None),
        elections_per_seed=fmean(outcome.elections for outcome in outcomes) if outcomes else 0.0,
        new_leader=spread([time for outcome in outcomes for time in outcome.election_times]),
        recovery=spread([time for outcome in outcomes for time in outcome.recovery_times]),
        longest_outage=spread([one.longest_outage for one in served]),
        events=sum(outcome.events for outcome in outcomes),
        reads=sum(one.staleness.reads for one in outcomes if one.staleness),
        stale_reads=sum(one.staleness.stale for one in outcomes if one.staleness),
        oldest_read=spread([one.staleness.oldest for one in outcomes if one.staleness and one.staleness.stale]),
        found_failed=spread([found.last for one in outcomes if one.detection for found in one.detection.detected]),
        false_positives=sum(one.detection.false_positives for one in outcomes if one.detection),
    )


def spread(times: Sequence[int | None]) -> Spread:
    """Nearest-rank percentiles of the ``times`` that there are."""
    came = sorted(time for time in times if time is not None)
    if not came:
        return Spread(0, len(times), None, None, None)
    last = len(came) - 1
    return Spread(len(came), len(times) - len(came), came[last // 2], came[last * 99 // 100], came[-1])
