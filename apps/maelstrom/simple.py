"""The workloads that take one node's word: echo, and ids that no other node gives out."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from apps.process import Effect, Event, Nanoseconds, NodeId, Reply, Requested


class Body(msgspec.Struct, frozen=True, tag_field="type"):
    """The base of bodies; the driver adds ``msg_id`` and ``in_reply_to``."""


class Echo(Body, frozen=True, tag="echo"):
    echo: Any


class EchoOk(Body, frozen=True, tag="echo_ok"):
    echo: Any


class Generate(Body, frozen=True, tag="generate"):
    pass


class GenerateOk(Body, frozen=True, tag="generate_ok"):
    id: str


class Echoes:
    """Answers what it is asked."""

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if isinstance(event, Requested):
            return [Reply(event.client, event.request, EchoOk(event.command.echo))]
        return []


class UniqueIds:
    """Ids that nobody has to agree on: the node's name, a number drawn for this incarnation, and a counter.

    ``random``: of the incarnation's own, or a node that is started again gives out its ids a second time.
    """

    def __init__(self, node: NodeId, random: Random) -> None:
        self._prefix = f"{node}-{int(random.random() * 2**52):x}"
        self._count = 0

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if not isinstance(event, Requested):
            return []
        self._count += 1
        return [Reply(event.client, event.request, GenerateOk(f"{self._prefix}-{self._count}"))]
