"""Small processes for the runtime's tests, loaded by their configuration's ``kind`` as a user's own would be."""

from __future__ import annotations

import msgspec

from apps.process import (
    Effect,
    Event,
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
)
from apps.runtime.config import Config, parameters
from apps.runtime.kinds import Kind


class Counted(msgspec.Struct, tag_field="ev", tag="counted"):
    value: int


class Heard(msgspec.Struct, tag_field="ev", tag="heard"):
    sender: str
    message: int


class Counter:
    """Adds what clients ask it to, and says the sum when it is on disk. A command of 0 makes it fail."""

    def __init__(self) -> None:
        self.sum = 0
        self.token = 0
        self.waiting: list[tuple[int, Requested, int]] = []

    def handle(self, now: int, event: Event) -> list[Effect]:
        if isinstance(event, Started):
            self.sum = sum(len(record) for record in event.records)
        if isinstance(event, Requested):
            self.sum += 1 / event.command and event.command
            self.token += 1
            self.waiting.append((self.token, event, self.sum))
            return [Persist(self.token, ["x" * event.command])]
        if isinstance(event, Persisted):
            done = [each for each in self.waiting if each[0] <= event.token]
            self.waiting = self.waiting[len(done) :]
            return [
                effect
                for _, asked, value in done
                for effect in (Trace(Counted(value)), Reply(asked.client, asked.request, value))
            ]
        return []


class Pinger:
    """Sends every peer a number every 20 ms, with ``load`` bytes, and leaves a trace of what it hears."""

    def __init__(self, peers: list[str], load: int) -> None:
        self.peers, self.load, self.number = peers, "x" * load, 0

    def handle(self, now: int, event: Event) -> list[Effect]:
        if isinstance(event, Received):
            return [Trace(Heard(event.sender, event.message[0]))]
        if isinstance(event, Started | TimerFired):
            self.number += 1
            sends: list[Effect] = [Send(peer, (self.number, self.load)) for peer in self.peers]
            return [*sends, SetTimer("ping", 20_000_000)]
        return []


class Watchdog:
    """Leaves a trace when no request has come for 300 ms."""

    def handle(self, now: int, event: Event) -> list[Effect]:
        if isinstance(event, Started | Requested):
            return [SetTimer("silence", 300_000_000)]
        if isinstance(event, TimerFired):
            return [Trace(Heard("nobody", 0))]
        return []


class PingerConfig(msgspec.Struct, kw_only=True):
    load: int = 0


def counter(config: Config) -> Kind:
    return Kind("counter", Counter, record=str, command=int, result=int)


def watchdog(config: Config) -> Kind:
    return Kind("watchdog", Watchdog, command=int, result=int)


def pinger(config: Config) -> Kind:
    settings = parameters(config, PingerConfig)
    peers = [name for name in config.nodes if name != config.node]
    return Kind("pinger", lambda: Pinger(peers, settings.load), message=tuple[int, str])
