"""The clients: a history claims no more than is known, whatever becomes of requests and answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apps import kv
from apps.process import (
    IDLE,
    CancelTimer,
    Effect,
    Event,
    Received,
    Reply,
    Request,
    Requested,
    Response,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Trace,
)
from apps.workload import Flood, FloodConfig, FloodSummary, HistoryEvent, RegisterClient, RegisterConfig, Start, Stop

MS = 1_000_000
NODES = ("n1", "n2", "n3")
MIX: dict[Any, float] = {"read": 0.4, "write": 0.3, "cas": 0.2, "delete": 0.1}

Answer = Callable[[str, Request], list[tuple[int, str, kv.Result]]]


class World:
    """Virtual time for one client. ``answer`` gets each request and says what comes back: (delay, node, result)."""

    def __init__(self, client: Any, answer: Answer) -> None:
        self.client, self.answer = client, answer
        self.now = 0
        self.timers: dict[str, int] = {}
        self.coming: list[tuple[int, int, Event]] = []
        self.sent: list[tuple[int, str, Request]] = []
        self.history: list[tuple[int, Any]] = []
        self.replies: list[tuple[int, Reply]] = []
        self.step(Started())

    def step(self, event: Event) -> None:
        for each in (event, IDLE):
            for effect in self.client.handle(self.now, each):
                self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case SetTimer(timer, after):
                self.timers[timer] = self.now + after
            case CancelTimer(timer):
                self.timers.pop(timer, None)
            case Trace(event):
                self.history.append((self.now, event))
            case Reply():
                self.replies.append((self.now, effect))
            case Send(to, request):
                self.sent.append((self.now, to, request))
                for delay, node, result in self.answer(to, request):
                    event = Received(node, Response(request.request, result))
                    self.coming.append((self.now + delay, len(self.sent), event))
            case _:
                raise AssertionError(f"a client has no use for {effect}")

    def run(self, until: int) -> None:
        while True:
            moments = [(at, 0, name) for name, at in self.timers.items()] + [(at, 1, n) for at, n, _ in self.coming]
            if not moments or min(moments)[0] > until:
                self.now = until
                return
            self.now = max(self.now, min(moments)[0])
            due = [item for item in self.coming if item[0] <= self.now]
            if due:
                self.coming.remove(min(due, key=lambda item: item[:2]))
                self.step(min(due, key=lambda item: item[:2])[2])
            else:
                timer = min(self.timers, key=lambda name: (self.timers[name], name))
                del self.timers[timer]
                self.step(TimerFired(timer))

    def operations(self) -> list[HistoryEvent]:
        return [event for _, event in self.history]


def register(answer: Answer, seed: int = 1, **changes: Any) -> World:
    config = {"thread": 1, "threads": 3, "rate": 100.0, "keys": 3, "mix": MIX, "timeout": 400 * MS, **changes}
    return World(RegisterClient("c1", NODES, RegisterConfig(**config), Random(seed)), answer)


def started(answer: Answer, seed: int = 1, *, stop: int = 1000 * MS, **changes: Any) -> World:
    world = register(answer, seed, **changes)
    world.step(Requested("", 1, Start(0)))
    world.step(Requested("", 2, Stop(stop)))
    return world


class Cluster:
    """Answers as a linearizable map would, behind a network that loses, delays and repeats."""

    def __init__(self, random: Random, loss: float) -> None:
        self.store, self.random, self.loss = kv.Store(), random, loss
        self.effects: list[kv.Command] = []

    def __call__(self, node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        draw = self.random.random
        if draw() < self.loss:
            return []
        delay = int(draw() * 600 * MS) if draw() < 0.1 else int(draw() * 20 * MS)
        if draw() < 0.2:
            return [(delay, node, kv.NotLeader(NODES[int(draw() * 3)] if draw() < 0.8 else None))]
        command = request.command
        result = (
            kv.Done(self.store.read(command.operation.key))
            if isinstance(command.operation, kv.Read)
            else self.store.apply(command)
        )
        self.effects.append(command)
        if draw() < self.loss:
            return []
        if draw() < 0.1:
            return [(delay, node, kv.Unsure("lost leadership"))]
        return [(delay, node, result)] * (2 if draw() < 0.1 else 1)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_history_is_well_formed_and_never_claims_that_what_happened_did_not(seed: int, loss: float) -> None:
    cluster = Cluster(Random(seed), loss)
    world = started(cluster, seed)
    world.run(3000 * MS)

    took_effect = {command.operation.value for command in cluster.effects if isinstance(command.operation, kv.Write)}
    under_way: HistoryEvent | None = None
    process = 1
    written = []
    for at, event in world.history:
        assert event.process == process
        if event.type == "invoke":
            assert under_way is None
            assert at < 1000 * MS or event.f == "read"
            under_way, began = event, at
            if event.f in ("write", "cas"):
                written.append(event.value[1] if event.f == "write" else event.value[1][1])
            continue
        assert under_way is not None
        assert (event.f, event.value[0]) == (under_way.f, under_way.value[0])
        assert event.f == "read" or event.value == under_way.value
        assert at - began <= 400 * MS
        if event.f == "write":
            if event.type == "fail":
                assert event.value[1] not in took_effect
            if event.type == "ok":
                assert event.value[1] in took_effect
        if event.type == "info":
            assert event.f != "read"
            process += 3
        under_way = None
    assert under_way is None, "an operation was left without its outcome"
    assert len(set(written)) == len(written)
    assert all(value % 3 == 1 for value in written)
    ((finished, reply),) = world.replies
    assert (reply.client, reply.request) == ("", 2)
    assert finished >= 1000 * MS


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_every_attempt_of_an_operation_has_its_session_and_sequence_and_no_two_operations_share_them(seed: int) -> None:
    world = started(Cluster(Random(seed), 0.4), seed)
    world.run(3000 * MS)
    by_command: dict[tuple[str, int], set[str]] = {}
    requests = [request.request for _, _, request in world.sent]
    assert len(set(requests)) == len(requests)
    for _, _, request in world.sent:
        command = request.command
        assert command.acknowledged == command.sequence
        by_command.setdefault((command.session, command.sequence), set()).add(repr(command.operation))
    assert all(len(operations) == 1 for operations in by_command.values())


def test_a_hint_is_followed_at_once_and_the_leader_is_remembered() -> None:
    def answer(node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        return [(MS, node, kv.Done() if node == "n3" else kv.NotLeader("n3"))]

    world = started(answer, mix={"write": 1.0})
    world.run(2000 * MS)
    asked = [node for _, node, _ in world.sent]
    assert asked[:2] == ["n2", "n3"]
    assert world.sent[1][0] - world.sent[0][0] == MS
    assert set(asked[1:]) == {"n3"}


def test_a_silent_node_is_passed_over_after_a_quarter_of_the_timeout_even_if_others_still_name_it() -> None:
    def answer(node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        return {"n2": [], "n3": [(MS, "n3", kv.NotLeader("n2"))], "n1": [(MS, "n1", kv.Done())]}[node]  # type: ignore[return-value]

    world = started(answer, mix={"write": 1.0}, stop=20 * MS)
    world.run(2000 * MS)
    asked = [(at - world.sent[0][0], node) for at, node, _ in world.sent]
    assert asked[0] == (0, "n2")
    assert asked[1] == (100 * MS, "n3")
    assert asked[2][1] == "n1"
    assert world.operations()[1].type == "ok"


def test_a_write_that_every_node_declined_failed_and_one_that_a_node_kept_silent_about_is_unknown() -> None:
    declined = started(lambda node, request: [(MS, node, kv.NotLeader(None))], mix={"write": 1.0})
    declined.run(3000 * MS)
    assert {event.type for event in declined.operations()} == {"invoke", "fail"}
    assert {event.process for event in declined.operations()} == {1}

    silent = started(lambda node, request: [] if node == "n1" else [(MS, node, kv.NotLeader(None))], mix={"write": 1.0})
    silent.run(3000 * MS)
    outcomes = [(event.process, event.type) for event in silent.operations()]
    assert outcomes[:4] == [(1, "invoke"), (1, "info"), (4, "invoke"), (4, "info")]
    assert {request.command.session for _, _, request in silent.sent} >= {"c1/1", "c1/4"}


def test_a_write_of_which_a_node_was_unsure_is_unknown_even_if_all_others_declined() -> None:
    def answer(node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        return [(MS, node, kv.Unsure("deposed") if node == "n1" else kv.NotLeader(None))]

    world = started(answer, mix={"write": 1.0})
    world.run(3000 * MS)
    assert {event.type for event in world.operations() if event.f == "write"} == {"invoke", "info"}


def test_a_read_without_an_answer_failed_since_it_changes_nothing() -> None:
    world = started(lambda node, request: [], mix={"read": 1.0})
    world.run(3000 * MS)
    assert {(event.type, event.error) for event in world.operations()} == {("invoke", None), ("fail", "timeout")}


def test_an_answer_that_comes_after_its_operation_was_given_up_changes_nothing() -> None:
    world = started(lambda node, request: [(500 * MS, node, kv.Done())], mix={"write": 1.0})
    world.run(5000 * MS)
    assert {event.type for event in world.operations() if event.f == "write"} == {"invoke", "info"}


def test_nothing_is_begun_before_the_start_and_after_the_stop_only_every_register_is_read_once() -> None:
    world = register(lambda node, request: [(MS, node, kv.Done())])
    world.run(100 * MS)
    assert not world.history
    world.step(Requested("", 1, Start(200 * MS)))
    world.run(300 * MS)
    assert world.history[0][0] > 200 * MS
    count = len(world.history) // 2 * 2
    world.step(Requested("", 2, Stop(0)))
    world.run(1000 * MS)
    last = [(event.type, event.f, event.value[0]) for _, event in world.history[-6:]]
    assert last == [(type, "read", f"k{key}") for key in range(3) for type in ("invoke", "ok")]
    assert len(world.history) - count in (6, 7, 8)
    assert len(world.replies) == 1


def test_a_cluster_that_does_not_answer_the_first_last_read_is_not_asked_the_others() -> None:
    world = started(lambda node, request: [], mix={"write": 1.0}, stop=0)
    world.run(5000 * MS)
    assert [(event.type, event.f) for event in world.operations()] == [("invoke", "read"), ("fail", "read")]
    assert world.replies[0][0] == 400 * MS


def test_a_slow_answer_does_not_slow_the_rate_but_an_outage_is_not_made_up_for() -> None:
    slow = started(lambda node, request: [(8 * MS, node, kv.Done())], stop=60_000 * MS, rate=50.0)
    slow.run(61_000 * MS)
    invoked = sum(event.type == "invoke" for event in slow.operations())
    assert 0.9 * 50 * 60 < invoked < 1.1 * 50 * 60

    def down_for_ten_seconds(node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        return [] if 10_000 * MS < broken.now < 20_000 * MS else [(MS, node, kv.Done())]

    broken = register(down_for_ten_seconds, rate=50.0)
    broken.step(Requested("", 1, Start(0)))
    broken.run(30_000 * MS)
    second = sum(event.type == "invoke" and 20_400 * MS < at < 21_400 * MS for at, event in broken.history)
    assert second < 2 * 50


def test_operations_come_at_the_rate_asked_for() -> None:
    world = started(lambda node, request: [(0, node, kv.Done())], stop=60_000 * MS, rate=50.0)
    world.run(61_000 * MS)
    begun = sum(event.type == "invoke" for event in world.operations())
    assert 2780 < begun < 3220  # 3,000 expected, four standard deviations of a Poisson count


def test_the_mix_is_that_asked_for() -> None:
    world = started(lambda node, request: [(0, node, kv.Done())], stop=60_000 * MS, rate=50.0)
    world.run(61_000 * MS)
    begun = [event.f for event in world.operations() if event.type == "invoke"]
    for f, share in MIX.items():
        assert abs(begun.count(f) / len(begun) - share) < 0.04


def test_a_flood_keeps_its_number_of_writes_under_way_and_measures_them() -> None:
    busiest = 0

    def answer(node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        nonlocal busiest
        busiest = max(busiest, len(world.coming) + 1)
        return [(2 * MS, node, kv.Done() if node == "n2" else kv.NotLeader("n2"))]

    world = World(Flood("f", NODES, FloodConfig(outstanding=10, warm_up=100 * MS)), answer)
    world.step(Requested("", 1, Start(0)))
    world.step(Requested("", 2, Stop(1100 * MS)))
    world.run(1200 * MS)
    ((_, summary),) = world.history
    assert isinstance(summary, FloodSummary)
    assert busiest == 10
    assert abs(summary.operations - 5000) <= 10
    assert summary.duration == 1000 * MS
    assert summary.p50 == summary.p99 == 2 * MS
    assert [reply.request for _, reply in world.replies] == [2]


def test_a_flood_of_reads_writes_each_key_once_and_then_reads_it() -> None:
    world = World(
        Flood("f", NODES, FloodConfig(outstanding=3, operation="read", warm_up=0)),
        lambda node, request: [(MS, node, kv.Done())],
    )
    world.step(Requested("", 1, Start(0)))
    world.step(Requested("", 2, Stop(100 * MS)))
    world.run(200 * MS)
    for session in range(3):
        asked = [request.command for _, _, request in world.sent if request.command.session == f"f/{session}"]
        assert isinstance(asked[0].operation, kv.Write)
        assert {command.operation for command in asked[1:]} == {kv.Read(f"k{session}")}
    ((_, summary),) = world.history
    assert isinstance(summary, FloodSummary)
    assert abs(summary.operations - 300) <= 3


def test_a_flood_goes_on_after_a_leader_fell_silent() -> None:
    def answer(node: str, request: Request) -> list[tuple[int, str, kv.Result]]:
        if world.now < 300 * MS:
            return [(MS, node, kv.Done())] if node == "n1" else []
        return [(MS, node, kv.Done())] if node == "n3" else []

    world = World(Flood("f", NODES, FloodConfig(outstanding=3, warm_up=0, timeout=200 * MS)), answer)
    world.step(Requested("", 1, Start(0)))
    world.run(2000 * MS)
    late = [request for at, node, request in world.sent if at > 1900 * MS and node == "n3"]
    assert late
    sequences = [request.command.sequence for request in late if request.command.session == "f/0"]
    assert sequences == sorted(sequences)
