"""What a run shows, in whichever world it was played, and whether two worlds show the same but for a margin.

That two worlds do not differ at all cannot be shown; that they differ by less than a margin can. `Ratio.within` is such
a test of equivalence (two one-sided tests: Schuirmann 1987): the worlds count as alike only if the whole 90 %
confidence interval of the ratio lies within the margin, so that both "more than it" and "less than its inverse" are
refuted at 5 %. Too few or too scattered observations are therefore apart, not alike. The interval is bootstrapped
(Efron 1979, the percentile method) from what may be taken for independent: faults; and of operations tenths of a
second, since those close in time wait in the same queues (blocks: Künsch 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, TypeVar

import msgspec

from experiments.checking.availability import is_served
from experiments.checking.fault_record import FaultRecord, read_faults
from experiments.checking.history import Operation, operations, read_history
from experiments.checking.results import Results

T = TypeVar("T")

#: Resamples of a bootstrap, and the seed of its draws: the same samples always have the same interval.
RESAMPLES, SEED = 1_000, 1987

#: The risk of each of the two one-sided tests.
LEVEL = 0.05

#: Latencies are of operations that began when connections were warm, and ended before the first fault.
WARM_NS = 500_000_000

#: What a block of operations is, in nanoseconds.
BLOCK_NS = 100_000_000

# ---------------------------------------------------------------------------------------------------------------------
# The scenarios that both worlds play

_FABRIC = "[topology]\nspines = 2\nleaves = 3\nhosts_per_leaf = 4\n"


def _fault(kind: str, at: int, lasts: int, whom: str) -> str:
    """Times in milliseconds."""
    return f'[[fault]]\nkind = "{kind}"\nat = "{at}ms"\nfor = "{lasts}ms"\n{whom}\n'


#: The leader is cut off from the others again and again: every time they elect another, and clients, who are patient
#: for a fraction of an election, lose what they ask for meanwhile.
RAFT = (
    'duration = "17500ms"\n'
    + _FABRIC
    + '[system]\nkind = "raft"\nnodes = 5\nelection_timeout = ["300ms", "600ms"]\n'
    + '[workload]\nclients = 5\nrate = 100\nkeys = 6\ntimeout = "200ms"\n'
    + "".join(_fault("partition", 2000 + 2200 * n, 1200, 'groups = [["leader"], ["others"]]') for n in range(7))
)

#: Two of five nodes, whom the seed draws each time, are cut off: a strict quorum refuses what it has too few copies of.
#: Hosts are 10 ms apart, so that latencies are the network's doing on a busy machine, too.
QUORUM = (
    'duration = "13s"\n'
    + _FABRIC
    + '[topology.link."h*-leaf*"]\ndelay = "5ms"\n'
    + '[system]\nkind = "quorum"\nnodes = 5\nquorum = "strict"\npatience = "100ms"\ntimeout = "200ms"\n'
    + '[workload]\nclients = 5\nrate = 100\nkeys = 10\ntimeout = "2s"\n'
    + "".join(_fault("partition", 2000 + 1800 * n, 1300, 'groups = [["minority"], ["majority"]]') for n in range(6))
)

#: Nothing happens, for whoever wants to know how long reads and writes take.
CALM = (
    'duration = "5s"\n'
    + _FABRIC
    + '[system]\nkind = "raft"\nnodes = 5\n'
    + "[workload]\nclients = 4\nrate = 40\nkeys = 5\nmix = { read = 0.5, write = 0.5 }\n"
)

#: Members fall silent one after another: three that run, and nobody hears them; one that stands still; one that dies.
DETECTOR = (
    'duration = "14s"\n'
    + _FABRIC
    + '[system]\nkind = "heartbeat"\nnodes = 5\ninterval = "100ms"\ntimeout = "800ms"\n'
    + '[workload]\nkind = "none"\n'
    + _fault("mute", 1000, 1300, 'nodes = ["n2"]')
    + _fault("partition", 3500, 1300, 'groups = [["n3"], ["others"]]')
    + _fault("mute", 6000, 1300, 'nodes = ["n4"]')
    + _fault("pause", 8500, 1300, 'nodes = ["n5"]')
    + _fault("kill", 11000, 1300, 'nodes = ["n1"]')
)

# ---------------------------------------------------------------------------------------------------------------------
# What a run shows


class Shown(msgspec.Struct, frozen=True):
    """One run's evidence, of either world. Times in nanoseconds; infinite for what never came.

    ``elections``: from each fault that took the leader to the next election. ``lost``: of each fault, how many of the
    operations that began while it lasted were not served, and how many began. ``reads`` and ``writes``: how long those
    that were served took before the first fault, in blocks of a tenth of a second. ``detections``: of each member that
    failed, how long it took until the first of the others knew and until all did.
    """

    elections: list[float]
    lost: list[tuple[int, int]]
    reads: list[list[int]]
    writes: list[list[int]]
    detections: list[tuple[float, float]]


def shown(run: Path, results: Results) -> Shown:
    """What the run in the folder ``run`` shows, of which ``results`` were found."""
    faults = read_faults(run / "faults.jsonl")
    done = operations(read_history(run / "history.jsonl")) if (run / "history.jsonl").exists() else []
    elections = results.availability.new_leader.values() if results.availability else ()
    detected = results.detection.detected if results.detection else ()
    return Shown(
        [_or_never(time) for time in elections],
        [_lost(done, fault) for fault in faults] if done else [],
        _latencies(done, faults, "read"),
        _latencies(done, faults, "write"),
        [(_or_never(one.first), _or_never(one.last)) for one in detected],
    )


def _or_never(time: int | None) -> float:
    return math.inf if time is None else time


def _lost(done: Sequence[Operation], fault: FaultRecord) -> tuple[int, int]:
    # From when it was asked for: a fabric strikes at some time from then until it is said to be applied.
    assert fault.asked is not None
    assert fault.healed_at is not None
    begun = [one for one in done if fault.asked.t <= one.invoke < fault.healed_at]
    return sum(not is_served(one) for one in begun), len(begun)


def _latencies(done: Sequence[Operation], faults: Sequence[FaultRecord], f: str) -> list[list[int]]:
    first = min((fault.asked.t for fault in faults if fault.asked), default=math.inf)
    blocks: dict[int, list[int]] = {}
    for one in done:
        if one.f == f and is_served(one) and one.complete is not None and WARM_NS <= one.invoke < one.complete < first:
            blocks.setdefault(one.invoke // BLOCK_NS, []).append(one.complete - one.invoke)
    return [blocks[block] for block in sorted(blocks)]


def asked(run: Path) -> list[Any]:
    """What the faults' schedule is, as far as the scenario and its seed decide: whom a role of leadership stands for
    depends on who leads, and when exactly a fault strikes on the machine.
    """
    schedule: dict[int, list[Any]] = {}
    path = run / "faults.jsonl"
    for step in map(msgspec.json.decode, path.read_bytes().splitlines() if path.exists() else ()):
        if step["step"] == "asked":
            schedule[step["fault"]] = [step["kind"], step["asked"]]
        elif step["step"] == "applied" and not step["resolved"].get("leader"):
            schedule[step["fault"]].append({**step["resolved"], "leader": None})
    return [schedule[fault] for fault in sorted(schedule)]


Vocabulary = dict[str, set[frozenset[str]]]


def vocabulary(runs: Iterable[Path]) -> Vocabulary:
    """Every kind of event in the traces, the histories and the records of faults, and every set of fields it has."""
    found: Vocabulary = {}
    for run in runs:
        traces = {f"{path}": "trace" for path in run.glob("nodes/*/trace/[0-9]*.ndjson")}
        histories = {f"{path}": "history" for path in run.glob("clients/*/trace/history.ndjson")}
        faults = {f"{path}": "fault" for path in run.glob("faults.jsonl")}
        for path, what in (traces | histories | faults).items():
            data = Path(path).read_bytes()
            # A process that was killed may have been writing its last line.
            for event in map(msgspec.json.decode, data[: data.rfind(b"\n") + 1].splitlines()):
                name = {"trace": ("ev",), "history": ("type",), "fault": ("kind", "step")}[what]
                found.setdefault(" ".join([what, *(event[key] for key in name)]), set()).add(frozenset(event))
    return found


def unshared(ours: Vocabulary, theirs: Vocabulary, chance: Mapping[str, str]) -> list[str]:
    """What one of two vocabularies has and the other has not, a sentence each. ``chance``: kinds of events that may be
    missing, with the reason; where both have one, it must look the same all the same.
    """
    problems = []
    for kind in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(kind), theirs.get(kind)
        if one is None or other is None:
            if kind not in chance:
                problems.append(f"{kind}: only the {'second' if one is None else 'first'} world knows it")
        elif one != other:
            problems += [f"{kind}: only one world has {' '.join(sorted(fields))}" for fields in one ^ other]
    return problems


# ---------------------------------------------------------------------------------------------------------------------
# Whether it is the same


class Ratio(msgspec.Struct, frozen=True):
    """How many times as large something is in one world as in the other, with its 90 % confidence interval."""

    estimate: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether it is certain to be less than ``margin`` times, and more than one ``margin``-th."""
        return 1 / margin < self.low and self.high < margin

    def __str__(self) -> str:
        return f"{self.estimate:.2f} times (90 %: {self.low:.2f} to {self.high:.2f})"


def ratio(
    ours: Sequence[T], theirs: Sequence[T], statistic: Callable[[Sequence[T]], float], paired: bool = False
) -> Ratio:
    """The ``statistic`` of ``ours`` over that of ``theirs``, each a sample of independent observations. ``paired``:
    those at the same place are of the same thing, and are drawn together.

    Raises `ValueError` where one is empty, or where they cannot be paired.
    """
    if not ours or not theirs or (paired and len(ours) != len(theirs)):
        raise ValueError(f"{len(ours)} observations beside {len(theirs)} cannot be compared")
    draw = Random(SEED).random

    def places(sample: Sequence[T]) -> list[int]:
        return [int(draw() * len(sample)) for _ in sample]

    def resampled() -> float:
        one = places(ours)
        other = one if paired else places(theirs)
        return _quotient(statistic([ours[at] for at in one]), statistic([theirs[at] for at in other]))

    drawn = sorted(resampled() for _ in range(RESAMPLES))
    tail = int(LEVEL * RESAMPLES)
    return Ratio(_quotient(statistic(ours), statistic(theirs)), drawn[tail], drawn[-1 - tail])


def _quotient(one: float, other: float) -> float:
    """What never came, or what is missing on one side, is infinitely far from what did and is."""
    if one == other and other in (0, math.inf):
        return 1.0
    return one / other if other else math.inf


def pooled_median(blocks: Sequence[Sequence[float]]) -> float:
    return median(chain.from_iterable(blocks))


def upper_quartile(times: Sequence[float]) -> float:
    return sorted(times)[len(times) * 3 // 4]


def share(counts: Sequence[tuple[int, int]]) -> float:
    """Of (some, all), all observations together."""
    return sum(some for some, _ in counts) / max(1, sum(every for _, every in counts))


class Compared(msgspec.Struct, frozen=True):
    """``what`` was compared, how often it was seen in either world, and what came of it."""

    what: str
    ours: int
    theirs: int
    ratio: Ratio
    margin: float

    @property
    def is_alike(self) -> bool:
        return self.ratio.within(self.margin)

    def __str__(self) -> str:
        return f"{self.what}: {self.ours} beside {self.theirs}, {self.ratio}, {self.margin:g} allowed"


#: What is compared: how it is taken from runs, its statistic, and the margin. Elections and detections are mostly the
#: timeouts' doing; losses depend on elections and on what clients had under way; latencies on the machine's mood.
_MEASURES: dict[str, tuple[Callable[[Shown], Sequence[Any]], Callable[[Sequence[Any]], float], float]] = {
    "time to a new leader": (lambda run: run.elections, median, 1.4),
    "upper quartile of times to a new leader": (lambda run: run.elections, upper_quartile, 1.4),
    "share of operations lost": (lambda run: run.lost, share, 1.6),
    "share of operations refused": (lambda run: run.lost, share, 1.4),
    "latency of reads": (lambda run: run.reads, pooled_median, 1.4),
    "latency of writes": (lambda run: run.writes, pooled_median, 1.4),
    "latency of reads across slow links": (lambda run: run.reads, pooled_median, 1.2),
    "latency of writes across slow links": (lambda run: run.writes, pooled_median, 1.2),
    "time to a detection": (lambda run: run.detections, pooled_median, 1.2),
}


def compared(what: str, ours: Iterable[Shown], theirs: Iterable[Shown], paired: bool = False) -> Compared:
    """``paired``: the runs at the same place had the same seed, and it matters what that drew. Raises as `ratio`."""
    take, statistic, margin = _MEASURES[what]
    one, other = ([*chain.from_iterable(map(take, runs))] for runs in (ours, theirs))
    return Compared(what, len(one), len(other), ratio(one, other, statistic, paired), margin)
