"""Faults that overlap are told apart: each pair is judged by looks during which nothing about it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from experiments.effects import LOOKS_AT_ONCE, MOST_LOOKS, REPAIR_NS, Effects
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine

NAMES = ["n1", "n2", "n3"]
LOOK_S = 0.02
S = 1_000_000_000


class Probed:
    """A network whose probes take `LOOK_S` and see what `silent` says at their end, whatever ought to be."""

    plan = LeafSpine(1, 3, 1)
    placement = {"n1": "h1", "n2": "h2", "n3": "h3"}

    def __init__(self) -> None:
        self.silent: set[tuple[str, str]] = set()
        self.looks = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def matrix(self, budget_ns: int) -> dict[str, dict[str, list[int]]]:
        self.looks += 1
        await asyncio.sleep(LOOK_S / 2)
        if self.meanwhile is not None:
            await self.meanwhile()
        await asyncio.sleep(LOOK_S / 2)
        return {r: {s: [3, 0 if (r, s) in self.silent else 3] for s in NAMES if s != r} for r in NAMES}


def isolate(effects: Effects, network: Probed, index: int, node: str, *, really: bool = True) -> None:
    with effects.changing():
        effects.grudges[index] = {other: [node] for other in NAMES if other != node}
        effects.grudges[index][node] = [other for other in NAMES if other != node]
    if really:
        network.silent |= effects.severed_by(index)


def lift(effects: Effects, network: Probed, index: int, *, really: bool = True) -> None:
    with effects.changing():
        if really:
            network.silent -= effects.severed_by(index)
        effects.forget(index)


def proof(play: Callable[[Effects, Probed], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async def played() -> dict[str, Any]:
        network = Probed()
        return await play(Effects(network), network)

    return asyncio.run(played())


def test_a_fault_is_proved_while_another_comes_and_goes() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        isolate(effects, network, 0, "n1")

        async def other() -> None:
            isolate(effects, network, 1, "n3")
            await asyncio.sleep(0)
            lift(effects, network, 1)
            network.silent |= effects.severed_by(0)

        network.meanwhile = other
        return await effects.prove(S, effects.severed_by(0), patience_ns=0)

    found = proof(play)
    assert found["effective"], found
    # What changed during the only look says nothing; what the first fault severs was silent all along.
    assert found["unjudged"] == [("n2", "n3"), ("n3", "n2")]


def test_looks_begin_while_others_are_under_way_and_those_beyond_share_one() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        over = asyncio.Event()

        async def until_over() -> None:
            await over.wait()

        network.meanwhile = until_over
        asked = []
        for _ in range(LOOKS_AT_ONCE + 2):
            asked.append(asyncio.create_task(effects.look(S)))
            await asyncio.sleep(LOOK_S / 4)
        begun = network.looks
        over.set()
        looks = await asyncio.gather(*asked)
        return {"begun": begun, "in all": network.looks, "distinct": len({id(look) for look in looks})}

    assert proof(play) == {"begun": LOOKS_AT_ONCE, "in all": LOOKS_AT_ONCE + 1, "distinct": LOOKS_AT_ONCE + 1}


def test_a_fault_without_effect_is_found_out_whatever_else_happens() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        isolate(effects, network, 0, "n1", really=False)
        with effects.changing():
            effects.impaired[1] = {"h3>leaf3": Impairment(loss=0.5)}
        return await effects.prove(S, effects.severed_by(0), patience_ns=S)

    found = proof(play)
    assert not found["effective"]
    assert {(one["receiver"], one["sender"]) for one in found["mismatches"]} == {
        ("n1", "n2"),
        ("n2", "n1"),
        ("n1", "n3"),
        ("n3", "n1"),
    }


def test_silence_is_a_mismatch_on_a_calm_network_only() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        network.silent = {("n2", "n3")}
        return await effects.prove(S, {("n1", "n3")})

    assert [one["sender"] for one in proof(play)["mismatches"]] == ["n3"]

    async def lossy(effects: Effects, network: Probed) -> dict[str, Any]:
        with effects.changing():
            effects.impaired[0] = {"h3>leaf3": Impairment(loss=0.5)}
        found = await play(effects, network)
        assert network.looks == MOST_LOOKS
        return found

    found = proof(lossy)
    assert found["effective"]
    assert found["unjudged"] == [("n2", "n3")]


def test_what_must_be_seen_and_stays_hidden_is_not_proved() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        with effects.changing():
            effects.impaired[0] = {"h3>leaf3": Impairment(loss=0.5)}
        network.silent = {("n2", "n3")}
        return await effects.prove(S, {("n2", "n3")})

    found = proof(play)
    assert not found["effective"]
    assert found["mismatches"] == ["other faults hid whether n2 hears n3"]


def test_after_a_link_changed_silence_is_judged_when_the_fabric_had_time_to_repair() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        with effects.changing():
            effects.dead[0] = ["leaf3-spine1"]
        network.silent = effects.severed_by(0) | {("n1", "n2")}
        early = await effects.prove(S, effects.severed_by(0), patience_ns=0)
        assert early["effective"]
        assert early["unjudged"] == [("n1", "n2")]
        await asyncio.sleep(REPAIR_NS / S)
        return await effects.prove(S, effects.severed_by(0), patience_ns=0)

    assert [one["expected"] for one in proof(play)["mismatches"]] == [True]


def test_a_heal_that_leaves_something_behind_is_found_out() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        isolate(effects, network, 0, "n1")
        severed = effects.severed_by(0)
        lift(effects, network, 0, really=False)
        return await effects.prove(S, severed)

    assert len(proof(play)["mismatches"]) == 4


def test_whoever_asks_during_a_look_shares_the_next_with_all_who_do() -> None:
    async def play(effects: Effects, network: Probed) -> dict[str, Any]:
        first = asyncio.create_task(effects.look(S))
        await asyncio.sleep(LOOK_S / 4)
        others = await asyncio.gather(*(effects.look(S) for _ in range(3)))
        assert others[0] is others[1] is others[2] is not await first
        assert network.looks == 2
        return {}

    proof(play)
