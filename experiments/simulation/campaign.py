"""Very many seeds of a scenario, over all cores, and what was measured of all of them together."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from statistics import fmean

import msgspec

from experiments.checking.replication import Replication
from experiments.checking.results import Detection, Valid
from experiments.checking.takeover import Takeover
from experiments.scenario import Scenario
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import Outcome, play_seed, play_traced

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


class DetectionRates(msgspec.Struct, frozen=True):
    """Of `results.Detection`, over all seeds: counts are totals; ``mistaken_seeds`` had any false positive. ``first``,
    ``last`` and ``back``: of every failure; ``longest_mistake`` and ``unsettled``: of every seed that had one.
    """

    first: Spread
    last: Spread
    back: Spread
    false_positives: int
    mistaken_seeds: int
    longest_mistake: Spread
    unresolved: int
    unsettled: Spread
    messages_per_second: float
    most_messages_per_second: float


class TakeoverRates(msgspec.Struct, frozen=True):
    """Of `takeover.Takeover`, over all seeds. ``unserved``: every time in which nobody served a shard; ``longest``: the
    longest of each seed. ``reintegration``: until one that came back counted in full.
    """

    share: float
    least_share: float
    unserved: Spread
    longest: Spread
    moves_per_seed: float
    reintegration: Spread


class ReplicationRates(msgspec.Struct, frozen=True):
    """Of `replication.Replication`, over all seeds: totals. ``differing`` of ``keys`` had not converged at the end."""

    hinted: int
    handed_over: int
    repairs: int
    refused_reads: int
    refused_writes: int
    keys: int
    differing: int


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """All seeds of a campaign. Counts of operations are totals; ``share`` is the part of them that was served.

    ``reads`` are those that may have been stale, ``oldest_read`` tells of the worst of each seed. What a system does
    not have is None: elections, failures to find, shards to take over, replicas to repair.
    """

    seeds: int
    valid: int
    failed: list[int]
    unknown: list[int]
    events: int
    operations: int | None = None
    served: int | None = None
    unserved: int | None = None
    in_doubt: int | None = None
    refused: int | None = None
    lost_writes: int | None = None
    share: float | None = None
    least_share: float | None = None
    recovery: Spread | None = None
    longest_outage: Spread | None = None
    elections_per_seed: float | None = None
    new_leader: Spread | None = None
    reads: int | None = None
    stale_reads: int | None = None
    siblings: int | None = None
    oldest_read: Spread | None = None
    detection: DetectionRates | None = None
    takeover: TakeoverRates | None = None
    replication: ReplicationRates | None = None

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
    outcomes: list[Outcome] = []
    for seed in seeds:
        asked = prepared(scenario, seed, random_faults)
        outcome = play_seed(asked)
        if outcome.valid is not True:  # played once more: keeping the evidence of all would take longer
            digest = play_traced(asked)[0].digest()
            outcome = msgspec.structs.replace(outcome, evidence_sha256=digest)
        outcomes.append(outcome)
    return outcomes


def prepared(scenario: Scenario, seed: int, random_faults: bool) -> Scenario:
    """``scenario`` with another seed, and with faults drawn by it if asked for."""
    seeded = scenario.with_seed(seed)
    return with_random_faults(seeded) if random_faults else seeded


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    served = [outcome.availability for outcome in outcomes if outcome.availability is not None]
    stale = [outcome.staleness for outcome in outcomes if outcome.staleness is not None]
    elections = [outcome.elections for outcome in outcomes if outcome.elections is not None]
    operations = sum(one.operations for one in served)
    ok = sum(one.ok + one.refused for one in served)
    return Summary(
        seeds=len(outcomes),
        valid=sum(outcome.valid is True for outcome in outcomes),
        failed=[outcome.seed for outcome in outcomes if outcome.valid is False],
        unknown=[outcome.seed for outcome in outcomes if outcome.valid == "unknown"],
        events=sum(outcome.events for outcome in outcomes),
        operations=operations if served else None,
        served=ok if served else None,
        unserved=sum(one.failed for one in served) if served else None,
        in_doubt=sum(one.unknown for one in served) if served else None,
        refused=sum(one.refused for one in served) if served else None,
        lost_writes=sum(outcome.lost_writes for outcome in outcomes) if served else None,
        share=ok / operations if operations else None,
        least_share=min((one.share for one in served if one.share is not None), default=None),
        recovery=spread([time for one in outcomes for time in one.recovery_times]) if served else None,
        longest_outage=spread([one.longest_outage for one in served]) if served else None,
        elections_per_seed=fmean(elections) if elections else None,
        new_leader=spread([time for one in outcomes for time in one.election_times]) if elections else None,
        reads=sum(one.reads for one in stale) if stale else None,
        stale_reads=sum(one.stale for one in stale) if stale else None,
        siblings=sum(one.siblings for one in stale) if stale else None,
        oldest_read=spread([one.oldest for one in stale if one.stale]) if stale else None,
        detection=_detection([one.detection for one in outcomes if one.detection is not None]),
        takeover=_takeover([one.takeover for one in outcomes if one.takeover is not None]),
        replication=_replication([one.replication for one in outcomes if one.replication is not None]),
    )


def _detection(seeds: Sequence[Detection]) -> DetectionRates | None:
    if not seeds:
        return None
    failures = [failure for one in seeds for failure in one.detected]
    return DetectionRates(
        first=spread([failure.first for failure in failures]),
        last=spread([failure.last for failure in failures]),
        back=spread([failure.back for failure in failures]),
        false_positives=sum(one.false_positives for one in seeds),
        mistaken_seeds=sum(one.false_positives > 0 for one in seeds),
        longest_mistake=spread([one.longest_mistake for one in seeds if one.longest_mistake is not None]),
        unresolved=sum(one.unresolved for one in seeds),
        unsettled=spread([one.unsettled for one in seeds if one.unsettled is not None]),
        messages_per_second=fmean(one.messages_per_second for one in seeds),
        most_messages_per_second=max(one.most_messages_per_second for one in seeds),
    )


def _takeover(seeds: Sequence[Takeover]) -> TakeoverRates | None:
    if not seeds:
        return None
    return TakeoverRates(
        share=fmean(one.service.share for one in seeds),
        least_share=min(one.service.share for one in seeds),
        unserved=spread([gap for one in seeds for gap in one.service.gaps]),
        longest=spread([one.service.longest for one in seeds]),
        moves_per_seed=fmean(one.service.moves for one in seeds),
        reintegration=spread([back.took for one in seeds for back in one.reintegrated]),
    )


def _replication(seeds: Sequence[Replication]) -> ReplicationRates | None:
    if not seeds:
        return None
    names = ReplicationRates.__struct_fields__
    return ReplicationRates(**{name: sum(getattr(one, name) for one in seeds) for name in names})


def spread(times: Sequence[int | None]) -> Spread:
    """Nearest-rank percentiles of the ``times`` that there are."""
    came = sorted(time for time in times if time is not None)
    if not came:
        return Spread(0, len(times), None, None, None)
    last = len(came) - 1
    return Spread(len(came), len(times) - len(came), came[last // 2], came[last * 99 // 100], came[-1])
