"""Our nodes as Maelstrom runs them: processes that speak JSON lines with a network that may be cut."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.maelstrom.network import Network, ours

THREE = ["n1", "n2", "n3"]


def until(patience: float, condition: Any) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serve(name: str, *lines: object, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    text = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    return subprocess.run(ours(name, *arguments), input=text, capture_output=True, timeout=60, check=False)


def message(type: str, msg_id: int, **body: Any) -> dict[str, Any]:
    return {"src": "c1", "dest": "n1", "body": {"type": type, "msg_id": msg_id, **body}}


ALONE: dict[str, Any] = {"node_id": "n1", "node_ids": ["n1"]}
INIT = message("init", 1, **ALONE)


def test_bad_lines_are_told_of_on_standard_error_and_the_others_are_answered() -> None:
    done = serve("echo", INIT, b"what?\n", b"[1]\n", b"x" * (2 << 20) + b"\n", message("echo", 2, echo=[1, "ü"]))
    assert done.returncode == 0
    bodies = [json.loads(line)["body"] for line in done.stdout.splitlines()]
    assert bodies == [
        {"type": "init_ok", "in_reply_to": 1},
        {"type": "echo_ok", "in_reply_to": 2, "echo": [1, "ü"]},
    ]
    told = done.stderr.decode().splitlines()
    assert [line.partition(":")[0] for line in told[1:]] == ["line 2", "line 3", "line 4"]


def test_what_cannot_be_answered_is_refused_with_the_right_code() -> None:
    early = message("echo", 9, echo=1)
    done = serve("echo", early, INIT, message("read", 2), message("echo", 3), message("echo", 4, echo=None))
    codes = [json.loads(line)["body"].get("code") for line in done.stdout.splitlines()]
    assert sorted(codes, key=str) == [10, 11, 12, None, None]


@pytest.mark.parametrize("name", ["echo", "unique-ids", "broadcast", "g-set", "counter", "raft"])
@pytest.mark.parametrize("node_ids", [["n2"], [], ["n1", "n1"], ["n1", "n2", "n2"]], ids=str)
def test_an_init_that_names_no_cluster_is_refused_and_the_next_one_counts(name: str, node_ids: list[str]) -> None:
    done = serve(name, message("init", 1, node_id="n1", node_ids=node_ids), message("init", 2, **ALONE))
    assert done.returncode == 0, done.stderr
    refused, taken = (json.loads(line) for line in done.stdout.splitlines())
    assert (refused["src"], refused["body"]["in_reply_to"], refused["body"]["code"]) == ("n1", 1, 12)
    assert f"node_ids {node_ids} must name each node once, 'n1' among them" in refused["body"]["text"]
    assert taken["body"] == {"type": "init_ok", "in_reply_to": 2}


def said_by_peer(*said: object) -> dict[str, Any]:
    return {"src": "n2", "dest": "n1", "body": {"type": "splitbrain", "messages": said}}


TWO = message("init", 1, node_id="n1", node_ids=["n1", "n2"])


def test_what_no_peer_can_mean_is_rejected_and_told_of_on_standard_error() -> None:
    done = serve("raft", TWO, said_by_peer(["A", 9, 0, 0, 5, [["E", 7, 1, "AA=="]]]), message("read", 2, key=1))
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[1:] == [
        "n2: Append number 1 that is rejected: entry 7 stands where 1 belongs"
    ]


def test_a_committed_command_that_cannot_be_read_ends_a_node_with_a_line_and_status_65() -> None:
    done = serve("raft", TWO, said_by_peer(["A", 9, 0, 0, 5, [["E", 1, 1, "AA=="]]]))
    assert done.returncode == 65
    (line,) = done.stderr.decode().splitlines()[1:]
    assert line.startswith("n1: entry 1 of term 1 is committed, and is no command that this program knows: ")


def test_unique_ids_are_of_one_node_and_one_incarnation() -> None:
    ids = []
    for _ in range(2):
        done = serve("unique-ids", INIT, *(message("generate", number) for number in range(2, 12)))
        ids += [json.loads(line)["body"]["id"] for line in done.stdout.splitlines()[1:]]
    assert len(set(ids)) == 20


def test_an_unknown_node_is_one_line_and_status_64() -> None:
    done = serve("quaft")
    assert done.returncode == 64
    assert done.stderr.decode().count("\n") == 1
    assert "'raft'" in done.stderr.decode()


def test_a_broadcast_gets_around_a_cut_link_once_it_is_healed() -> None:
    with Network(ours("broadcast"), THREE) as network:
        line = {"n1": ["n2"], "n2": ["n1", "n3"], "n3": ["n2"]}
        for node in THREE:
            assert network.ask(node, type="topology", topology=line) == {
                "type": "topology_ok",
                "in_reply_to": network._last,
            }
        network.partition(["n1", "n2"], ["n3"])
        network.ask("n1", type="broadcast", message=1)
        network.ask("n3", type="broadcast", message=3)
        until(10, lambda: network.ask("n2", type="read")["messages"] == [1])
        assert network.ask("n3", type="read")["messages"] == [3]
        network.partition(THREE)
        for node in THREE:
            until(10, lambda node=node: sorted(network.ask(node, type="read")["messages"]) == [1, 3])


def test_raft_serves_lin_kv_at_every_node_and_its_majority_through_a_partition() -> None:
    with Network(ours("raft"), THREE) as network:
        until(20, lambda: network.ask("n1", type="write", key=1, value=10)["type"] == "write_ok")
        assert network.ask("n2", type="cas", key=1, **{"from": 10, "to": 11})["type"] == "cas_ok"
        assert network.ask("n3", type="read", key=1)["value"] == 11
        assert network.ask("n3", type="cas", key=1, **{"from": 10, "to": 12})["code"] == 22
        assert network.ask("n2", type="read", key=2)["code"] == 20
        network.partition(["n1"], ["n2", "n3"])
        assert network.ask("n1", type="read", key=1)["code"] in (0, 11)
        until(20, lambda: network.ask("n2", type="write", key=1, value=12)["type"] == "write_ok")
        network.partition(THREE)
        until(20, lambda: network.ask("n1", type="read", key=1).get("value") == 12)


def test_a_log_on_disk_survives_the_node(tmp_path: Path) -> None:
    arguments = ("--data", str(tmp_path))
    for expected in (None, "kept"):
        with Network(ours("raft", *arguments), ["n1"]) as network:
            until(20, lambda: network.ask("n1", type="read", key="x").get("code") != 11)
            assert network.ask("n1", type="read", key="x").get("value") == expected
            assert network.ask("n1", type="write", key="x", value="kept")["type"] == "write_ok"


@pytest.mark.parametrize("name", ["g-set", "counter"])
def test_writes_on_both_sides_of_a_cut_are_all_there_in_the_end(name: str) -> None:
    with Network(ours(name), ["n1", "n2"]) as network:
        network.partition(["n1"], ["n2"])
        for node, value in (("n1", 3), ("n2", -5)):
            network.ask(node, type="add", **{"element" if name == "g-set" else "delta": value})
        network.partition(["n1", "n2"])
        expected = [-5, 3] if name == "g-set" else -2
        for node in ("n1", "n2"):

            def agrees(node: str = node) -> bool:
                value = network.ask(node, type="read")["value"]
                return (sorted(value) if name == "g-set" else value) == expected

            until(10, agrees)
