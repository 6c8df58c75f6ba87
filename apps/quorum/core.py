"""The quorum protocol: one node's part, as a `Process` that takes events and returns effects.

Every node plays two parts. As a *replica* it keeps versions, answers `Fetch` and `Store`, and never acknowledges what
is not on disk. As a *coordinator*, of whatever request comes to it, it asks the key's replicas and answers when enough
of them have. The coordinator may be a replica of the key itself: it then asks itself like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple, TypeAlias

from apps import kv
from apps.backoff import full_jitter
from apps.clocks import HybridClock
from apps.process import (
    Effect,
    Event,
    Nanoseconds,
    NodeId,
    Persist,
    Persisted,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Trace,
    WallClock,
)
from apps.quorum import merkle, messages, trace
from apps.quorum.config import QuorumConfig, QuorumConfigError
from apps.quorum.messages import Boot, Digests, Exchange, Fetch, Fetched, Found, Get, Kept, Put, Store, Stored
from apps.quorum.ring import Ring
from apps.quorum.versions import Version, Versions, context_of, digest, merge, shown

_ANTI_ENTROPY = "anti-entropy"
_HANDOFF = "handoff "
_PATIENCE = "patience "
_DEADLINE = "deadline "

#: Hints handed over at a time, and the longest wait between two attempts, in handoff intervals.
_HANDOFF_BATCH, _HANDOFF_CAP = 64, 16


class _Held(NamedTuple):
    """A message that waits until the records up to ``token`` are on disk."""

    token: int
    to: NodeId
    message: messages.Message


class _Operation:
    """A request under way. It is kept until its deadline, so that late answers still repair what they show.

    ``asked``: each node that was asked in the present phase, with the replica it stands for (itself, mostly).
    ``found``: what each answered to `Fetch`. ``stored``: who has the version on disk.
    """

    def __init__(self, number: int, request: Requested, key: str, write: _Write | None) -> None:
        self.number, self.request, self.key, self.write = number, request, key, write
        self.storing = False
        self.asked: dict[NodeId, NodeId] = {}
        self.found: dict[NodeId, Versions] = {}
        self.stored: list[NodeId] = []
        self.versions: Versions = ()
        self.new: Version | None = None
        self.answered = False


class _Write(NamedTuple):
    """``context``: what the client had seen; ``None`` for what the coordinator has."""

    value: Any
    deleted: bool
    context: dict[str, int] | None


class Quorum:
    """One node of a store, in one incarnation. After a crash, a new one recovers from the records in `Started`.

    ``nodes``: all of them, this one included, the same on each. Of ``random`` only ``random()`` is used.
    Raises `QuorumConfigError` when there are fewer nodes than copies, and `ValueError` for nodes that are no cluster.

    Read-only for observers: ``node``, ``store`` (its own keys), ``hints`` (others', by owner), ``ring``,
    ``last_writer_wins``.
    """

    Message: TypeAlias = messages.Message
    Record: TypeAlias = messages.Record

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: QuorumConfig, random: Random) -> None:
        if node not in nodes or len(set(nodes)) != len(nodes):
            raise ValueError(f"nodes {list(nodes)} must name each node once, {node!r} among them")
        if len(nodes) < config.n:
            raise QuorumConfigError(f"n is {config.n}, but there are only {len(nodes)} nodes to keep copies")
        self.node = node
        self.last_writer_wins = config.versions == "last-writer-wins"
        # So a write ranks above all that were acknowledged before it, and no clock has a say.
        self._asks_before_writing = self.last_writer_wins and config.quorum == "strict"
        self.store: dict[str, Versions] = {}
        self.hints: dict[NodeId, dict[str, Versions]] = {}
        self.ring = Ring(nodes, config.virtual_nodes)
        self._config, self._random = config, random
        self._peers = tuple(peer for peer in nodes if peer != node)
        self._clock = HybridClock(config.max_clock_offset if config.clocks_decide else None)
        self.reads_wall_clock = config.clocks_decide
        self._actor = ""
        self._counter = 0
        self._written: dict[str, Versions] = {}  # what this actor has coordinated, see `versions`
        self._waiting: list[Requested] | None = []  # requests that came before the boot was on disk
        self._taken: dict[NodeId, int] = {}  # the last request taken of each client
        self._number = 0
        self._operations: dict[int, _Operation] = {}
        self._handing: dict[int, tuple[NodeId, str, Versions]] = {}
        self._attempts: dict[NodeId, int] = {}
        self._records: list[messages.Record] = []
        self._token = self._synced = 0
        self._held: deque[_Held] = deque()
        self._changed: dict[str, int] = {}  # by which token each key that was changed of late is on disk
        # In a strict quorum it stays 0, and the hybrid clock counts as Lamport's does: a write is numbered one above
        # all that its coordinator knows of (Lynch & Shvartsman 1997).
        self._wall: Nanoseconds = 0
        self._effects: list[Effect] = []

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if isinstance(event, WallClock):
            self._wall = event.time
            return []
        effects: list[Effect] = []
        self._effects = effects
        match event:
            case Received(sender, message) if sender in self._peers:
                self._on_message(sender, message)
            case Requested(client, request) if request > self._taken.get(client, -1):
                # A copy of a write would be another write, so a request counts once, and not after a later one.
                self._taken[client] = request
                self._on_request(event)
            case TimerFired(timer):
                self._on_timer(timer)
            case Persisted(token):
                self._on_persisted(token)
            case Started(records):
                self._on_started(records)
        self._write_down()
        return effects

    # ---- disk ----------------------------------------------------------------------------------------------------

    def _on_started(self, records: Iterable[messages.Record]) -> None:
        boot = 1
        for record in records:
            if isinstance(record, Boot):
                boot = record.number + 1
            else:
                for version in record.versions:
                    self._clock.restore(version.time)
                self._put_away(record)
        self._actor, self._number = f"{self.node}#{boot}", boot << 32
        self._records.append(Boot(boot))
        hints = {owner: _dots_of(shelf) for owner, shelf in self.hints.items()}
        self._trace(trace.Booted(self._actor, _dots_of(self.store), hints))
        for owner in self.hints:
            self._await_handoff(owner)
        if self._config.anti_entropy:
            self._effects.append(SetTimer(_ANTI_ENTROPY, self._jittered(self._config.anti_entropy_interval)))

    def _put_away(self, record: Kept) -> None:
        shelf = self.store if record.owner is None else self.hints.setdefault(record.owner, {})
        if record.versions:
            shelf[record.key] = record.versions
        else:
            shelf.pop(record.key, None)
        if record.owner is not None and not shelf:
            del self.hints[record.owner]

    def _keep(self, key: str, versions: Versions, owner: NodeId | None = None) -> bool:
        """Merge ``versions`` into what is kept; whether that was news."""
        shelf = self.store if owner is None else self.hints.get(owner, {})
        before = shelf.get(key, ())
        merged = self._merge([*before, *versions])
        if merged == before:
            return False
        if owner is not None and owner not in self.hints:
            self._await_handoff(owner)
        record = Kept(key, merged, owner)
        self._put_away(record)
        self._records.append(record)
        self._changed[key] = self._token + 1
        self._trace(trace.Kept(key, _dots(merged), owner))
        return True

    def _write_down(self) -> None:
        """One `Persist` for all that this event changed; what was said in it, and held back, waits for that."""
        if self._records:
            self._token += 1
            self._effects.append(Persist(self._token, tuple(self._records)))
            self._records.clear()

    def _on_persisted(self, token: int) -> None:
        self._synced = token
        self._changed = {key: changed for key, changed in self._changed.items() if changed > token}
        while self._held and self._held[0].token <= token:
            _, to, message = self._held.popleft()
            self._send(to, message)
        if self._waiting is not None:  # the first thing ever written is the boot
            waiting, self._waiting = self._waiting, None
            for request in waiting:
                self._on_request(request)

    def _once_on_disk(self, to: NodeId, message: messages.Message) -> None:
        token = self._token + bool(self._records)
        if token <= self._synced:
            self._send(to, message)
        else:
            self._held.append(_Held(token, to, message))

    def _send(self, to: NodeId, message: messages.Message) -> None:
        if to == self.node:
            self._on_message(to, message)
        else:
            self._effects.append(Send(to, message))

    # ---- the replica's part --------------------------------------------------------------------------------------

    def _on_message(self, sender: NodeId, message: messages.Message) -> None:
        match message:
            case Fetch(number, key):
                self._tell(sender, number, key)
            case Store(number, key, versions, owner) if self._may_own(owner) and self._takes(sender, versions):
                self._keep(key, versions, owner if owner != self.node else None)
                self._once_on_disk(sender, Stored(number))
            case Fetched(number, versions) if number in self._operations and self._takes(sender, versions):
                self._on_fetched(self._operations[number], sender, versions)
            case Stored(number) if number in self._operations:
                self._on_stored(self._operations[number], sender)
            case Stored(number) if number in self._handing:
                self._on_handed_over(sender, *self._handing.pop(number))
            case Digests(level, digests):
                self._on_digests(sender, level, digests)
            case Exchange(leaves, entries, answer):
                self._on_exchange(sender, leaves, entries, answer)

    def _tell(self, reader: NodeId, number: int, key: str) -> None:
        """Tell a reader what is kept. Where that may count as a copy, and save a write, it has to be on disk first, or
        all who told of it could lose it together.
        """
        fetched = Fetched(number, self._known(key))
        if self._config.linearizable and self._changed.get(key, 0) > self._synced:
            self._once_on_disk(reader, fetched)
        else:
            self._send(reader, fetched)

    def _known(self, key: str) -> Versions:
        """What a reader is told: the node's own, and in a sloppy quorum what it keeps for others too."""
        own = self.store.get(key, ())
        if not self._is_sloppy():
            return own
        return self._merge([*own, *(v for kept in self.hints.values() for v in kept.get(key, ()))])

    def _merge(self, versions: Iterable[Version]) -> Versions:
        return merge(versions, self.last_writer_wins)

    def _may_own(self, owner: NodeId | None) -> bool:
        """Whether there is a node that a fallback could be keeping something for."""
        return owner is None or owner == self.node or owner in self._peers

    def _takes(self, sender: NodeId, versions: Versions) -> bool:
        """Take note of their times. False if one is so far ahead of this node's clock that one of the two clocks must
        be wrong: then they count as lost on the way, which the protocol bears, until time has caught up.
        """
        for version in versions if sender != self.node else ():
            if not self._clock.observe(self._wall, version.time):
                self._trace(trace.Ahead(sender, version.time.physical - self._wall))
                return False
        return True

    # ---- the coordinator's part (Dynamo §4.5) --------------------------------------------------------------------

    def replicas(self, key: str) -> tuple[NodeId, ...]:
        return self.ring.walk(key)[: self._config.n]

    def _on_request(self, request: Requested) -> None:
        if self._waiting is not None:
            self._waiting.append(request)
            return
        write: _Write | None = None
        match request.command:
            case Get(key) | kv.Command(operation=kv.Read(key)):
                pass
            case Put(key, value, context):
                write = _Write(value, value is None, context)
            case kv.Command(operation=kv.Write(key, value)):
                write = _Write(value, False, None)
            case kv.Command(operation=kv.Delete(key)):
                write = _Write(None, True, None)
            case _:
                self._reply(request, kv.Refused("a quorum store has no compare-and-set: that takes consensus"))
                return
        self._number += 1
        operation = _Operation(self._number, request, key, write)
        self._operations[operation.number] = operation
        self._effects.append(SetTimer(f"{_DEADLINE}{operation.number}", self._config.timeout))
        if write is None or self._asks_before_writing:
            self._ask(operation)
        else:
            self._begin_write(operation, write)

    def _ask(self, operation: _Operation) -> None:
        """Begin a phase: ask all replicas, and see after `QuorumConfig.patience` who has kept silent."""
        operation.asked = {}
        self._effects.append(SetTimer(f"{_PATIENCE}{operation.number}", self._config.patience))
        self._ask_each(operation, [(replica, replica) for replica in self.replicas(operation.key)])

    def _ask_each(self, operation: _Operation, pairs: Iterable[tuple[NodeId, NodeId]]) -> None:
        """Ask nodes, each for a replica. This node comes last: it answers at once, which may begin the next phase."""
        for node, replica in sorted(pairs, key=lambda pair: pair[0] == self.node):
            operation.asked[node] = replica
            if operation.storing:
                owner = None if node == replica else replica
                self._send(node, Store(operation.number, operation.key, operation.versions, owner))
            else:
                self._send(node, Fetch(operation.number, operation.key))

    def _begin_write(self, operation: _Operation, write: _Write) -> None:
        key = operation.key
        if self._clock.is_ahead(self._wall, self._clock.time):
            operation.answered = True
            reason = f"the time of day of {self.node} has gone back, by more than clocks may differ"
            self._reply(operation.request, kv.Refused(reason))
            return
        known = self._merge([*self._written.get(key, ()), *self._known(key), *operation.versions])
        context = context_of(known) if write.context is None else write.context
        self._counter += 1
        time = self._clock.tick(self._wall)
        operation.new = Version(self._actor, self._counter, context, time, write.value, write.deleted)
        at = time.physical, time.logical
        self._trace(trace.Written(key, self._actor, self._counter, at, context))
        self._store(operation, self._merge([*known, operation.new]))
        if not self.last_writer_wins:
            self._written[key] = operation.versions

    def _store(self, operation: _Operation, versions: Versions) -> None:
        operation.versions, operation.storing = versions, True
        self._ask(operation)

    def _counts(self, operation: _Operation, node: NodeId) -> bool:
        """Whether ``node`` counts towards the quorum: a replica does, who stands in for one only in a sloppy one."""
        return operation.asked.get(node) == node or self._is_sloppy()

    def _is_sloppy(self) -> bool:
        return self._config.quorum == "sloppy"

    def _on_fetched(self, operation: _Operation, sender: NodeId, versions: Versions) -> None:
        if sender not in operation.found and self._counts(operation, sender):
            operation.found[sender] = versions
            if operation.answered and operation.write is None:  # too late to be counted, in time to be mended
                operation.versions = self._merge([*operation.versions, *versions])
                self._repair(operation)
            elif not operation.storing and len(operation.found) >= self._config.r:
                self._on_read_quorum(operation)

    def _on_read_quorum(self, operation: _Operation) -> None:
        operation.versions = self._merge(v for found in operation.found.values() for v in found)
        if operation.write is not None:
            self._begin_write(operation, operation.write)
        elif self._config.linearizable and not self._is_held_widely(operation):
            # ABD: a read that saw a write must leave it where every later read will see it.
            self._store(operation, operation.versions)
        else:
            self._answer_read(operation)

    def _is_held_widely(self, operation: _Operation) -> bool:
        """Whether a write quorum already has what was found, so that there is nothing to write back."""
        return sum(found == operation.versions for found in operation.found.values()) >= self._config.w

    def _on_stored(self, operation: _Operation, sender: NodeId) -> None:
        if not operation.storing or sender in operation.stored or not self._counts(operation, sender):
            return
        operation.stored.append(sender)
        if len(operation.stored) < self._config.w or operation.answered:
            return
        if (new := operation.new) is None:
            self._answer_read(operation)
            return
        operation.answered = True
        self._trace(trace.Acknowledged(operation.key, new.actor, new.counter, tuple(operation.stored)))
        self._reply(operation.request, kv.Done())

    def _answer_read(self, operation: _Operation) -> None:
        operation.answered = True
        versions = operation.versions
        self._trace(trace.Answered(operation.key, _dots(versions), tuple(operation.found)))
        values = shown(versions)
        if isinstance(operation.request.command, Get):
            self._reply(operation.request, Found(values, context_of(versions)))
        else:
            self._reply(operation.request, kv.Done(values if len(values) > 1 else next(iter(values), None)))
        self._repair(operation)

    def _repair(self, operation: _Operation) -> None:
        """Send what the read found to those of the key's replicas that answered with less (Dynamo §5)."""
        if not self._config.read_repair:
            return
        for replica, found in operation.found.items():
            if operation.asked.get(replica, replica) == replica and self._lacks(found, operation.versions):
                operation.found[replica] = operation.versions
                self._trace(trace.Repaired(operation.key, replica))
                self._send(replica, Store(operation.number, operation.key, operation.versions))

    def _lacks(self, found: Versions, versions: Versions) -> bool:
        return self._merge([*found, *versions]) != found

    def _on_timer(self, timer: str) -> None:
        if timer == _ANTI_ENTROPY:
            self._compare_with_someone()
        elif timer.startswith(_HANDOFF):
            self._hand_over(timer.removeprefix(_HANDOFF))
        elif timer.startswith(_PATIENCE):
            if (operation := self._operations.get(int(timer.removeprefix(_PATIENCE)))) is not None:
                self._stand_in(operation)
        elif (operation := self._operations.pop(int(timer.removeprefix(_DEADLINE)), None)) is not None:
            self._give_up(operation)

    def _stand_in(self, operation: _Operation) -> None:
        """For the replicas that have kept silent: a fallback each, or a hint kept here."""
        if operation.answered and not operation.storing:
            return
        heard = operation.stored if operation.storing else list(operation.found)
        silent = [replica for replica in self.replicas(operation.key) if replica not in heard]
        if self._is_sloppy():
            fallbacks = self.ring.walk(operation.key)[self._config.n :]
            self._ask_each(operation, zip(fallbacks, silent, strict=False))
        elif operation.storing and self._config.hinted_handoff:
            for replica in silent:
                if replica != self.node:
                    self._keep(operation.key, operation.versions, replica)

    def _give_up(self, operation: _Operation) -> None:
        if operation.answered:
            return
        answered = len(operation.stored if operation.storing else operation.found)
        needed = self._config.w if operation.storing else self._config.r
        write = operation.write is not None
        self._trace(trace.Failed(operation.key, write, answered, needed))
        reason = f"{answered} of the {needed} nodes needed for {operation.key} answered in time"
        # What was sent to be stored may be there, and may be read.
        maybe = write and operation.storing
        self._reply(operation.request, kv.Unsure(reason) if maybe else kv.Refused(reason))

    # ---- hinted handoff (Dynamo §4.6) ----------------------------------------------------------------------------

    def _await_handoff(self, owner: NodeId) -> None:
        """Try again after one interval at least, and after longer and longer while the owner keeps silent."""
        interval, attempt = self._config.handoff_interval, self._attempts.get(owner, 0)
        wait = interval + full_jitter(attempt, interval, _HANDOFF_CAP * interval, self._random)
        self._effects.append(SetTimer(_HANDOFF + owner, wait))

    def _hand_over(self, owner: NodeId) -> None:
        hints = self.hints.get(owner)
        if not hints:
            return
        self._attempts[owner] = self._attempts.get(owner, -1) + 1
        self._handing = {number: handing for number, handing in self._handing.items() if handing[0] != owner}
        for key, versions in list(hints.items())[:_HANDOFF_BATCH]:
            self._number += 1
            self._handing[self._number] = (owner, key, versions)
            self._send(owner, Store(self._number, key, versions))
        self._await_handoff(owner)

    def _on_handed_over(self, sender: NodeId, owner: NodeId, key: str, versions: Versions) -> None:
        self._attempts.pop(owner, None)
        # What came in for the owner meanwhile stays.
        if sender == owner and self.hints.get(owner, {}).get(key) == versions:
            record = Kept(key, (), owner)
            self._put_away(record)
            self._records.append(record)
            self._trace(trace.HandedOver(key, owner))

    # ---- anti-entropy (Dynamo §4.7) ------------------------------------------------------------------------------

    def _jittered(self, interval: Nanoseconds) -> Nanoseconds:
        return interval // 2 + int(self._random.random() * interval)

    def _compare_with_someone(self) -> None:
        self._effects.append(SetTimer(_ANTI_ENTROPY, self._jittered(self._config.anti_entropy_interval)))
        if self._peers:
            peer = self._peers[int(self._random.random() * len(self._peers))]
            self._send(peer, Digests(0, {0: self._tree(peer)[0][0]}))

    def _tree(self, peer: NodeId) -> merkle.Tree:
        return merkle.tree((key, digest(key, self.store[key])) for key in self._shared(peer))

    def _shared(self, peer: NodeId) -> list[str]:
        """The keys here that ``peer`` keeps too."""
        return [key for key in self.store if peer in self.replicas(key) and self.node in self.replicas(key)]

    def _on_digests(self, sender: NodeId, level: int, digests: Mapping[int, bytes]) -> None:
        if not 0 <= level <= merkle.DEPTH:
            return
        tree = self._tree(sender)
        if not (differing := merkle.differing(tree, level, digests)):
            return
        if level < merkle.DEPTH:
            self._send(sender, Digests(level + 1, merkle.children(tree, level, differing)))
        else:
            self._send(sender, Exchange(differing, self._in_leaves(sender, differing), answer=True))

    def _in_leaves(self, peer: NodeId, leaves: Sequence[int]) -> dict[str, Versions]:
        return {key: self.store[key] for key in self._shared(peer) if merkle.leaf(key) in leaves}

    def _on_exchange(
        self, sender: NodeId, leaves: Sequence[int], entries: Mapping[str, Versions], answer: bool
    ) -> None:
        theirs = {
            key: versions
            for key, versions in entries.items()
            if self.node in self.replicas(key) and self._takes(sender, versions)
        }
        news = sum(self._keep(key, versions) for key, versions in theirs.items())
        if news:
            self._trace(trace.Synchronised(sender, news))
        if answer:
            mine = self._in_leaves(sender, leaves)
            lacking = {key: versions for key, versions in mine.items() if self._lacks(entries.get(key, ()), versions)}
            if lacking:
                self._send(sender, Exchange(leaves, lacking, answer=False))

    # ---- effects -------------------------------------------------------------------------------------------------

    def _reply(self, request: Requested, result: messages.Result) -> None:
        self._effects.append(Reply(request.client, request.request, result))

    def _trace(self, event: Any) -> None:
        self._effects.append(Trace(event))


def _dots(versions: Versions) -> list[trace.Dot]:
    return [(version.actor, version.counter) for version in versions]


def _dots_of(shelf: Mapping[str, Versions]) -> dict[str, list[trace.Dot]]:
    return {key: _dots(versions) for key, versions in shelf.items()}
