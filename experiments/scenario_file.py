"""Reading a scenario from TOML. The file is checked whole, and every problem is told at once with its key and line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from experiments.scenario import (
    ROLES,
    Dataplane,
    Expect,
    Fault,
    Impair,
    Kill,
    LinkDown,
    Partition,
    Raft,
    Register,
    Requirement,
    Scenario,
    ScenarioError,
    Topology,
    directions,
    links,
    place,
    scale,
)
from topologies.impairment import Impairment
from topologies.plan import FabricPlan, PlanError
from topologies.units import UnitError, format_duration, parse_duration, parse_rate, parse_share

T = TypeVar("T")


def load(path: Path) -> Scenario:
    """The scenario in a TOML file. Raises `ScenarioError` with every problem in it, OSError if it can't be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return parse(text, str(path))


def parse(text: str, source: str = "scenario") -> Scenario:
    """The scenario that ``text`` describes; ``source`` is what error messages call it. Raises `ScenarioError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source}: not valid TOML: {error}") from None
    problems: list[tuple[str, str]] = []
    root = _Table(document, "", problems)

    name = root.take("name", _text, default=Path(source).stem)
    seed = root.take("seed", _whole(0), default=1)
    duration = root.take("duration", _positive_duration, default=0, required=True)
    time_scale = root.take("time_scale", _number(0.01), default=1.0)
    requires: tuple[Requirement, ...] = root.take("requires", _requirements, default=())
    topology = _topology(root.table("topology"))
    system = _system(root.table("system"))
    workload = _workload(root.table("workload"))
    expect = _expect(root.table("expect"))

    plan: FabricPlan | None = None
    try:
        plan = topology.plan()
    except PlanError as error:
        problems.append(("topology", str(error)))
    faults = [
        fault
        for number, entry in enumerate(root.tables("fault"))
        if (fault := _fault(_Table(entry, f"fault[{number}]", problems), duration, plan, system)) is not None
    ]
    root.finish()
    if plan is not None and not problems:
        try:
            place(plan, system, workload)
        except ScenarioError as error:
            problems += [(line.partition(":")[0], line.partition(": ")[2]) for line in str(error).splitlines()]
    if problems or plan is None:
        placed = sorted((_line_of(text, key) or 0, key, what) for key, what in problems)
        raise ScenarioError("\n".join(f"{source}:{line or 1}: {key}: {what}" for line, key, what in placed))
    scenario = Scenario(
        name=name,
        description=_opening_comment(text),
        seed=seed,
        duration=duration,
        plan=plan,
        system=system,
        workload=workload,
        faults=tuple(faults),
        expect=expect,
        time_scale=time_scale,
        toml=text,
        requires=requires,
    )
    return scale(scenario)


class _Table:
    """A TOML table being read: hands out each key once, notes what is wrong, and at the end what nobody asked for."""

    def __init__(self, values: Mapping[str, Any], path: str, problems: list[tuple[str, str]]) -> None:
        self.values = dict(values)
        self.path = path
        self.problems = problems
        self.asked: list[str] = []

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, what: str) -> None:
        self.problems.append((self.key(name), what))

    def take(self, name: str, parse: Callable[[Any], T], default: T, required: bool = False) -> T:
        self.asked.append(name)
        if name not in self.values:
            if required:
                self.problems.append((self.key(name), "is missing"))
            return default
        try:
            return parse(self.values.pop(name))
        except UnitError as error:
            self.wrong(name, str(error))
            return default

    def table(self, name: str) -> _Table:
        self.asked.append(name)
        value = self.values.pop(name, {})
        if not isinstance(value, Mapping):
            self.wrong(name, f"{value!r} is not a table; write it under [{self.key(name)}]")
            value = {}
        return _Table(value, self.key(name), self.problems)

    def tables(self, name: str) -> list[Mapping[str, Any]]:
        self.asked.append(name)
        value = self.values.pop(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            self.wrong(name, f"must be a list of tables, each under [[{self.key(name)}]]")
            return []
        return value

    def finish(self) -> None:
        for name in self.values:
            close = difflib.get_close_matches(name, self.asked, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(self.asked)}"
            self.wrong(name, f"unknown key; {hint}")


def _topology(table: _Table) -> Topology:
    kind = table.take("kind", _choice("leaf-spine"), default="leaf-spine")
    spines = table.take("spines", _whole(1), default=2)
    leaves = table.take("leaves", _whole(1), default=3)
    hosts_per_leaf = table.take("hosts_per_leaf", _whole(1), default=4)
    dataplane: Dataplane = table.take("dataplane", _choice("ovs", "routed"), default="ovs")
    bfd_interval = table.take("bfd", _bfd_interval, default=0)
    impairments: dict[str, Impairment] = {}
    weights: dict[str, int] = {}
    links_table = table.table("link")
    for name, value in list(links_table.values.items()):
        entry = links_table.table(name)
        entry.path = f'{links_table.path}."{name}"'
        del value
        if (weight := entry.take("weight", _weight, default=1)) != 1:
            weights[name] = weight
            if ">" in name:
                entry.wrong("weight", "both directions of a link have its weight; name the link, not a direction")
        impairments[name] = _impairment(entry)
        if impairments[name] == Impairment():
            del impairments[name]
        entry.finish()
        if not table.problems:
            try:
                directions(Topology(kind, spines, leaves, hosts_per_leaf).plan(), (name,))
            except PlanError as error:
                table.problems.append((entry.path, str(error)))
                impairments.pop(name, None)
                weights.pop(name, None)
    table.finish()
    return Topology(kind, spines, leaves, hosts_per_leaf, impairments, bfd_interval, weights, dataplane)


def _system(table: _Table) -> Raft:
    table.take("kind", _choice("raft"), default="raft")
    default = Raft()
    system = Raft(
        nodes=table.take("nodes", _whole(1), default=default.nodes),
        placement=table.take("placement", _texts, default=()),
        election_timeout=table.take("election_timeout", _span, default=default.election_timeout),
        heartbeat_interval=table.take("heartbeat_interval", _positive_duration, default=0),
        pre_vote=table.take("pre_vote", _flag, default=True),
        check_quorum=table.take("check_quorum", _flag, default=True),
        implementation=table.take("implementation", _function, default=""),
    )
    if system.heartbeat_interval >= system.election_timeout[0]:
        table.wrong(
            "heartbeat_interval",
            f"{format_duration(system.heartbeat_interval)} must be shorter than the shortest election timeout, "
            f"{format_duration(system.election_timeout[0])}, or followers never stop electing",
        )
    table.finish()
    return system


def _workload(table: _Table) -> Register:
    table.take("kind", _choice("register"), default="register")
    default = Register()
    workload = Register(
        clients=table.take("clients", _whole(1), default=default.clients),
        rate=table.take("rate", _number(0.001), default=default.rate),
        keys=table.take("keys", _whole(1), default=default.keys),
        mix=table.take("mix", _mix, default=default.mix),
        timeout=table.take("timeout", _positive_duration, default=default.timeout),
        placement=table.take("placement", _texts, default=()),
    )
    table.finish()
    return workload


def _expect(table: _Table) -> Expect:
    expect = Expect(
        linearizable=table.take("linearizable", _flag, default=True),
        recovery=table.take("recovery", _positive_duration, default=None),
        election=table.take("election", _positive_duration, default=None),
        availability=table.take("availability", parse_share, default=None),
        leader_changes=table.take("leader_changes", _whole(0), default=None),
    )
    table.finish()
    return expect


def _fault(table: _Table, duration: int, plan: FabricPlan | None, system: Raft) -> Fault | None:
    kinds = ("partition", "link-down", "impair", "kill")
    before = len(table.problems)
    kind = table.take("kind", _choice(*kinds), default=None, required=True)
    at = table.take("at", parse_duration, default=0, required=True)
    lasts = table.take("for", _positive_duration, default=0, required=True)
    if duration and at + lasts > duration:
        table.wrong(
            "for" if at < duration else "at",
            f"the fault ends at {format_duration(at + lasts)}, past the end of "
            f"the scenario ({format_duration(duration)}); shorten it or lengthen the scenario's duration",
        )
    fault: Fault | None = None
    if kind == "partition":
        groups: tuple[tuple[str, ...], ...] = table.take("groups", _groups, default=(), required=True)
        _check_groups(table, groups, system)
        fault = Partition(groups, at, lasts)
    elif kind == "kill":
        nodes: tuple[str, ...] = table.take("nodes", _texts, default=(), required=True)
        for name in nodes:
            _check_target(table, "nodes", name, system)
        fault = Kill(nodes, at, lasts)
    elif kind == "link-down":
        names: tuple[str, ...] = table.take("links", _texts, default=(), required=True)
        _check_links(table, names, plan, links)
        fault = LinkDown(names, at, lasts)
    elif kind == "impair":
        names = table.take("links", _texts, default=(), required=True)
        _check_links(table, names, plan, directions)
        impairment = _impairment(table)
        if impairment == Impairment():
            table.wrong("kind", "impairs nothing; give it delay, jitter, loss or rate")
        fault = Impair(names, impairment, at, lasts)
    if kind is not None:
        table.finish()
    return fault if len(table.problems) == before else None


def _impairment(table: _Table) -> Impairment:
    delay = table.take("delay", parse_duration, default=0)
    jitter = table.take("jitter", parse_duration, default=0)
    if jitter > delay:
        table.wrong(
            "jitter",
            f"larger than the delay ({format_duration(jitter)} > {format_duration(delay)}); "
            "no packet can arrive before it was sent",
        )
    return Impairment(
        delay=delay,
        jitter=jitter,
        distribution=table.take("distribution", _choice("uniform", "normal", "pareto"), default="uniform"),
        loss=table.take("loss", parse_share, default=0.0),
        rate=table.take("rate", parse_rate, default=0),
        queue=table.take("queue", _whole(1), default=1000),
    )


def _check_target(table: _Table, key: str, name: str, system: Raft) -> None:
    if name not in ROLES and name not in system.names:
        table.wrong(key, f"{name!r} is neither a node ({', '.join(system.names)}) nor a role ({', '.join(ROLES)})")


def _check_groups(table: _Table, groups: tuple[tuple[str, ...], ...], system: Raft) -> None:
    seen: set[str] = set()
    for name in (name for group in groups for name in group):
        _check_target(table, "groups", name, system)
        if name in seen:
            table.wrong("groups", f"{name!r} is in two groups; a node is on one side of a partition")
        seen.add(name)
    if groups and len(groups) < 2:
        table.wrong(
            "groups", 'a single group is no partition; it needs two or more, for example [["leader"], ["others"]]'
        )


def _check_links(
    table: _Table, names: tuple[str, ...], plan: FabricPlan | None, find: Callable[[FabricPlan, tuple[str, ...]], Any]
) -> None:
    if plan is None:
        return
    try:
        find(plan, names)
    except PlanError as error:
        table.wrong("links", str(error))


# ---------------------------------------------------------------------------------------------------------------------
# Values


def _positive_duration(value: object) -> int:
    span = parse_duration(value)
    if span <= 0:
        raise UnitError(f"{value!r} is no time at all; it must be longer than zero")
    return span


def _bfd_interval(value: object) -> int:
    span = parse_duration(value)
    if not 1_000_000 <= span <= 10_000_000_000 or span % 1_000_000:
        raise UnitError(f"{value!r} is not between 1 ms and 10 s, in whole milliseconds")
    return span


def _weight(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100:
        raise UnitError(f"{value!r} is not a whole number from 1 to 100")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise UnitError(f"{value!r} is not a name of letters, digits, '-', '_' and '.'")
    return value


def _function(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise UnitError(f'{value!r} is not the name of a function, for example "my_raft.node:kind"')
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UnitError(f'{value!r} is not a list of names, for example ["n1", "n2"]')


def _requirements(value: object) -> tuple[Requirement, ...]:
    check = _choice("kernel")
    return tuple(check(name) for name in _texts(value))


def _groups(value: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not value:
        raise UnitError(f'{value!r} is not a list of groups, for example [["leader"], ["others"]]')
    return tuple(_texts(group) for group in value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnitError(f"{value!r} is neither true nor false")
    return value


def _whole(least: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UnitError(f"{value!r} is not a whole number, {least} or more")
        return value

    return check


def _number(least: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < float("inf"):
            raise UnitError(f"{value!r} is not a number, {least:g} or more")
        return float(value)

    return check


def _choice(*choices: str) -> Callable[[object], Any]:
    def check(value: object) -> str:
        if value not in choices:
            raise UnitError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return check


def _span(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise UnitError(f'{value!r} is not two durations, for example ["150ms", "300ms"]')
    low, high = (_positive_duration(end) for end in value)
    if low > high:
        raise UnitError(f"{value!r}: the first must not be longer than the second")
    return low, high


def _mix(value: object) -> dict[str, float]:
    kinds = ("read", "write", "cas", "delete")
    if not isinstance(value, dict) or not value or set(value) - set(kinds):
        raise UnitError(
            f"{value!r} does not give shares of {', '.join(kinds)}, for example {{ read = 0.5, write = 0.5 }}"
        )
    mix = {kind: parse_share(share) for kind, share in value.items()}
    if abs(sum(mix.values()) - 1) > 1e-6:
        raise UnitError(f"the shares add up to {sum(mix.values()):g}; they must add up to 1")
    return mix


# ---------------------------------------------------------------------------------------------------------------------
# Places in the text


def _opening_comment(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return " ".join(lines)


def _line_of(text: str, key: str) -> int | None:
    """Where a key such as ``fault[1].for`` stands, as a line number, or that of its table; None if it isn't there."""
    table, _, name = key.rpartition(".")
    current, nearest = "", None
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$", line)
        if header:
            current = header[2]
            if header[1] == "[[":
                counts[current] = counts.get(current, -1) + 1
                current = f"{current}[{counts[current]}]"
            if current in (table, key):
                nearest = number
        elif current == table and re.match(rf'\s*"?{re.escape(name)}"?\s*[=.]', line):
            return number
    return nearest
