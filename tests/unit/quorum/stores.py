"""Quorum stores in virtual time, with clients that send each request once, and what must hold of them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from apps import kv
from apps.clocks import HybridTime
from apps.process import NodeId
from apps.quorum import Found, Get, Put, Quorum, QuorumConfig, Version
from apps.quorum.invariants import Invariants, Violation, convergence, nothing_lost
from apps.quorum.trace import Acknowledged, Written
from experiments.checking.history import Operation
from experiments.simulation.group import Conditions, Group

MS = 1_000_000
NAMES = ("n1", "n2", "n3", "n4", "n5")


class Cluster(Group):
    """``violations``: what the invariants found, after every step."""

    def __init__(
        self,
        config: QuorumConfig,
        *,
        names: Sequence[NodeId] = NAMES,
        seed: int = 0,
        conditions: Conditions | None = None,
        make: type[Quorum] = Quorum,
    ) -> None:
        super().__init__(
            names,
            lambda name, random: make(name, names, config, random),
            seed=seed,
            conditions=conditions or Conditions(),
        )
        self.violations: list[Violation] = []
        self._invariants = Invariants(config.versions == "last-writer-wins")
        self.on_step = self._observe
        self.run(10 * MS)

    def _observe(self, name: NodeId) -> None:
        self.violations += self._invariants.observe(self.process(name))

    def nodes(self) -> list[Quorum]:
        return [self.process(name) for name in self.names]

    def command(self, name: NodeId, operation: kv.Operation) -> int:
        return self.request(name, kv.Command("s", 1, 0, operation))

    def do(self, name: NodeId, command: Any, wait: int = 400 * MS) -> Any:
        """Ask, and return the answer; ``None`` when there is none in time."""
        operations = (kv.Read, kv.Write, kv.Delete, kv.Cas)
        number = self.command(name, command) if isinstance(command, operations) else self.request(name, command)
        self.run(wait)
        return self.replies.get(number)

    def at_the_end(self) -> list[Violation]:
        """Heal, wait, and ask for all that must hold of a store that has come to rest."""
        self.heal()
        for name in self.names:
            if name not in self.alive:
                self.restart(name)
        self.run(25_000 * MS)
        written: dict[tuple[str, int], Version] = {}
        acknowledged: dict[str, list[Version]] = {}
        for _, _, event in self.evidence:
            if isinstance(event, Written):
                version = Version(event.actor, event.counter, event.context, HybridTime(*event.time), None)
                written[event.actor, event.counter] = version
            elif isinstance(event, Acknowledged):
                acknowledged.setdefault(event.key, []).append(written[event.actor, event.counter])
        return [*self.violations, *convergence(self.nodes()), *nothing_lost(self.nodes(), acknowledged)]


class Chaos:
    """A random schedule of operations, partitions, crashes and losses."""

    def __init__(self, seed: int, config: QuorumConfig, make: type[Quorum] = Quorum) -> None:
        self.random = Random(f"{seed} chaos")
        conditions = Conditions(delay=(MS, 15 * MS), write=(MS, 10 * MS), loss=0.02, duplicate=0.02)
        self.cluster = Cluster(config, seed=seed, conditions=conditions, make=make)
        self.asked: dict[int, tuple[str, str, Any, int]] = {}
        self._siblings = config.versions == "siblings"

    def play(self, steps: int = 120) -> list[Violation]:
        cluster, random = self.cluster, self.random
        for number in range(steps):
            draw = random.random()
            if draw < 0.04:
                names = sorted(cluster.names, key=lambda _: random.random())
                split = 1 + int(random.random() * 4)
                cluster.heal()
                cluster.partition(names[:split], names[split:])
            elif draw < 0.08:
                cluster.heal()
            elif draw < 0.11 and len(cluster.alive) > 3:
                cluster.crash(self._someone())
            elif draw < 0.16 and len(cluster.alive) < 5:
                cluster.restart(next(name for name in cluster.names if name not in cluster.alive))
            else:
                self._operate(number)
            cluster.run(int(random.random() * 40 * MS))
        return cluster.at_the_end()

    def history(self) -> list[Operation]:
        """What clients saw, without what had no effect. Call it after `play`."""
        moments = sorted(
            [(called, 0, request) for request, (*_, called) in self.asked.items()]
            + [(t, 1, request) for request, t in self.cluster.replied.items()]
        )
        position = {(kind, request): at for at, (_, kind, request) in enumerate(moments)}
        operations = []
        for request, (f, key, value, called) in self.asked.items():
            reply = self.cluster.replies.get(request)
            done = isinstance(reply, Found | kv.Done)
            if not done and (f == "read" or isinstance(reply, kv.Refused)):
                continue
            result = next(iter(reply.values), None) if isinstance(reply, Found) else value
            operations.append(
                Operation(
                    process=request,
                    f=f,
                    value=[key, value],
                    type="ok" if done else "info",
                    result=[key, result],
                    invoke=called,
                    complete=self.cluster.replied[request] if done else None,
                    called=position[0, request],
                    returned=position[1, request] if done else None,
                )
            )
        return operations

    def _someone(self) -> NodeId:
        return self.cluster.alive[int(self.random.random() * len(self.cluster.alive))]

    def _operate(self, number: int) -> None:
        key, draw = f"k{int(self.random.random() * 3)}", self.random.random()
        name = self._someone()
        if draw < 0.5:
            f, value, request = "read", None, self.cluster.request(name, Get(key))
        elif self._siblings:
            f, value, request = "write", number, self.cluster.request(name, Put(key, number, {}))
        else:
            f, value = "write", number if draw < 0.9 else None
            operation = kv.Write(key, value) if value is not None else kv.Delete(key)
            request = self.cluster.command(name, operation)
        self.asked[request] = f, key, value, self.cluster.now
