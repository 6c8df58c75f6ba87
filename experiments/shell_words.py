"""The words of the shell's own commands, read and completed. Pure: what they do is in `experiments.prompt`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args

import msgspec

from experiments.scenario import directions
from topologies.impairment import Distribution, Impairment, from_samples
from topologies.plan import FabricPlan
from topologies.units import UnitError, parse_duration, parse_rate, parse_share


class WordError(ValueError):
    """A command that cannot be read; the message says what was typed, what was expected, and gives an example."""


def parse_partition(plan: FabricPlan, line: str) -> list[list[str]]:
    """The groups of hosts in ``h1 h2 | h5 h6``; one group alone is apart from all others of its network.

    Members of a tenant (``h1_blue``) are hosts here.

    Raises `WordError`, or `PlanError` for a host the plan does not have.
    """
    groups = [part.replace(",", " ").split() for part in line.split("|")]
    if not all(groups):
        raise WordError(f"{line.strip()!r} has an empty group: write hosts, such as partition h1 h2 | h5 h6")
    seen: set[str] = set()
    for name in (name for group in groups for name in group):
        plan.endpoint(name)
        if name in seen:
            raise WordError(f"{name} stands in {line.strip()!r} twice: a host is on one side of a partition")
        seen.add(name)
    if len(groups) == 1:
        groups.append([name for name in plan.network(groups[0][0]) if name not in seen])
        if not groups[1]:
            raise WordError("no host is left to be apart from: name fewer, or more groups: partition h1 h2 | h5 h6")
    return groups


def parse_impair(plan: FabricPlan, line: str) -> tuple[list[str], Impairment]:
    """The directions and the impairment in ``leaf1>spine1 leaf2-spine1 delay=20ms loss=1%``.

    Raises `WordError`, `topologies.impairment.ImpairmentError`, or `PlanError` for a link the plan does not have.
    """
    words = line.split()
    names = [word for word in words if "=" not in word]
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            continue
        parse = _FIELDS.get(key)
        if parse is None:
            close = get_close_matches(key, _FIELDS, 1)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(_FIELDS)}"
            raise WordError(f"an impairment has no {key!r}; {hint}")
        try:
            values[key] = parse(text)
        except ValueError as error:
            raise WordError(f"{word}: {error}") from None
    if not names or not values:
        raise WordError("say which link or direction, and what it does: impair leaf1>spine1 delay=20ms loss=10%")
    return directions(plan, names), _impairment(values)


def _impairment(values: dict[str, Any]) -> Impairment:
    """What scenario files take (`experiments.scenario.topology.read_impairment`) and no more, and not nothing."""
    if values.get("samples") and not values.keys() & {"delay", "jitter"}:
        measured = from_samples(values["samples"])
        values = {**values, "delay": measured.delay, "jitter": measured.jitter}
    impairment = Impairment(**values)
    if impairment.jitter > impairment.delay:
        raise WordError("the jitter is larger than the delay, but no packet can arrive before it was sent")
    if not (impairment.delay or impairment.needs_packets):
        raise WordError("that impairs nothing: give a delay, a loss or a rate, such as delay=20ms loss=10%")
    return impairment


def parse_flow(plan: FabricPlan, line: str) -> tuple[str, str, Literal["udp", "tcp"], int, int]:
    """Sender, receiver, protocol, source and destination port in ``h1 h5 udp 40000 7000``.

    Raises `WordError`, or `PlanError` for a host the plan does not have.
    """
    match line.split():
        case [sender, receiver, ("udp" | "tcp") as protocol, source, destination] if all(
            port.isdecimal() and 0 < int(port) < 65536 for port in (source, destination)
        ):
            if sender == receiver:
                raise WordError(f"what {sender} sends itself never leaves it: name another host")
            known: Literal["udp", "tcp"] = "udp" if protocol == "udp" else "tcp"
            return plan.host(sender).name, plan.host(receiver).name, known, int(source), int(destination)
    raise WordError(f"{line.strip()!r} is no flow: write hosts, protocol and ports: path h1 h5 udp 40000 7000")


def complete_partition(plan: FabricPlan, text: str, line: str) -> list[str]:
    """Hosts that begin with ``text`` and are not in the line yet, and the bar between groups."""
    taken = line.replace("|", " ").replace(",", " ").split()[1:]
    return [word for word in (*_hosts(plan), "|") if word.startswith(text) and (word not in taken or word == text)]


def complete_link(plan: FabricPlan, text: str) -> list[str]:
    return [link.name for link in plan.links if link.name.startswith(text)]


def complete_impair(plan: FabricPlan, text: str) -> list[str]:
    """Links, directions, and what can be asked of them: ``delay=``, ``distribution=pareto``."""
    ways = [way for link in plan.links for way in link.directions]
    fields = [f"{key}=" for key in _FIELDS if key != "distribution"]
    fields += [f"distribution={name}" for name in get_args(Distribution)]
    return complete_link(plan, text) + [word for word in (*ways, *fields) if word.startswith(text)]


def complete_hosts(plan: FabricPlan, text: str) -> list[str]:
    return [name for name in _hosts(plan) if name.startswith(text)]


def _hosts(plan: FabricPlan) -> Sequence[str]:
    return [endpoint.name for endpoint in plan.endpoints]


def _distribution(text: str) -> str:
    if text not in get_args(Distribution):
        raise UnitError(f"{text!r} is not one of {', '.join(get_args(Distribution))}")
    return text


def _number(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise UnitError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None

    return parse


_PARSERS: dict[str, Callable[[str], Any]] = {
    "delay": parse_duration,
    "jitter": parse_duration,
    "distribution": _distribution,
    "samples": lambda text: tuple(parse_duration(sample) for sample in text.split(",")),
    "burst": _number(float),
    "rate": parse_rate,
    "queue": _number(int),
}

#: How each field of an impairment is written; the rest are shares.
_FIELDS = {name: _PARSERS.get(name, parse_share) for name in msgspec.structs.asdict(Impairment())}
