"""``splitbrain compare``: two runs side by side, where they differ, and what of what was recorded explains it.

Two plays of one scenario, on a bare machine and in a virtual one, or on stand-ins and on the kernel's own, are to come
to one verdict; their times are not, and this says why. It reads ``manifest.json`` and ``results.json``, and judges
nothing anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.checking.results import Availability, Check, Fidelity, Results, Valid
from experiments.report.record import ReportError
from experiments.report.words import plural, share, span

T = TypeVar("T")

#: Shares of served operations that are nearer to each other than this are not told apart.
SAME_SHARE = 0.01

#: Times of which the longer is not this many times the shorter are not told apart.
SAME_TIME = 1.5

#: Of the scenario, what names or describes it and does not make it another experiment.
_LABELS = ("name", "description", "seed", "time_scale", "requires", "captures")


class Played(msgspec.Struct, frozen=True):
    """The part of a ``manifest.json`` that two runs are compared by (docs/run-folder.md)."""

    seed: int = 0
    world: str = ""
    time_scale: float = 1.0
    scenario: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    placement: dict[str, str] = {}
    machine: dict[str, Any] = {}
    backends: dict[str, str] = {}
    versions: dict[str, str] = {}


class Side(msgspec.Struct, frozen=True):
    """A run: its folder, what was played, and what came of it."""

    path: str
    played: Played
    results: Results


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not the same. ``kind``: the ``verdict``, what was ``asked``, ``where`` it ran, or what was
    ``measured``. ``a`` and ``b`` are as a person reads them; ``why`` is what explains it, empty for a cause."""

    kind: Literal["verdict", "asked", "where", "measured"]
    what: str
    a: str
    b: str
    why: str = ""


class Row(msgspec.Struct, frozen=True):
    """A figure of both, the same or not."""

    what: str
    a: str
    b: str


class Comparison(msgspec.Struct, frozen=True):
    """``same_experiment``: both were asked the same, but for the seed. ``same_verdict``: of the run, and each check.

    ``exit_status``: 0 for the same verdict, 1 for another, 2 where one of them is unknown.
    """

    a: str
    b: str
    exit_status: int
    same_experiment: bool
    same_verdict: bool
    summary: str
    differences: list[Difference]
    figures: list[Row]


def compare(a: Path, b: Path) -> Comparison:
    """Compare the runs in two folders. Raises `ReportError` for one that is no run's, or that has no verdict."""
    return contrast(_read(a), _read(b))


def contrast(a: Side, b: Side) -> Comparison:
    """The same of runs that were read."""
    verdict = list(_verdicts(a.results, b.results))
    asked = list(_asked(a.played, b.played))
    where = list(_where(a.played, b.played))
    measured = list(_measured(a, b, asked, where))
    same_experiment = all(difference.what == "seed" for difference in asked)
    unknown = "unknown" in (a.results.valid, b.results.valid)
    return Comparison(
        a.path,
        b.path,
        2 if unknown else 1 if verdict else 0,
        same_experiment,
        not verdict,
        _summary(verdict, asked, where, measured, a, b),
        [*verdict, *asked, *where, *measured],
        list(_figures(a, b)),
    )


def show(console: Console, found: Comparison) -> None:
    """The answer, what is not the same and why, then the figures of both."""
    sign, style = ("✔", "green") if found.same_verdict else ("✘", "red")
    console.print(Text.assemble((f"{sign} ", f"bold {style}"), (found.summary, "bold")))
    console.print(Text(f"  A  {found.a}\n  B  {found.b}", style="dim"), soft_wrap=True)
    for kind, title in _TITLES.items():
        some = [difference for difference in found.differences if difference.kind == kind]
        if some:
            table = Table("", "A", "B", "why" if any(one.why for one in some) else "", **_plain)
            for one in some:
                table.add_row(one.what, one.a, one.b, Text(one.why, style="dim"))
            console.print(Text(f"\n{title}", style="bold"), table)
    table = Table("", "A", "B", **_plain)
    for row in found.figures:
        table.add_row(row.what, row.a, row.b)
    console.print(Text("\nFigures", style="bold"), table)


def page(found: Comparison) -> str:
    """The same as one self-contained page."""
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    state, word = {0: ("held", "The same."), 1: ("broken", "Not the same.")}.get(
        found.exit_status, ("doubtful", "Unknown.")
    )
    return environment.from_string((here / "compare.html").read_text(encoding="utf-8")).render(
        found=found,
        titles=_TITLES,
        state=state,
        word=word,
        style=(here / "report" / "page.css").read_text(encoding="utf-8"),
    )


_TITLES = {
    "verdict": "The verdicts",
    "asked": "Not asked the same",
    "where": "Not run on the same",
    "measured": "Measured otherwise",
}

_plain: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "header_style": "dim"}


def _read(run: Path) -> Side:
    if not run.is_dir():
        raise ReportError(f"{run}: no such folder; give the folder of a run, such as runs/<scenario>/<time>-<seed>")
    played = _document(run / "manifest.json", Played, "it is no run's folder")
    results = _document(
        run / "results.json", Results, f"the run did not end; `splitbrain check {run}` judges what it left"
    )
    return Side(str(run), played, results)


def _document(path: Path, kind: type[T], without: str) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise ReportError(f"{path}: not there: {without}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise ReportError(f"{path}: cannot be read: {error}") from error


# ---------------------------------------------------------------------------------------------------------------------
# What is not the same


def _verdicts(a: Results, b: Results) -> Iterator[Difference]:
    if a.valid != b.valid:
        yield Difference("verdict", "the run", _said(a.valid), _said(b.valid), _doubts(a, b))
    mine, others = ({check.name: check for check in results.checks} for results in (a, b))
    for name in dict.fromkeys([*mine, *others]):
        left, right = mine.get(name), others.get(name)
        if left is None or right is None:
            there = left or right
            assert there is not None, "it is one of theirs"
            yield Difference(
                "verdict",
                name,
                _kept(left) if left else "not checked",
                _kept(right) if right else "not checked",
                "only one of them was asked this, or left what it takes",
            )
        elif left.valid != right.valid:
            broken = left if left.valid is not True else right
            yield Difference("verdict", name, _kept(left), _kept(right), broken.summary)


def _doubts(a: Results, b: Results) -> str:
    return "; ".join(
        f"{name} is not to be believed: {', '.join(results.believable.reasons)}"
        for name, results in (("A", a), ("B", b))
        if results.believable.reasons
    )


def _asked(a: Played, b: Played) -> Iterator[Difference]:
    if a.seed != b.seed:
        yield Difference("asked", "seed", str(a.seed), str(b.seed), "other operations, timeouts and choices of targets")
    if a.time_scale != b.time_scale:
        why = "every duration and timeout is stretched by it: times do not compare"
        yield Difference("asked", "time_scale", f"{a.time_scale:g}", f"{b.time_scale:g}", why)
    else:  # durations that a time_scale has stretched are no differences of their own
        kept = [{key: value for key, value in one.scenario.items() if key not in _LABELS} for one in (a, b)]
        for what, left, right in _unequal(kept[0], kept[1], "scenario"):
            yield Difference("asked", what, left, right)
    for what, mine, others in (("plan", a.plan, b.plan), ("placement", a.placement, b.placement)):
        for key, left, right in _unequal(mine, others, what):
            yield Difference("asked", key, left, right)


def _where(a: Played, b: Played) -> Iterator[Difference]:
    if a.world != b.world:
        yield Difference("where", "world", a.world, b.world, "simulated: time costs nothing, and no kernel takes part")
    for key, left, right in _unequal(a.backends, b.backends, "backends"):
        yield Difference("where", key, left, right, _BACKENDS.get(key, ""))
    for key, left, right in _unequal(a.machine, b.machine, "machine"):
        yield Difference("where", key, left, right, _MACHINE.get(key, ""))
    for key, left, right in _unequal(a.versions, b.versions, "versions"):
        yield Difference("where", key, left, right)


#: What follows from other backends, and another machine, as far as one can say without having measured it.
_BACKENDS = {
    "backends.datapath": "a packet costs more in user space (netdev) than in the kernel (system)",
    "backends.impairment": "equal within docs/benchmarks.md's margins; under loss netem drops whole TCP segments",
}
_MACHINE = {
    "machine.virtual": "virtual processors are late when their host is; emulated ones are slower throughout",
    "machine.cores": "processes that wait for a processor are late",
    "machine.kernel": "other schedulers, queues and TCP",
}


def _measured(a: Side, b: Side, asked: Sequence[Difference], where: Sequence[Difference]) -> Iterator[Difference]:
    left, right = a.results.availability, b.results.availability
    timeout = a.played.scenario.get("system", {}).get("election_timeout")
    spread = timeout[1] - timeout[0] if timeout else 0
    why = _Why(asked, where, a.results.fidelity, b.results.fidelity, spread)
    if left is not None and right is not None:
        if left.share is not None and right.share is not None and abs(left.share - right.share) > SAME_SHARE:
            yield Difference("measured", "served", share(left.share), share(right.share), why.of_share())
        for what, mine, others in _times(left, right):
            if not _alike(mine, others):
                yield Difference("measured", what, _time(mine), _time(others), why.of_times(what, mine, others))
    obtained, also = a.results.fidelity.calibration, b.results.fidelity.calibration
    for direction in sorted({*obtained} & {*also}):
        for name, key in (("delay", "delay_mean"), ("jitter", "jitter"), ("loss", "loss")):
            mine, others = obtained[direction].get(f"{key}_interval"), also[direction].get(f"{key}_interval")
            if mine and others and (mine[1] < others[0] or others[1] < mine[0]):
                write = share if key == "loss" else span
                shown = [f"{write(low)} to {write(high)}" for low, high in (mine, others)]
                backends = [one[direction].get("backend", "the bare link") for one in (obtained, also)]
                yield Difference(
                    "measured",
                    f"{name} of {direction}",
                    shown[0],
                    shown[1],
                    f"their 95 % intervals are apart: {' and '.join(backends)} on these machines did not do the same",
                )


class _Why:
    """What of all that was recorded explains a time or a share that is not the same; the first that does is told."""

    def __init__(
        self, asked: Sequence[Difference], where: Sequence[Difference], a: Fidelity, b: Fidelity, spread: int
    ) -> None:
        self._asked = [difference.what for difference in asked if difference.what != "seed"]
        self._seeds = any(difference.what == "seed" for difference in asked)
        self._elsewhere = [difference.what.rpartition(".")[2] for difference in where if difference.why]
        self._lags = (a.loop_lag_p99 or 0, b.loop_lag_p99 or 0)
        self._spread = spread

    def of_times(self, what: str, a: int | None, b: int | None) -> str:
        if self._asked:
            return self._not_asked()
        if a is None or b is None:
            return "it came to that in one of them only"
        apart = abs(a - b)
        late = abs(self._lags[0] - self._lags[1])
        if late >= apart / 2:
            worse = "A" if self._lags[0] > self._lags[1] else "B"
            return f"{worse}'s event loops ran {span(max(self._lags))} late (p99), the other's {span(min(self._lags))}"
        if self._spread and apart <= self._spread:
            return f"chance: election timeouts are drawn from {span(self._spread)}"
        return self._otherwise()

    def of_share(self) -> str:
        return self._not_asked() if self._asked else self._otherwise()

    def _not_asked(self) -> str:
        return f"they were not asked the same: {', '.join(self._asked[:3])}"

    def _otherwise(self) -> str:
        if self._seeds:
            return "their seeds are not the same"
        if self._elsewhere:
            return f"nothing measured explains it; they ran on another {', '.join(self._elsewhere)}"
        return "nothing recorded explains it: play each several times (-n) before you believe it"


def _times(a: Availability, b: Availability) -> Iterator[tuple[str, int | None, int | None]]:
    yield "longest outage", a.longest_outage, b.longest_outage
    for what, mine, others in (
        ("interruption by fault", a.interruption, b.interruption),
        ("recovery from fault", a.recovery, b.recovery),
        ("new leader after fault", a.new_leader, b.new_leader),
    ):
        for fault in sorted({*mine, *others}, key=int):
            yield f"{what} {int(fault) + 1}", mine.get(fault), others.get(fault)


def _alike(a: int | None, b: int | None) -> bool:
    if a is None or b is None:
        return a is b
    return max(a, b) <= SAME_TIME * min(a, b)


# ---------------------------------------------------------------------------------------------------------------------
# In words


def _summary(
    verdict: Sequence[Difference],
    asked: Sequence[Difference],
    where: Sequence[Difference],
    measured: Sequence[Difference],
    a: Side,
    b: Side,
) -> str:
    if not verdict:
        said = f"the same verdict, {_said(a.results.valid)}"
    elif a.results.valid != b.results.valid:
        said = f"other verdicts, {_said(a.results.valid)} and {_said(b.results.valid)}"
    else:
        said = f"{_said(a.results.valid)} in both, but not every check alike"
    other = [difference.what for difference in asked if difference.what != "seed"]
    seeds = ", with another seed" if len(asked) > len(other) else ""
    same = f"Experiments that differ in {plural(len(other), 'thing')}" if other else f"The same experiment{seeds}"
    on = [f"{one.a} and {one.b}" for one in where if one.what in _NAMED]
    times = f"{plural(len(measured), 'figure')} measured otherwise" if measured else "nothing measured otherwise"
    return f"{same}{', on ' if on else ''}{', '.join(on)}: {said}; {times}."


#: What tells two places to run on apart, in a sentence.
_NAMED = ("world", "backends.datapath", "backends.impairment", "machine.virtual")


def _figures(a: Side, b: Side) -> Iterator[Row]:
    def row(what: str, of: Any) -> Row:
        return Row(what, *(_shown(of(side)) for side in (a, b)))

    yield row("verdict", lambda side: _said(side.results.valid))
    yield row("time_scale", lambda side: f"{side.played.time_scale:g}")
    left, right = a.results.availability, b.results.availability
    if left is not None and right is not None:
        yield row("operations", lambda side: f"{side.results.availability.operations:,}")
        yield row("served", lambda side: side.results.availability.share and share(side.results.availability.share))
        for what, mine, others in _times(left, right):
            yield Row(what, _time(mine), _time(others))
    yield row("leaders", lambda side: len(side.results.leaders))
    yield row("event loops late, 99th percentile", lambda side: _time(side.results.fidelity.loop_lag_p99))
    yield row(
        "processors' time left",
        lambda side: None if side.results.fidelity.cpu_headroom is None else share(side.results.fidelity.cpu_headroom),
    )


def _unequal(a: Any, b: Any, name: str) -> Iterator[tuple[str, str, str]]:
    """The leaves at which two documents differ, as (dotted name, a's, b's)."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from _unequal(a.get(key), b.get(key), f"{name}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _unequal(left, right, f"{name}[{number}]")
    elif a != b:
        yield name, _shown(a), _shown(b)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:59]}…"


def _kept(check: Check) -> str:
    return "unknown" if check.valid == "unknown" else "kept" if check.valid else "broken"


def _said(valid: Valid) -> str:
    return "unknown" if valid == "unknown" else "every promise kept" if valid else "a promise broken"


def _time(nanoseconds: int | None) -> str:
    return "–" if nanoseconds is None else span(nanoseconds)
