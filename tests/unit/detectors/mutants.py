"""SWIM with one rule broken each, to show that the tests can fail."""

from __future__ import annotations

from apps.detectors import Standing, Swim
from apps.detectors.swim import Update


class IgnoresIncarnations(Swim):
    """What is worse overrides what is better, whatever incarnation it speaks of: nobody can refute anything."""

    def _overrides(self, update: Update) -> bool:
        return update.standing > self.belief(update.member).standing


class BelievesTheLatest(Swim):
    """Whatever comes in last holds, as if the network kept the order."""

    def _overrides(self, update: Update) -> bool:
        return (update.incarnation, update.standing) != self.belief(update.member)


class RefutesWithTheSameIncarnation(Swim):
    """Says that it lives, but not in a new incarnation."""

    def _defend(self, update: Update) -> None:
        if update.standing is not Standing.ALIVE:
            self._spread(Update(self.node, Standing.ALIVE, self.incarnation, self.node))


class ProbesByItselfOnly(Swim):
    """Asks nobody to ping for it."""

    def _helpers(self, target: str) -> list[str]:
        return []


MUTANTS = (IgnoresIncarnations, BelievesTheLatest, RefutesWithTheSameIncarnation, ProbesByItselfOnly)
