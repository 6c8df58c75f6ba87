"""Every mutant as a kind, ``implementation = "tests.unit.simulation.mutant_kinds:AcksEarly"``, and a kind of client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from apps import kv
from apps.process import Effect, Event, Nanoseconds, Process, Received, Request, Response, Send
from apps.quorum import Command, Found, Get, Put, Result
from apps.runtime.config import Config
from apps.runtime.kinds import Kind, kind_of, quorum, raft, swim
from tests.unit.detectors import mutants as of_swim
from tests.unit.quorum import mutants as of_quorum
from tests.unit.raft import mutants as of_raft


def __getattr__(name: str) -> Callable[[Config], Kind]:
    for mutants, kind in ((of_raft.MUTANTS, raft), (of_quorum.MUTANTS, quorum), (of_swim.MUTANTS, swim)):
        for core in mutants:
            if core.__name__ == name:
                return partial(kind, core=core)
    raise AttributeError(name)


class Reconciling:
    """A register's ``client`` that says what its writes are to replace, as Dynamo's do: what it has read last."""

    def __init__(self, client: Process) -> None:
        self._client = client
        self._asked: dict[int, str] = {}
        self._seen: dict[str, dict[str, int]] = {}

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if isinstance(event, Received) and isinstance(event.message.result, Found):
            number, found = event.message.request, event.message.result
            self._seen[self._asked[number]] = found.context
            value = found.values if len(found.values) > 1 else next(iter(found.values), None)
            event = Received(event.sender, Response(number, kv.Done(value)))
        return [self._translated(effect) for effect in self._client.handle(now, event)]

    def _translated(self, effect: Effect) -> Effect:
        if not isinstance(effect, Send):
            return effect
        number, operation = effect.message.request, effect.message.command.operation
        key = self._asked[number] = operation.key
        command: Any = Get(key)
        if isinstance(operation, kv.Write):
            command = Put(key, operation.value, self._seen.get(key, {}))
        return Send(effect.to, Request(number, command))


def reconciling(config: Config) -> Kind:
    plain = kind_of(msgspec.structs.replace(config, process={**config.process, "kind": "client"}))
    return replace(plain, make=lambda: Reconciling(plain.make()), command=Command, result=Result)
