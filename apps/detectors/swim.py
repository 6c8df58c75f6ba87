"""SWIM: one probe a period from each member, and news that ride on the probes.

Das, Gupta & Motivala, SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol (DSN 2002),
with suspicion (§4.2) and round-robin probing (§4.3); Dadgar, Phillips & Currey, Lifeguard: Local Health Awareness for
More Accurate Failure Detection (2017), whose three parts can be had one by one:

- ``local_health``: a member that fails to get answers, or is suspected, doubts itself, and probes more slowly. Helpers
  answer with a `Nack`, so that who asked can tell a dead target from its own trouble.
- ``dynamic_suspicion``: a suspicion lasts long at first, and less the more members came to it independently.
- ``buddy``: a suspected member hears of it from whoever probes it next, and not when gossip happens to pass by.

**A period.** Ping one member. No answer within ``probe_timeout``: ask ``indirect_probes`` others to ping it. None
by the end of the period: suspect it. A suspicion that is not refuted in time becomes a failure. Only the member itself
refutes, by raising its *incarnation*: what is said of a later incarnation overrides all that is said of earlier ones,
and within one, `FAILED` overrides `SUSPECT` overrides `ALIVE`. So news may come twice, late and in any order, and all
members end up believing the same.

**Size.** Who belongs to the group is fixed (a `Roster`, shared by all that live in one program); what a member keeps
grows with those who are not plainly alive, and what it sends a period does not grow at all. The one departure from the
paper: a failed member is pinged now and then, so that two sides of a healed partition find each other again, which no
gossip could bring about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from apps.detectors import trace
from apps.detectors.settings import DetectorConfigError, above_zero
from apps.detectors.trace import Standing
from apps.process import (
    CancelTimer,
    Effect,
    Event,
    Nanoseconds,
    NodeId,
    Received,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Trace,
)

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND

_PERIOD = "period"
_PROBE = "probe"
_NACK = "nack "
_SUSPICION = "suspicion "


class Update(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """News of ``member``. ``source``: who came to it, which counts for suspicions (Lifeguard §IV-B)."""

    member: NodeId
    standing: Standing
    incarnation: Annotated[int, msgspec.Meta(ge=0, le=2**62)]  # from where one can still go on
    source: NodeId


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="p", gc=False):
    sequence: int
    gossip: Sequence[Update]


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag="q", gc=False):
    """Ping ``target`` for me, and pass its answer on under my ``sequence``."""

    sequence: int
    target: NodeId
    gossip: Sequence[Update]


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="a", gc=False):
    sequence: int
    gossip: Sequence[Update]


class Nack(msgspec.Struct, frozen=True, array_like=True, tag="n", gc=False):
    """The target has not answered me yet, but I am here."""

    sequence: int


Message: TypeAlias = Ping | PingRequest | Ack | Nack


class SwimConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are memberlist's for a LAN (its ``DefaultLANConfig``).

    ``interval``: a protocol period. ``probe_timeout``: until helpers are asked, ``indirect_probes`` of them.
    ``suspicion_multiplier``: a suspicion lasts at least so many times max(1, log₁₀ n) periods;
    ``suspicion_max_multiplier``: at first so many times longer, with ``dynamic_suspicion``.
    ``retransmit_multiplier``: a piece of news is sent so many times ⌈log₁₀(n + 1)⌉ times by everyone who has it.
    ``max_gossip``: the most of them in one message. ``reconnect_every``: one period in so many also pings a member
    believed failed. ``max_health``: local health counts to there, and stretches periods at most so many times + 1.
    Raises `DetectorConfigError`.
    """

    interval: Nanoseconds = SECOND
    probe_timeout: Nanoseconds = 500 * MILLISECOND
    indirect_probes: int = 3
    suspicion_multiplier: float = 4.0
    suspicion_max_multiplier: float = 6.0
    retransmit_multiplier: int = 4
    max_gossip: int = 6
    reconnect_every: int = 30
    local_health: bool = True
    dynamic_suspicion: bool = True
    buddy: bool = True
    max_health: int = 8

    def __post_init__(self) -> None:
        above_zero(self, "interval", "probe_timeout", "retransmit_multiplier", "max_gossip", "reconnect_every")
        if self.probe_timeout >= self.interval:
            raise DetectorConfigError(
                f"probe_timeout is {self.probe_timeout} ns; it must be shorter than the interval of {self.interval} ns,"
                " or there is no time left to ask others"
            )
        if self.indirect_probes < 0 or self.max_health < 0:
            raise DetectorConfigError("indirect_probes and max_health must not be negative")
        if self.suspicion_multiplier <= 0 or self.suspicion_max_multiplier < 1:
            raise DetectorConfigError("suspicion_multiplier must be above 0, suspicion_max_multiplier at least 1")

    def suspicion_timeout(self, members: int, confirmations: int) -> Nanoseconds:
        """How long a suspicion lasts that so many others have confirmed (Lifeguard §IV-B).

        It falls with the logarithm of their number, from the longest to the shortest, which ``_confirmations`` reach.
        """
        shortest = self.shortest_suspicion(members)
        if not self.dynamic_suspicion:
            return int(shortest)
        longest = shortest * self.suspicion_max_multiplier
        enough = self.confirmations(members)
        if enough < 1:
            return int(shortest)
        fallen = (longest - shortest) * math.log(confirmations + 1) / math.log(enough + 1)
        return int(max(shortest, longest - fallen))

    def shortest_suspicion(self, members: int) -> float:
        """In nanoseconds: nobody is given up sooner by whoever came to suspect."""
        return self.suspicion_multiplier * max(1.0, math.log10(members)) * self.interval

    def confirmations(self, members: int) -> int:
        """How many independent confirmations make a suspicion as short as it gets; 0 in a group too small for them."""
        wanted = max(0, math.ceil(self.suspicion_multiplier) - 2)
        return wanted if members - 2 >= wanted else 0


class Roster:
    """All members' names. One object serves every member that lives in the same program."""

    __slots__ = ("known", "names")

    def __init__(self, names: Sequence[NodeId]) -> None:
        self.names = tuple(names)
        self.known = frozenset(names)
        if len(self.known) != len(self.names):
            raise ValueError(f"members {list(names)} must name each once")


class Belief(NamedTuple):
    """Compared as a whole: the greater one is the later news."""

    incarnation: int
    standing: Standing


class _Probe:
    """The period's target, and what came of pinging it."""

    __slots__ = ("acked", "nacks", "nacks_expected", "sequence", "target")

    def __init__(self, sequence: int, target: NodeId) -> None:
        self.sequence, self.target = sequence, target
        self.acked = False
        self.nacks_expected = self.nacks = 0


class _Relay(NamedTuple):
    """A ping for ``asker``, who calls it ``sequence``; forgotten when ``until`` has passed."""

    asker: NodeId
    sequence: int
    until: Nanoseconds


class _Suspicion(NamedTuple):
    since: Nanoseconds
    sources: tuple[NodeId, ...]


class _Rumour:
    """An update that is still being spread, and how often it was."""

    __slots__ = ("times", "update")

    def __init__(self, update: Update) -> None:
        self.update = update
        self.times = 0


_UNHEARD = Belief(0, Standing.ALIVE)


class Swim:
    """One member. ``random`` is a generator of its own; only its ``random()`` is used.

    Read-only for observers: ``incarnation``, its own; ``health``, 0 when all is well; `beliefs`, `belief` and
    `standing`.
    Raises `ValueError` when the roster does not name ``node``.
    """

    Message: TypeAlias = Message

    def __init__(self, node: NodeId, roster: Roster, config: SwimConfig, random: Random) -> None:
        if node not in roster.known:
            raise ValueError(f"members {list(roster.names)} must name {node!r}")
        self.node = node
        self.incarnation = 0
        self.health = 0
        self._roster, self._config, self._random = roster, config, random
        size = len(roster.names)
        self._transmissions = config.retransmit_multiplier * math.ceil(math.log10(size + 1))
        self._beliefs: dict[NodeId, Belief] = {}  # of those of whom something was heard
        self._failed: list[NodeId] = []
        self._suspicions: dict[NodeId, _Suspicion] = {}
        self._rumours: dict[NodeId, _Rumour] = {}
        self._walk = _Walk(size, random)
        self._probe: _Probe | None = None
        self._relays: dict[int, _Relay] = {}
        self._sequence = 0
        self._periods = self._sent = self._received = 0
        self._now: Nanoseconds = 0
        self._told = False  # the event at hand is a message
        self._effects: list[Effect] = []

    @property
    def beliefs(self) -> Mapping[NodeId, Belief]:
        """Of all of whom something was heard."""
        return self._beliefs

    def belief(self, member: NodeId) -> Belief:
        return self._beliefs.get(member, _UNHEARD)

    def standing(self, member: NodeId) -> Standing:
        return self.belief(member).standing

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        self._now, self._told = now, isinstance(event, Received)
        effects: list[Effect] = []
        self._effects = effects
        match event:
            case Received(sender, message) if sender in self._roster.known and sender != self.node:
                self._received += 1
                self._on_message(sender, message)
            case TimerFired(timer) if timer == _PERIOD:
                self._on_period()
            case TimerFired(timer) if timer == _PROBE:
                self._ask_others()
            case TimerFired(timer) if timer.startswith(_NACK):
                self._nack(int(timer.removeprefix(_NACK)))
            case TimerFired(timer):
                self._on_suspicion_over(timer.removeprefix(_SUSPICION))
            case Started():
                effects += [Trace(trace.Incarnated(self.incarnation)), SetTimer(_PERIOD, self._config.interval)]
        return effects

    # ---- probing (SWIM §3.1, §4.3; Lifeguard §IV-A) --------------------------------------------------------------

    def _on_period(self) -> None:
        if self._probe is not None and not self._probe.acked:
            self._on_no_answer(self._probe)
        self._relays = {number: relay for number, relay in self._relays.items() if relay.until > self._now}
        stretch = self.health + 1
        self._effects.append(SetTimer(_PERIOD, self._config.interval * stretch))
        self._probe = None
        if (target := self._next_target()) is not None:
            self._probe = _Probe(self._ping(target), target)
            self._effects.append(SetTimer(_PROBE, self._config.probe_timeout * stretch))
        self._periods += 1
        if self._failed and self._periods % self._config.reconnect_every == 0:
            self._ping(self._failed[int(self._random.random() * len(self._failed))])
        if self._periods % trace.REPORT_EVERY == 0:
            self._effects.append(Trace(trace.Load(self._sent, self._received)))

    def _next_target(self) -> NodeId | None:
        """The next member that is not believed failed, on a walk that comes past everyone; ``None`` if all are."""
        names = self._roster.names
        for _ in range(len(names) + 1):  # one more than a round, which may begin with this node
            target = names[self._walk.next()]
            if target != self.node and self.standing(target) is not Standing.FAILED:
                return target
        return None

    def _ping(self, target: NodeId) -> int:
        self._sequence += 1
        self._send(target, Ping(self._sequence, self._gossip_for(target)))
        return self._sequence

    def _ask_others(self) -> None:
        probe = self._probe
        if probe is None or probe.acked:
            return
        helpers = self._helpers(probe.target)
        self._effects.append(Trace(trace.Asked(probe.target, tuple(helpers))))
        for helper in helpers:
            probe.nacks_expected += self._config.local_health
            self._send(helper, PingRequest(probe.sequence, probe.target, self._gossip_for(helper)))

    def _helpers(self, target: NodeId) -> list[NodeId]:
        """Up to ``indirect_probes`` members that may be alive, drawn at random."""
        names, wanted, helpers = self._roster.names, self._config.indirect_probes, list[NodeId]()
        # Drawing again is cheap unless hardly anyone is left, and then fewer helpers will do.
        for _ in range(8 * wanted):
            if len(helpers) == wanted:
                break
            name = names[int(self._random.random() * len(names))]
            if name not in helpers and self._may_help(name, target):
                helpers.append(name)
        return helpers or [name for name in names if self._may_help(name, target)][:wanted]

    def _may_help(self, name: NodeId, target: NodeId) -> bool:
        return name not in (self.node, target) and self.standing(name) is Standing.ALIVE

    def _on_no_answer(self, probe: _Probe) -> None:
        # Helpers that say nothing at all, not even Nack, point at this member's own trouble.
        missed = probe.nacks_expected - probe.nacks
        self._adjust_health(max(1, missed) if probe.nacks_expected == 0 or missed else 0)
        self._learn(Update(probe.target, Standing.SUSPECT, self.belief(probe.target).incarnation, self.node))

    def _adjust_health(self, by: int) -> None:
        if self._config.local_health:
            self.health = min(max(0, self.health + by), self._config.max_health)

    # ---- messages ------------------------------------------------------------------------------------------------

    def _on_message(self, sender: NodeId, message: Message) -> None:
        if not isinstance(message, Nack):
            missed = False
            for update in message.gossip:
                if update.member in self._roster.known:
                    missed |= self._is_refuted(update)
                    self._learn(update)
            if missed and not isinstance(message, Ping):
                self._ping(sender)  # which tells it, as the answer to a ping does; by chance it may never hear of it
        match message:
            case Ping(sequence) | PingRequest(sequence, self.node):
                self._send(sender, Ack(sequence, self._gossip_for(sender)))
            case PingRequest(sequence, target) if target in self._roster.known:
                relayed = self._ping(target)
                self._relays[relayed] = _Relay(sender, sequence, self._now + self._config.interval)
                if self._config.local_health:
                    # In time to be heard before the asker's period ends (Lifeguard §IV-A: 80 % of the timeout).
                    self._effects.append(SetTimer(f"{_NACK}{relayed}", self._config.probe_timeout * 4 // 5))
            case Ack(sequence):
                self._on_ack(sequence)
            case Nack(sequence) if self._probe is not None and sequence == self._probe.sequence:
                self._probe.nacks += 1

    def _on_ack(self, sequence: int) -> None:
        probe = self._probe
        if probe is not None and sequence == probe.sequence:
            if not probe.acked:
                probe.acked = True
                self._effects.append(CancelTimer(_PROBE))
                self._adjust_health(-1)
        elif (relay := self._relays.pop(sequence, None)) is not None:
            self._effects.append(CancelTimer(f"{_NACK}{sequence}"))
            self._send(relay.asker, Ack(relay.sequence, self._gossip_for(relay.asker)))

    def _nack(self, relayed: int) -> None:
        # The relay stays: should the target answer yet, the asker will want to know.
        if (relay := self._relays.get(relayed)) is not None:
            self._send(relay.asker, Nack(relay.sequence))

    def _send(self, to: NodeId, message: Message) -> None:
        self._sent += 1
        self._effects.append(Send(to, message))

    # ---- what is believed (SWIM §4.2) ----------------------------------------------------------------------------

    def _learn(self, update: Update) -> None:
        """Take in news, one's own or another's: believe it, pass it on, and act on it, if it is news."""
        member = update.member
        if member == self.node:
            self._defend(update)
        elif self._overrides(update):
            self._believe(update)
            self._spread(update)
        elif update.standing is Standing.SUSPECT and self.belief(member) == (update.incarnation, Standing.SUSPECT):
            self._confirm(update)

    def _overrides(self, update: Update) -> bool:
        return (update.incarnation, update.standing) > self.belief(update.member)

    def _is_refuted(self, update: Update) -> bool:
        """Whether it accuses this member of what it has refuted already."""
        accuses = update.member == self.node and update.standing is not Standing.ALIVE
        return accuses and update.incarnation < self.incarnation

    def _defend(self, update: Update) -> None:
        """Refute, by a new incarnation, what is said of this member's present one or of one that it cannot recall.

        Who speaks of an earlier one has missed the refutation: it is news once more.
        """
        if update.standing is Standing.ALIVE:
            return
        if update.incarnation >= self.incarnation:
            self.incarnation = update.incarnation + 1
            self._effects.append(Trace(trace.Incarnated(self.incarnation, update.incarnation)))
            self._adjust_health(1)
        self._spread(Update(self.node, Standing.ALIVE, self.incarnation, self.node))

    def _believe(self, update: Update) -> None:
        member, standing = update.member, update.standing
        if self.standing(member) is Standing.FAILED and standing is not Standing.FAILED:
            self._failed.remove(member)
        suspicion = self._suspicions.pop(member, None)
        if suspicion is not None:
            self._effects.append(CancelTimer(_SUSPICION + member))
        # Not by the update's source: what this node said before it was restarted may come back from others.
        by_itself = standing is Standing.FAILED and not self._told
        after = self._now - suspicion.since if suspicion is not None and by_itself else None
        self._beliefs[member] = Belief(update.incarnation, standing)
        self._effects.append(Trace(trace.believed(member, standing, update.incarnation, after)))
        if standing is Standing.SUSPECT:
            self._suspicions[member] = _Suspicion(self._now, (update.source,))
            self._await_refutation(member)
        elif standing is Standing.FAILED:
            self._failed.append(member)

    def _confirm(self, update: Update) -> None:
        """Somebody else came to the same suspicion by itself; the first who do shorten it, and are worth passing on."""
        suspicion = self._suspicions.get(update.member)
        if suspicion is None or not self._config.dynamic_suspicion or update.source in suspicion.sources:
            return
        if len(suspicion.sources) > self._config.confirmations(len(self._roster.names)):
            return
        self._suspicions[update.member] = suspicion._replace(sources=(*suspicion.sources, update.source))
        self._await_refutation(update.member)
        self._spread(update)

    def _await_refutation(self, member: NodeId) -> None:
        self._effects.append(SetTimer(_SUSPICION + member, max(0, self._ends(self._suspicions[member]) - self._now)))

    def _ends(self, suspicion: _Suspicion) -> Nanoseconds:
        return suspicion.since + self._config.suspicion_timeout(len(self._roster.names), len(suspicion.sources) - 1)

    def _on_suspicion_over(self, member: NodeId) -> None:
        suspicion = self._suspicions.get(member)
        if suspicion is None:
            return
        if self._now < self._ends(suspicion):  # the clock has slowed down since the timer was set
            self._await_refutation(member)
        else:
            self._learn(Update(member, Standing.FAILED, self.belief(member).incarnation, self.node))

    # ---- gossip (SWIM §4.1) --------------------------------------------------------------------------------------

    def _spread(self, update: Update) -> None:
        self._rumours[update.member] = _Rumour(update)

    def _gossip_for(self, to: NodeId) -> list[Update]:
        """The news least often told, and first what the receiver must hear: that it is not taken for alive."""
        gossip: list[Update] = []
        incarnation, standing = self.belief(to)
        if standing is Standing.FAILED or (standing is Standing.SUSPECT and self._config.buddy):
            gossip.append(Update(to, standing, incarnation, self.node))
        if self._rumours:
            told = sorted(self._rumours.values(), key=lambda rumour: rumour.times)[: self._config.max_gossip]
            for rumour in told:
                rumour.times += 1
                gossip.append(rumour.update)
                if rumour.times >= self._transmissions:
                    del self._rumours[rumour.update.member]
        return gossip


class _Walk:
    """Positions 0 to ``size`` − 1 in an order drawn anew each round, every one once a round, in constant memory.

    A round is a random start and a random stride that has no divisor in common with the size. It bounds the time to
    come past a member to two rounds, as the paper's shuffled list does, which a group of 10,000 would need 10,000 of.
    """

    __slots__ = ("_left", "_position", "_random", "_size", "_stride")

    def __init__(self, size: int, random: Random) -> None:
        self._size, self._random = size, random
        self._left = self._position = self._stride = 0

    def next(self) -> int:
        if self._left == 0:
            self._left = self._size
            self._position = int(self._random.random() * self._size)
            self._stride = 1 + int(self._random.random() * self._size)
            while math.gcd(self._stride, self._size) > 1:
                self._stride += 1
        self._left -= 1
        self._position = (self._position + self._stride) % self._size
        return self._position
