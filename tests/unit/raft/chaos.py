"""A random schedule of everything that can go wrong, with clients at work, drawn from one seed.

``python -m tests.unit.raft.chaos [seeds] [first] [module:Class]`` plays schedules and prints the seeds that failed.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections import defaultdict
from typing import Any, Literal

import msgspec

from apps import kv
from apps.process import Reply, Requested
from apps.raft import Raft, RaftConfig
from apps.raft.messages import VoteReply, configurations
from tests.unit.raft.cluster import MS, Cluster, Conditions
from tests.unit.raft.history import FOREVER, Operation, contradictions

KEYS = ("x", "y")

#: What a schedule is mostly about, and the faults it draws from.
THEMES = {
    "anything": ("isolate", "mute", "split", "one way", "cut", "heal", "heal", "crash", "crash leader", "crash all"),
    "deposed leaders": ("isolate", "mute", "heal"),
    "contested votes": ("heal", "crash leader"),
}


class Client:
    """One operation at a time; sends a command again in its session until it is answered, or gives up on both."""

    def __init__(self, name: str, chaos: Chaos, reads: float) -> None:
        self.name = name
        self._reads = reads
        self._chaos = chaos
        self._sessions = 0
        self._sequence = 0
        self._command: kv.Command | None = None
        self._operation: Operation | None = None
        self._target = chaos.pick(chaos.cluster.names)
        self._attempt = 0
        self._attempts = 0
        self.last_seen: dict[str, Any] = {}

    def begin(self) -> None:
        chaos = self._chaos
        if chaos.is_over:
            return
        key = chaos.pick(KEYS)
        self._sequence += 1
        operation: kv.Operation
        value: Any = None
        kind = "write"
        if chaos.random.random() < self._reads:
            operation, kind = kv.Read(key), "read"
        else:
            chaos.values += 1
            value = chaos.values
            is_cas = chaos.random.random() < 0.3
            operation = kv.Cas(key, self.last_seen.get(key), value) if is_cas else kv.Write(key, value)
        self._command = kv.Command(f"{self.name}.{self._sessions}", self._sequence, self._sequence, operation)
        self._operation = Operation(kind, key, value, chaos.cluster.now)
        chaos.operations.append(self._operation)
        self._attempts = 0
        self._send()

    def _send(self) -> None:
        chaos, command = self._chaos, self._command
        self._attempts += 1
        if self._attempts > 8:
            # It may yet take effect: a session that went on would have to say that it has the answer.
            self._sessions += 1
            self._sequence = 0
            self.begin()
            return
        chaos.attempts += 1
        attempt = self._attempt = chaos.attempts
        chaos.waiting[attempt] = self
        target = self._target
        if chaos.arrives():
            chaos.cluster.call(
                chaos.client_delay(), lambda: chaos.cluster.deliver(target, Requested(self.name, attempt, command))
            )
        chaos.cluster.call(chaos.patience, lambda: self._give_up_on(attempt))

    def _give_up_on(self, attempt: int) -> None:
        if attempt == self._attempt:
            self._target = self._chaos.pick(self._chaos.cluster.names)
            self._send()

    def answered(self, attempt: int, result: kv.Result) -> None:
        if attempt != self._attempt:
            return
        self._attempt = 0
        operation, command = self._operation, self._command
        assert operation is not None
        assert command is not None
        match result:
            case kv.Done(value):
                operation.completed = self._chaos.cluster.now
                if operation.kind == "read":
                    operation.value = value
                self.last_seen[operation.key] = operation.value
                if operation.kind == "write":
                    self._chaos.acknowledged.append((command.session, command.sequence))
            case kv.Refused(_):
                self._chaos.operations.remove(operation)
            case kv.NotLeader(leader):
                self._target = leader or self._chaos.pick(self._chaos.cluster.names)
                self._chaos.cluster.call(5, self._send)
                return
            case kv.Unsure(_):
                self._send()
                return
            case kv.Busy(_):
                self._chaos.cluster.call(5, self._send)
                return
        self._chaos.cluster.call(self._chaos.random.random() * self._chaos.pause, self.begin)


class Chaos:
    """One schedule: a cluster, its conditions, its faults and its clients, all chosen by ``seed``."""

    def __init__(self, seed: int, make: type[Raft] = Raft) -> None:
        self.random = random.Random(seed)
        self._theme = self.pick(("anything", "anything", "deposed leaders", "contested votes"))
        contested = self._theme == "contested votes"
        shortest = self.pick((30, 60, 150)) * MS
        modes = random.Random(f"{seed} modes")
        reads: Literal["read_index", "lease"] = "lease" if modes.random() < 0.4 and not contested else "read_index"
        self.config = RaftConfig(
            election_timeout=(shortest, shortest + shortest // self.pick((1, 2, 10))),
            heartbeat_interval=shortest // 3,
            pre_vote=self.random.random() < 0.5 and not contested,
            check_quorum=self.random.random() < 0.5,
            max_batch_entries=self.pick((1, 3, 1000)),
            max_inflight=self.pick((1, 2, 50)),
            max_uncommitted_entries=2 if modes.random() < 0.2 and not contested else 100_000,
            snapshot_entries=5 if modes.random() < 0.3 else 50_000,
            reads=reads,
            follower_reads=modes.random() < 0.5 and not contested,
        )
        self._transfers = 0.0 if modes.random() < 0.5 or contested else 5.0  # election timeouts between two, on average
        self._modes = modes
        self._span = self.config.election_timeout[1] / MS  # what everything else is measured in
        self.conditions = Conditions(
            stray=self.pick((0.0, 0.05)),
            stray_delay=5 * shortest,
            delay=(MS // 5, shortest // 2 if contested else self.pick((1, 4, 20)) * MS),
            loss=self.pick((0.0, 0.0, 0.02, 0.2)),
            duplicate=self.pick((0.0, 0.1)),
            write=(MS // 10, self.pick((1, 5, 20)) * MS),
        )
        size = self.pick((3, 3, 5))
        names = [f"n{number}" for number in range(1, size + 1)]
        # Who is left out and does not know of it disturbs the others for ever, unless they ask before they vote.
        self._members = random.Random(f"{seed} members")
        self._changes = self.config.pre_vote and self._members.random() < 0.5
        if self._changes:
            self.config = msgspec.structs.replace(self.config, voters=tuple(names[:3]))
        self.cluster = Cluster(
            names,
            self.config,
            seed=seed,
            make=make,
            conditions=self.conditions,
        )
        if reads == "lease":
            self.cluster.rates = {
                name: 1 + modes.random() * self.config.clock_drift_bound for name in self.cluster.names
            }
        self.patience = 2 * self._span
        self.pause = 0.2 * self._span
        self.values = 0
        self.attempts = 0
        self.is_over = False
        self.operations: list[Operation] = []
        self.acknowledged: list[tuple[str, int]] = []
        self.waiting: dict[int, Client] = {}
        self._crashes_voters = 0.5 if contested else self.pick((0.0, 0.0, 0.2))
        self.cluster.on_reply = self._on_reply
        self.cluster.passes = self._on_message

    def pick(self, choices: Any) -> Any:
        return choices[int(self.random.random() * len(choices))]

    def arrives(self) -> bool:
        return self.random.random() >= self.conditions.loss

    def client_delay(self) -> float:
        return self.random.random() * self.conditions.delay[1] / MS

    def play(self, timeouts: int = 25) -> list[str]:
        """Play the schedule for some election ``timeouts``, heal, and return what went wrong."""
        # Who only reads stays with a node as long as it answers, deposed or not.
        for number, reads in enumerate((1.0, 0.5, 0.2, 0.0)):
            self.cluster.call(self.random.random() * self._span, Client(f"c{number}", self, reads).begin)
        self.cluster.call(self._span, self._fault)
        if self._transfers:
            self.cluster.call(self._span, self._transfer)
        if self._changes:
            self.cluster.call(self._span, self._change)
        self.cluster.run(timeouts * self._span)
        self.is_over = True
        self.cluster.passes = lambda sender, to, message: True
        self._restart_all()
        self.cluster.heal()
        self.cluster.conditions = Conditions()
        return [*map(str, self.cluster.violations), *self._settle(), *self._judge()]

    # ---- what goes wrong

    def _fault(self) -> None:
        if self.is_over:
            return
        cluster = self.cluster
        leader = cluster.leader or self.pick(cluster.names)
        some = [name for name in cluster.names if self.random.random() < 0.5]
        match self.pick(THEMES[self._theme]):
            case "isolate":
                cluster.isolate(leader)
            case "mute":
                cluster.block([leader], cluster.names)
            case "split":
                cluster.partition(some, [name for name in cluster.names if name not in some])
            case "one way":
                cluster.block([self.pick(cluster.names)], some)
            case "cut":
                cluster.cut(self.pick(cluster.names), self.pick(cluster.names))
            case "heal":
                cluster.heal()
            case "crash":
                self._crash(self.pick(cluster.names))
            case "crash leader":
                self._crash(leader)
            case "crash all":
                for name in cluster.names:
                    self._crash(name)
        cluster.call(self.random.random() * 4 * self._span, self._fault)

    def _transfer(self) -> None:
        if self.is_over:
            return
        names = self.cluster.names
        self.cluster.transfer(self.cluster.leader or names[0], names[int(self._modes.random() * len(names))])
        self.cluster.call(self._modes.random() * 2 * self._transfers * self._span, self._transfer)

    def _change(self) -> None:
        if self.is_over:
            return
        names = sorted(self.cluster.names, key=lambda name: self._members.random())
        voters = 1 + int(self._members.random() * len(names))
        learners = int(self._members.random() * (len(names) - voters + 1))
        asked = self.cluster.leader or names[0]
        self.cluster.change(asked, names[:voters], names[voters : voters + learners])
        self.cluster.call(self._members.random() * 6 * self._span, self._change)

    def _crash(self, name: str) -> None:
        if self.cluster.nodes[name].alive:
            self.cluster.crash(name)
            pause = self.pick((0.01, 0.1, 3.0)) * self._span * self.random.random()
            self.cluster.call(pause, lambda: self._restart(name))

    def _restart(self, name: str) -> None:
        if not self.cluster.nodes[name].alive:
            self.cluster.restart(name)

    def _restart_all(self) -> None:
        for name in self.cluster.names:
            self._restart(name)

    def _on_message(self, sender: str, to: str, message: Any) -> bool:
        if isinstance(message, VoteReply) and message.granted and self.random.random() < self._crashes_voters:
            self.cluster.call(0, lambda: self._crash(sender))
        return True

    def _on_reply(self, reply: Reply) -> None:
        client = self.waiting.get(reply.request) if reply.client != "client" else None
        if client and self.arrives():
            self.cluster.call(self.client_delay(), lambda: client.answered(reply.request, reply.result))

    # ---- what must be true in the end

    def _settle(self) -> list[str]:
        """The healed cluster must elect a leader and take a write, and then all nodes must have done the same."""
        cluster = self.cluster
        cluster.run(20 * self._span)
        if not cluster.leader:
            return ["no leader after everything was healed"]
        number = cluster.write(cluster.leader, "last", self.values)
        cluster.run(20 * self._span)
        found = [] if isinstance(cluster.replies.get(number), kv.Done) else ["no write after everything was healed"]
        leader = cluster.core(cluster.leader)
        members = [cluster.core(name) for name in leader.configuration.members]
        found += [f"{core.node} did not catch up" for core in members if core.applied != leader.log.last]
        return found + [str(violation) for violation in cluster.invariants.log_matching(cluster.cores)]

    def _judge(self) -> list[str]:
        """What clients were told must be so."""
        decode = msgspec.msgpack.Decoder(kv.Command).decode
        entries = self.cluster.invariants.committed
        written = [entry.command for entry in entries if entry.command and not configurations([entry])]
        committed = [decode(command) for command in written]
        present = {(command.session, command.sequence) for command in committed}
        found = [f"acknowledged, but lost: {one}" for one in self.acknowledged if one not in present]
        by_key: dict[str, list[Operation]] = defaultdict(list)
        for operation in self.operations:
            by_key[operation.key].append(operation)
        for key in KEYS:
            found += [f"{key}: {reason}" for reason in contradictions(by_key[key])]
        return found


def load(path: str) -> type[Raft]:
    module, _, name = path.partition(":")
    loaded: type[Raft] = getattr(importlib.import_module(module), name)
    return loaded


def main() -> None:
    seeds, first = (int(argument) for argument in (sys.argv[1:3] + ["200", "0"][len(sys.argv[1:3]) :]))
    make = load(sys.argv[3]) if len(sys.argv) > 3 else Raft
    operations = 0
    for seed in range(first, first + seeds):
        chaos = Chaos(seed, make)
        for reason in chaos.play():
            print(seed, reason, flush=True)
        operations += sum(operation.completed < FOREVER for operation in chaos.operations)
    print(f"{seeds} schedules from seed {first}, {operations:,} operations completed")


if __name__ == "__main__":
    main()
