"""SWIM and heartbeats with one rule broken each, to show that the tests can fail."""

from __future__ import annotations

import msgspec

from apps.detectors import Heartbeats, Standing, Swim
from apps.detectors.swim import Update
from apps.process import Effect, Event, Nanoseconds, SetTimer, TimerFired


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


class RefutesForOthers(Swim):
    """Whoever hears that somebody is suspected whom it takes for alive says so, in the other's name."""

    def _learn(self, update: Update) -> None:
        if update.standing is Standing.SUSPECT and update.source != self.node and update.member != self.node:
            refuted = update.incarnation + 1
            update = msgspec.structs.replace(update, standing=Standing.ALIVE, incarnation=refuted)
        super()._learn(update)


class RefutesUnasked(Swim):
    """Begins a new incarnation every ten periods, as if it had been accused."""

    def _on_period(self) -> None:
        super()._on_period()
        if self._periods % 10 == 0:
            self._defend(Update(self.node, Standing.SUSPECT, self.incarnation, self.node))


class GivesUpAtOnce(Swim):
    """A probe that is not answered is a failure: nobody is suspected first."""

    def _learn(self, update: Update) -> None:
        if update.standing is Standing.SUSPECT and update.source == self.node:
            update = msgspec.structs.replace(update, standing=Standing.FAILED)
        super()._learn(update)


class IsImpatient(Heartbeats):
    """Waits for half of the silence that the rule demands, and goes by its timer alone."""

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if isinstance(event, TimerFired) and event.timer.startswith("silence "):
            member = event.timer.removeprefix("silence ")
            return self._judge(member, Standing.FAILED, self.silence(now, member))
        return [
            SetTimer(effect.timer, effect.after // 2)
            if isinstance(effect, SetTimer) and effect.timer.startswith("silence ")
            else effect
            for effect in super().handle(now, event)
        ]


MUTANTS = (
    IgnoresIncarnations,
    BelievesTheLatest,
    RefutesWithTheSameIncarnation,
    ProbesByItselfOnly,
    RefutesForOthers,
    RefutesUnasked,
    GivesUpAtOnce,
)
