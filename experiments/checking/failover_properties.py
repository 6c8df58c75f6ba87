"""What failing over promises of every execution, decided from the traces of its nodes (docs/detectors.md).

`FailoverProperties` is fed one event at a time, all nodes' events in the order of their time, and answers at once with
what the event violates. That no shard has two owners, the promise itself, is `takeover.OneOwner`'s, which is among what
it tells; the others are the rules that carry it.
"""

from __future__ import annotations

from collections import Counter

from apps.failover import FailoverConfig
from experiments.checking.raft_properties import Violation
from experiments.checking.takeover import OneOwner
from experiments.checking.trace import Grant, Header, Lease, Weigh, Witness


class FailoverProperties:
    """Of nodes with one coordinator, whoever that is: it alone grants."""

    #: Beside `OneOwner`, which `takeover_checks` has a verdict of.
    judged = ("ServedIsGranted", "GrantsGoForward", "LeasesAreShort", "WeightsRise")

    def __init__(self, config: FailoverConfig) -> None:
        self.grants = self.leases = 0
        self._longest = config.lease
        self._owner = OneOwner()
        self._granted: dict[tuple[int, int], Witness] = {}
        self._goes_by: dict[str, tuple[tuple[int, int], Witness]] = {}
        self._last_grant: dict[str, tuple[tuple[int, int], Witness]] = {}
        self._weights: dict[str, tuple[float, Witness]] = {}
        self._lives: Counter[str] = Counter()  # for each, its weight may fall once

    def feed(self, witness: Witness) -> list[Violation]:
        """What this event violates."""
        found = self._owner.feed(witness)
        match witness.event:
            case Header():
                self._goes_by.pop(witness.node, None)
                self._last_grant.pop(witness.node, None)
                self._weights = {
                    member: (weight, told)
                    for member, (weight, told) in self._weights.items()
                    if told.node != witness.node
                }
                self._lives[witness.node] += 1
            case Grant(grant=grant):
                self.grants += 1
                self._granted[grant] = witness
                found += self._rises(self._last_grant, witness, grant, "granted")
            case Lease(shards=shards) as lease if shards:
                self.leases += 1
                found += self._serves(witness, lease)
            case Weigh(member=member, weight=weight):
                found += self._weighs(witness, member, weight)
        return found

    def _serves(self, witness: Witness, lease: Lease) -> list[Violation]:
        found: list[Violation] = []
        if not 0 < lease.lasts <= self._longest:
            message = f"{witness.node} serves for {lease.lasts} ns; a lease is of {self._longest}"
            found.append(Violation("LeasesAreShort", message, (witness,)))
        if lease.grant is None:
            return found  # it does not say by whose leave
        granted = self._granted.get(lease.grant)
        if granted is None:
            message = f"{witness.node} serves {len(lease.shards)} shards by a grant that nobody has made"
            found.append(Violation("ServedIsGranted", message, (witness,)))
        elif isinstance(granted.event, Grant) and (
            granted.event.member != witness.node or not set(lease.shards) <= set(granted.event.shards)
        ):
            message = f"{witness.node} serves what its grant does not have, or by the grant of another"
            found.append(Violation("ServedIsGranted", message, (granted, witness)))
        return found + self._rises(self._goes_by, witness, lease.grant, "went by")

    def _rises(
        self, last: dict[str, tuple[tuple[int, int], Witness]], witness: Witness, grant: tuple[int, int], did: str
    ) -> list[Violation]:
        before, origin = last.get(witness.node, ((-1, 0), witness))
        last[witness.node] = grant, witness
        if grant > before:
            return []
        message = f"{witness.node} {did} grant {grant[1]}, and {before[1]} before"
        return [Violation("GrantsGoForward", message, (origin, witness))]

    def _weighs(self, witness: Witness, member: str, weight: float) -> list[Violation]:
        """Who is eased in is not thrown back, unless it has failed or come up anew."""
        before, origin = self._weights.get(member, (0.0, witness))
        self._weights[member] = weight, witness
        if 0 <= weight <= 1:
            if weight == 0 or weight >= before:
                return []
            self._lives[member] -= 1
            if self._lives[member] >= 0:
                return []
        message = f"{witness.node} gives {member} the weight {weight}, and gave it {before} before"
        return [Violation("WeightsRise", message, (origin, witness) if origin is not witness else (witness,))]
