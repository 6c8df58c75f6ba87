"""The one who asks for other members, or another leader, goes from node to node until it is so."""

from __future__ import annotations

from typing import Any

from apps import kv
from apps.process import CancelTimer, Received, Reply, Requested, Response, Send, SetTimer, TimerFired, Trace
from apps.raft import ChangeMembership, TransferLeadership
from apps.raft.operator import Answered, Operator, OperatorConfig
from apps.workload import Start, Stop

CONFIG = OperatorConfig(voters=("n1", "n4"), learners=("n2",), timeout=1000, pause=50, dialling=20)


def asked(effects: list[Any]) -> tuple[str, int]:
    (send,) = (effect for effect in effects if isinstance(effect, Send))
    assert send.message.command == ChangeMembership(("n1", "n4"), ("n2",))
    return send.to, send.message.request


def started() -> tuple[Operator, int]:
    operator = Operator(["n1", "n2", "n3"], CONFIG)
    assert operator.handle(10, Requested("", 1, Start(40))) == [SetTimer("ask", 30)]
    to, number = asked(operator.handle(40, TimerFired("ask")))
    assert to == "n1"
    return operator, number


def answer(operator: Operator, node: str, number: int, result: Any) -> list[Any]:
    traced, *effects = operator.handle(40, Received(node, Response(number, result)))
    assert traced == Trace(Answered(node, result))
    return effects


def test_it_follows_the_hint_to_the_leader_and_stays_with_one_that_is_busy() -> None:
    operator, number = started()
    assert answer(operator, "n1", number, kv.NotLeader("n3")) == [SetTimer("ask", 50)]
    to, number = asked(operator.handle(90, TimerFired("ask")))
    assert to == "n3"
    assert answer(operator, "n3", number, kv.Busy("not now")) == [SetTimer("ask", 50)]
    assert asked(operator.handle(140, TimerFired("ask")))[0] == "n3"


def test_who_does_not_answer_is_passed_over_and_what_he_says_later_is_not_heard() -> None:
    operator, number = started()
    assert asked(operator.handle(1030, TimerFired("ask")))[0] == "n2"
    assert operator.handle(1040, Received("n1", Response(number, kv.Done()))) == []


def test_it_asks_no_more_when_it_is_done_or_refused_or_told_to_stop() -> None:
    for result in (kv.Done(), kv.Refused("no such node")):
        operator, number = started()
        assert answer(operator, "n1", number, result) == [CancelTimer("ask")]
        assert operator.handle(2000, TimerFired("ask")) == []
    operator, _ = started()
    assert operator.handle(50, Requested("", 2, Stop(50))) == [CancelTimer("ask"), Reply("", 2, kv.Done())]
    assert operator.handle(2000, TimerFired("ask")) == []


def test_it_lets_its_connections_be_made_before_it_asks() -> None:
    operator = Operator(["n1", "n2", "n3"], CONFIG)
    assert operator.handle(10, Requested("", 1, Start(10))) == [SetTimer("ask", CONFIG.dialling)]


def test_where_a_leader_is_named_it_asks_for_that_one() -> None:
    operator = Operator(["n1", "n2", "n3"], OperatorConfig(leader="n2"))
    (send,) = (effect for effect in operator.handle(30, TimerFired("ask")) if isinstance(effect, Send))
    assert send.message.command == TransferLeadership("n2")
