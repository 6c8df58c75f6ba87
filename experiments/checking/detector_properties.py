"""What failure detectors promise of every execution, decided from the traces of their members (docs/detectors.md).

Not that they are right, which none can always be (Chandra & Toueg 1996) and `detection` measures; but that what a
member believes has come about by the rules of its protocol. `SwimProperties` and `HeartbeatProperties` are fed one
event at a time, all members' events in the order of their time, and answer at once with what the event violates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from apps.detectors import HeartbeatConfig, PhiConfig, SwimConfig
from experiments.checking.raft_properties import Violation
from experiments.checking.trace import Ask, Believe, Header, Incarnation, Witness

#: An incarnation, and the rank of a standing within it.
_News: TypeAlias = tuple[int, int]

_RANK = {"alive": 0, "suspect": 1, "failed": 2}


class SwimProperties:
    """``members``: all of the group. The rules are those of SWIM §4.2."""

    judged = ("IncarnationsAreOwn", "BeliefsGoForward", "RaisedToRefute", "SuspectedFirst", "AskedOthers")

    def __init__(self, members: Sequence[str], config: SwimConfig) -> None:
        self.beliefs = self.refutations = 0
        self._members = tuple(members)
        self._asks_others = config.indirect_probes > 0
        self._shortest = int(config.shortest_suspicion(len(members)))
        self._highest: dict[str, tuple[int, Witness]] = {}
        self._own: dict[str, tuple[int, Witness]] = {}
        self._believed: dict[tuple[str, str], tuple[_News, Witness]] = {}
        self._accused: set[tuple[str, int]] = set()
        self._given_up: set[tuple[str, int]] = set()

    def feed(self, witness: Witness) -> list[Violation]:
        """What this event violates."""
        match witness.event:
            case Header():
                self._own.pop(witness.node, None)
                self._believed = {pair: told for pair, told in self._believed.items() if pair[0] != witness.node}
            case Incarnation(incarnation=incarnation, accused=accused):
                return self._begins(witness, incarnation, accused)
            case Believe() as belief:
                return self._believes(witness, belief)
            case Ask(member=member, helpers=[]) if self._asks_others:
                return self._asks_nobody(witness, member)
        return []

    def _asks_nobody(self, witness: Witness, member: str) -> list[Violation]:
        node = witness.node
        for other in self._members:
            (_, rank), origin = self._believed.get((node, other), ((0, 0), witness))
            if other not in (node, member) and rank == _RANK["alive"]:
                message = f"{node} had nobody ping {member}, and took {other} for alive"
                return [Violation("AskedOthers", message, _both(origin, witness))]
        return []

    def _begins(self, witness: Witness, incarnation: int, accused: int | None) -> list[Violation]:
        node = witness.node
        before, origin = self._own.get(node, (-1, witness))
        self._own[node] = incarnation, witness
        if node not in self._highest or incarnation > self._highest[node][0]:
            self._highest[node] = incarnation, witness
        if accused is None:
            return []  # it came up
        self.refutations += 1
        if incarnation <= before or incarnation != accused + 1:
            message = f"{node} refutes incarnation {accused} by {incarnation}, having been in {before}"
            return [Violation("RaisedToRefute", message, _both(origin, witness))]
        if (node, accused) not in self._accused:
            message = f"{node} raised its incarnation to {incarnation}, and nobody had doubted it in {accused}"
            return [Violation("RaisedToRefute", message, (witness,))]
        return []

    def _believes(self, witness: Witness, belief: Believe) -> list[Violation]:
        self.beliefs += 1
        node, member, incarnation = witness.node, belief.member, belief.incarnation
        news = incarnation, _RANK[belief.standing]
        before, origin = self._believed.get((node, member), ((0, 0), witness))
        self._believed[node, member] = news, witness
        found: list[Violation] = []
        if news <= before:
            message = f"{node} went back to an older belief of {member}, or to one it had"
            found.append(Violation("BeliefsGoForward", message, _both(origin, witness)))
        if member in self._highest and incarnation > self._highest[member][0]:
            highest, latest = self._highest[member]
            message = f"{node} has heard of incarnation {incarnation} of {member}, which never had one beyond {highest}"
            found.append(Violation("IncarnationsAreOwn", message, (latest, witness)))
        if belief.standing == "failed":
            found += self._gives_up(witness, belief, before, origin)
        if belief.standing != "alive":
            self._accused.add((member, incarnation))
        return found

    def _gives_up(self, witness: Witness, belief: Believe, before: _News, origin: Witness) -> list[Violation]:
        """A member is given up when a suspicion has run its course, or on the word of somebody with whom it has."""
        case = belief.member, belief.incarnation
        suspected = before == (belief.incarnation, _RANK["suspect"])
        told = case in self._given_up
        self._given_up.add(case)
        if belief.after is not None and belief.after < self._shortest:
            lasted = f"a suspicion of {belief.after} ns, and {self._shortest} is the shortest"
            message = f"{witness.node} gave {belief.member} up after {lasted}"
            return [Violation("SuspectedFirst", message, _both(origin, witness))]
        if not suspected and not told:
            message = f"{witness.node} gave {belief.member} up, and nobody had told it to, nor did it suspect it"
            return [Violation("SuspectedFirst", message, _both(origin, witness))]
        return []


class HeartbeatProperties:
    """Of members that judge by their own ears alone, with a fixed timeout or φ-accrual."""

    judged = ("BeliefsAlternate", "SilenceHasLasted")

    def __init__(self, config: HeartbeatConfig | PhiConfig) -> None:
        self.beliefs = 0
        self._least = config.least_limit if isinstance(config, PhiConfig) else config.timeout
        self._failed: dict[tuple[str, str], Witness] = {}
        self._alive: dict[tuple[str, str], Witness] = {}

    def feed(self, witness: Witness) -> list[Violation]:
        """What this event violates."""
        match witness.event:
            case Header():
                for pairs in (self._failed, self._alive):
                    for pair in [pair for pair in pairs if pair[0] == witness.node]:
                        del pairs[pair]
            case Believe() as belief:
                self.beliefs += 1
                return self._believes(witness, belief)
        return []

    def _believes(self, witness: Witness, belief: Believe) -> list[Violation]:
        pair = witness.node, belief.member
        found: list[Violation] = []
        if (belief.standing == "failed") == (pair in self._failed):
            origin = self._failed.get(pair) or self._alive.get(pair) or witness
            message = f"{pair[0]} takes {pair[1]} for {belief.standing}, as it did before"
            found.append(Violation("BeliefsAlternate", message, _both(origin, witness)))
        if belief.standing != "failed":
            self._failed.pop(pair, None)
            self._alive[pair] = witness
            return found
        self._failed[pair] = witness
        if belief.after is not None and belief.after < self._least:
            message = f"{pair[0]} gave {pair[1]} up after a silence of {belief.after} ns; {self._least} is the shortest"
            found.append(Violation("SilenceHasLasted", message, (witness,)))
        return found


def _both(origin: Witness, witness: Witness) -> tuple[Witness, ...]:
    return (witness,) if origin is witness else (origin, witness)
