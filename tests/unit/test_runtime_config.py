"""Configurations: what is wrong is named, all of it at once, before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.raft import Raft
from apps.runtime.config import Config, ConfigError, address, read_config
from apps.runtime.kinds import kind_of
from apps.runtime.timers import Timers

GOOD: dict[str, Any] = {
    "node": "n1",
    "cluster": "test",
    "incarnation": 0,
    "listen": "10.0.0.1:7000",
    "peers": {"n2": "10.0.0.2:7000", "n3": "10.0.0.3:7000"},
    "seed": 7,
    "data_dir": "data",
    "trace_dir": "trace",
    "process": {"kind": "raft"},
}


def read(tmp_path: Path, **changes: Any) -> Config:
    path = tmp_path / "node.json"
    path.write_text(json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value != "absent"}))
    return read_config(path)


def test_a_good_configuration_makes_a_raft_node_of_all_that_are_named(tmp_path: Path) -> None:
    process = kind_of(read(tmp_path)).make()
    assert isinstance(process, Raft)
    assert process.configuration.voters == ("n1", "n2", "n3")


def test_all_unknown_and_missing_keys_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, node="absent", seed="absent", pears={}, nodee="n1")
    assert [word in str(caught.value) for word in ("'node' is missing", "'seed' is missing", "'pears'", "'nodee'")] == [
        True
    ] * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"incarnation": -1}, "incarnation is -1"),
        ({"incarnation": "0"}, r"Expected `int`, got `str` - at `\$.incarnation`"),
        ({"listen": "localhost:1"}, "listen: 'localhost:1' is not an address like '10.0.0.1:7000'"),
        ({"peers": {"n2": "10.0.0.2"}}, "peers.n2: '10.0.0.2' is not an address"),
        ({"silence": 0}, "silence is 0"),
        ({"process": {}}, "key 'kind' is missing"),
        ({"node": ""}, "must not be empty"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    ("process", "words"),
    [
        ({"kind": "paxos"}, "unknown kind 'paxos'; there are raft, .*client, flood"),
        ({"kind": "nowhere:make"}, "'nowhere:make' cannot be loaded: No module named 'nowhere'"),
        ({"kind": "raft", "heartbeat": 1}, "unknown key 'heartbeat' for kind 'raft'; there are election_timeout"),
        ({"kind": "raft", "heartbeat_interval": 10**12}, "heartbeat_interval is 1000000000000"),
        ({"kind": "flood", "outstanding": 0}, "must be at least 1"),
        ({"kind": "client", "thread": 3, "threads": 3, "rate": 1, "keys": 1, "mix": {"read": 1}}, "thread is 3"),
        ({"kind": "client", "thread": 0, "threads": 1, "rate": 1, "keys": 1, "mix": {"reed": 1}}, "reed"),
    ],
)
def test_a_wrong_process_is_named_with_its_key(tmp_path: Path, process: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kind_of(read(tmp_path, process=process))


def test_a_raft_node_without_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must have an address"):
        kind_of(read(tmp_path, listen=None))


def test_files_that_are_not_there_or_not_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.json: cannot be read: No such file"):
        read_config(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad.json: not JSON"):
        read_config(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="a JSON object was expected"):
        read_config(tmp_path / "list.json")


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1:", ":7000", "10.0.0.1:65536", "::1:80", "10.0.0.1:-1", "h1:80"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        address(text)
    assert address("10.0.0.1:65535") == ("10.0.0.1", 65535)


def test_a_timer_has_one_deadline_and_one_that_was_overtaken_never_fires() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.set("b", 10)
    timers.set("c", 5)
    timers.set("c", 20)
    fired = []
    for timer in timers.due(10):
        fired.append(timer)
        timers.cancel("b")
        timers.set("a", 10)
    assert fired == ["a"]
    assert timers.next == 10
    assert list(timers.due(30)) == ["a", "c"]
    assert timers.next is None
