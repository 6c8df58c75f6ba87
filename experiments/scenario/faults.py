"""``[[fault]]``: what breaks, when, and for how long. `experiments.strikes` has how each strikes and is proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from experiments.scenario.names import LEADERLESS_ROLES, ROLES, directions, flapping, links
from experiments.scenario.process_faults import LOG_FAULTS, READERS, ProcessFault, Reader
from experiments.scenario.reading import Table, choice, positive_duration, texts
from experiments.scenario.systems import Raft, System
from experiments.scenario.topology import read_impairment
from topologies.impairment import Impairment
from topologies.plan import FabricPlan, PlanError
from topologies.units import UnitError, format_duration, parse_duration, parse_share

#: Of what flaps, in nanoseconds: a link's whole period, and a direction's silence, or what is between two.
SHORTEST_PERIOD, SHORTEST_SILENCE = 50_000_000, 100_000_000


class Partition(msgspec.Struct, frozen=True, tag="partition", tag_field="kind"):
    """Nodes of different groups do not hear each other; nodes and clients in no group reach everyone."""

    groups: tuple[tuple[str, ...], ...]
    at: int
    lasts: int


class LinkDown(msgspec.Struct, frozen=True, tag="link-down", tag_field="kind"):
    """Carrier is lost at both ends of every link whose name matches one of ``links`` (``leaf1-spine*``)."""

    links: tuple[str, ...]
    at: int
    lasts: int


class Flap(msgspec.Struct, frozen=True, tag="flap", tag_field="kind"):
    """Every link that matches loses its carrier and gets it back, again and again, each at moments of its own; one of
    its directions (``leaf1>spine1``) passes nothing meanwhile, and keeps its carrier.

    Once in every ``period`` nanoseconds it is down, for the share ``duty`` of it; each change comes up to ``jitter``
    nanoseconds late, evenly.
    """

    links: tuple[str, ...]
    period: int
    duty: float
    jitter: int
    at: int
    lasts: int

    def stretched(self, factor: float) -> Flap:
        """Its own durations times ``factor``."""
        return msgspec.structs.replace(self, period=round(self.period * factor), jitter=round(self.jitter * factor))


def flap_problems(names: Iterable[str], period: int, duty: float, jitter: int) -> list[tuple[str, str]]:
    """What is wrong with the names and numbers of a `Flap`, by the names of its fields."""
    problems = []
    shortest = min(duty, 1 - duty) * period - jitter
    if any(">" in name for name in names) and shortest < SHORTEST_SILENCE:
        problems.append(
            ("period", f"a direction is silent, and passes, {format_duration(SHORTEST_SILENCE)} or more: it is probed")
        )
    if period < SHORTEST_PERIOD:
        problems.append(("period", f"it is {format_duration(SHORTEST_PERIOD)} or more: every change is made and seen"))
    if not 0 < duty < 1:
        problems.append(("duty", "a link that flaps is down for a share of every period between 0 and 100 %"))
    elif jitter >= min(duty, 1 - duty) * period:
        problems.append(("jitter", "so late a change comes after the next: less than the time down, and than that up"))
    return problems


class Impair(msgspec.Struct, frozen=True, tag="impair", tag_field="kind"):
    """Every named direction (``leaf1>spine1``; a link's name means both) does ``impairment`` to its packets."""

    links: tuple[str, ...]
    impairment: Impairment
    at: int
    lasts: int


class Kill(msgspec.Struct, frozen=True, tag="kill", tag_field="kind"):
    """Nodes get SIGKILL; they are started again from their logs when the fault ends."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class Reconfigure(msgspec.Struct, frozen=True, tag="reconfigure", tag_field="kind"):
    """An operator, beside the clients, asks for ``voters`` and ``learners`` to be the members of a Raft cluster.

    It asks until that is so, and for no longer than ``lasts``, by when it must be. What is changed stays so.
    """

    voters: tuple[str, ...]
    learners: tuple[str, ...]
    at: int
    lasts: int


class Transfer(msgspec.Struct, frozen=True, tag="transfer", tag_field="kind"):
    """An operator, beside the clients, asks a Raft cluster to be led by one of ``nodes``, drawn when it begins to ask.

    It asks until there is an answer that ends it, and for no longer than ``lasts``.
    """

    nodes: tuple[str, ...]
    at: int
    lasts: int


Fault: TypeAlias = Partition | LinkDown | Flap | Impair | Kill | Reconfigure | Transfer | ProcessFault


class Aim(msgspec.Struct, frozen=True):
    """What a fault may aim at, and when. ``plan`` is None where there can be none: then names go unchecked."""

    at: int
    lasts: int
    plan: FabricPlan | None
    system: System


def read_fault(table: Table, duration: int, plan: FabricPlan | None, system: System) -> Fault | None:
    """One ``[[fault]]`` of a scenario of so many nanoseconds; None where something is wrong, noted in the table."""
    before = len(table.problems)
    kind = table.take("kind", choice(*_KINDS), default=None, required=True)
    at = table.take("at", parse_duration, default=0, required=True)
    lasts = table.take("for", positive_duration, default=0, required=True)
    if duration and at + lasts > duration:
        table.wrong(
            "for" if at < duration else "at",
            f"the fault ends at {format_duration(at + lasts)}, past the end of "
            f"the scenario ({format_duration(duration)}); shorten it or lengthen the scenario's duration",
        )
    if kind is None:
        return None
    fault = _KINDS[kind](table, Aim(at, lasts, plan, system))
    table.finish()
    return fault if len(table.problems) == before else None


def _partition(table: Table, aim: Aim) -> Partition:
    groups: tuple[tuple[str, ...], ...] = table.take("groups", _groups, default=(), required=True)
    seen: set[str] = set()
    for name in (name for group in groups for name in group):
        _check_target(table, "groups", name, aim.system)
        if name in seen:
            table.wrong("groups", f"{name!r} is in two groups; a node is on one side of a partition")
        seen.add(name)
    if groups and len(groups) < 2:
        table.wrong(
            "groups", 'a single group is no partition; it needs two or more, for example [["leader"], ["others"]]'
        )
    return Partition(groups, aim.at, aim.lasts)


def _kill(table: Table, aim: Aim) -> Kill:
    return Kill(_nodes(table, aim), aim.at, aim.lasts)


def _link_down(table: Table, aim: Aim) -> LinkDown:
    return LinkDown(_links(table, aim, links), aim.at, aim.lasts)


def _flap(table: Table, aim: Aim) -> Flap:
    names = _links(table, aim, flapping)
    period = table.take("period", positive_duration, default=1_000_000_000, required=True)
    duty = table.take("duty", parse_share, default=0.5)
    jitter = table.take("jitter", parse_duration, default=0)
    for key, what in flap_problems(names, period, duty, jitter):
        table.wrong(key, what)
    if period > aim.lasts:
        table.wrong("period", "longer than the fault lasts; a link flaps at least once")
    return Flap(names, period, duty, jitter, aim.at, aim.lasts)


def _impair(table: Table, aim: Aim) -> Impair:
    names = _links(table, aim, directions)
    impairment = read_impairment(table)
    if impairment == Impairment():
        table.wrong("kind", "impairs nothing; give it delay, jitter, loss or rate")
    return Impair(names, impairment, aim.at, aim.lasts)


def _reconfigure(table: Table, aim: Aim) -> Reconfigure:
    if not isinstance(aim.system, Raft):
        table.wrong("kind", 'only the members of a system of kind "raft" can be changed')
    voters: tuple[str, ...] = table.take("voters", texts, default=(), required=True)
    learners: tuple[str, ...] = table.take("learners", texts, default=())
    for key, names in (("voters", voters), ("learners", learners)):
        for name in names:
            _check_target(table, key, name, aim.system)
    if len({*voters, *learners}) < len(voters) + len(learners):
        table.wrong("voters", "a node is named twice; a member is a voter or a learner, once")
    return Reconfigure(voters, learners, aim.at, aim.lasts)


def _transfer(table: Table, aim: Aim) -> Transfer:
    if not isinstance(aim.system, Raft):
        table.wrong("kind", 'only a system of kind "raft" can be asked for another leader')
    return Transfer(_nodes(table, aim), aim.at, aim.lasts)


def _of_processes(read: Reader) -> Callable[[Table, Aim], Fault]:
    def read_one(table: Table, aim: Aim) -> Fault:
        fault = read(table, lambda: _nodes(table, aim), aim.at, aim.lasts)
        if isinstance(fault, LOG_FAULTS) and not aim.system.keeps_log:
            tag, system = (str(thing.__struct_config__.tag) for thing in (fault, aim.system))
            table.wrong("kind", f'"{tag}" strikes the log on a node\'s disk, and nodes of kind "{system}" keep none')
        return fault

    return read_one


_KINDS: dict[str, Callable[[Table, Aim], Fault]] = {
    "partition": _partition,
    "link-down": _link_down,
    "flap": _flap,
    "impair": _impair,
    "kill": _kill,
    "reconfigure": _reconfigure,
    "transfer": _transfer,
    **{kind: _of_processes(read) for kind, read in READERS.items()},
}


def _nodes(table: Table, aim: Aim) -> tuple[str, ...]:
    nodes: tuple[str, ...] = table.take("nodes", texts, default=(), required=True)
    for name in nodes:
        _check_target(table, "nodes", name, aim.system)
    return nodes


def _check_target(table: Table, key: str, name: str, system: System) -> None:
    roles = ROLES if system.elects else LEADERLESS_ROLES
    if name in ROLES and name not in roles:
        table.wrong(key, f"{name!r}: the system's nodes have no leader; name them, or say {', '.join(roles)}")
    elif name not in roles and name not in system.names:
        table.wrong(key, f"{name!r} is neither a node ({', '.join(system.names)}) nor a role ({', '.join(roles)})")


def _links(table: Table, aim: Aim, find: Callable[[FabricPlan, tuple[str, ...]], Any]) -> tuple[str, ...]:
    names: tuple[str, ...] = table.take("links", texts, default=(), required=True)
    if aim.plan is not None:
        try:
            find(aim.plan, names)
        except PlanError as error:
            table.wrong("links", str(error))
    return names


def _groups(value: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not value:
        raise UnitError(f'{value!r} is not a list of groups, for example [["leader"], ["others"]]')
    return tuple(texts(group) for group in value)
