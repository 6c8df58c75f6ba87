"""Maelstrom's services: each is as strong as it promises, and no stronger."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maelstrom.protocol import Message
from apps.maelstrom.services import BEHIND, Services


def ask(services: Services, service: str, client: str = "n1", **body: Any) -> dict[str, Any]:
    return services.answer(Message(client, service, body))


@settings(deadline=None)
@given(st.sampled_from(["lin-kv", "seq-kv", "lww-kv"]), st.integers(0, 99))
def test_a_store_of_one_client_is_a_map_where_it_is_not_the_last_writer_that_wins(service: str, seed: int) -> None:
    services = Services(Random(seed))
    assert ask(services, service, type="read", key=1)["code"] == 20
    assert ask(services, service, type="write", key=1, value="a") == {"type": "write_ok"}
    if service != "lww-kv":
        assert ask(services, service, type="read", key=1) == {"type": "read_ok", "value": "a"}
        assert ask(services, service, type="cas", key=1, **{"from": "b", "to": "c"})["code"] == 22
        assert ask(services, service, type="cas", key=1, **{"from": "a", "to": "c"}) == {"type": "cas_ok"}
        assert ask(services, service, type="read", key=1)["value"] == "c"
    assert ask(services, service, type="cas", key=2, **{"from": 0, "to": 1})["code"] == 20
    created = {"from": 0, "to": 1, "create_if_not_exists": True}
    assert ask(services, service, type="cas", key=2, **created) == {"type": "cas_ok"}


def test_what_is_missing_or_unknown_is_said_with_its_code() -> None:
    services = Services(Random(1))
    assert ask(services, "lin-kv", type="write", key=1)["code"] == 12
    assert ask(services, "lin-kv", type="increment", key=1)["code"] == 10
    assert ask(services, "lin-tso", type="read")["code"] == 10


def test_the_clock_only_rises() -> None:
    services = Services(Random(1))
    times = [ask(services, "lin-tso", f"n{number % 3}", type="ts")["ts"] for number in range(20)]
    assert times == sorted(set(times))


@settings(deadline=None)
@given(st.integers(0, 2**16))
def test_a_reader_of_seq_kv_may_be_behind_but_never_goes_back(seed: int) -> None:
    services = Services(Random(seed))
    ask(services, "seq-kv", "writer", type="write", key="x", value=0)
    seen = []
    for value in range(1, 3 * BEHIND):
        ask(services, "seq-kv", "writer", type="write", key="x", value=value)
        seen.append(ask(services, "seq-kv", "reader", type="read", key="x").get("value", -1))
        assert ask(services, "seq-kv", "writer", type="read", key="x")["value"] == value  # its own it sees
    assert seen == sorted(seen)
    assert any(value < at for at, value in enumerate(seen, 1))


def test_lww_kv_can_answer_with_what_is_long_gone_and_agrees_in_the_end() -> None:
    services = Services(Random(5))
    for value in range(30):
        ask(services, "lww-kv", type="write", key="x", value=value)
    read = [ask(services, "lww-kv", type="read", key="x").get("value") for _ in range(60)]
    assert len(set(read)) > 1
    assert read[-1] == 29
