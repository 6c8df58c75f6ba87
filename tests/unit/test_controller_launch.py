"""How the controller is started, what it says when it cannot be, and how it speaks OpenFlow."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controllers import launch
from controllers.pipeline import Change, Flow, Group, programs
from topologies.leaf_spine import LeafSpine

PLAN = LeafSpine(2, 2, 1)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str]]:
    """Launches with a good plan and these arguments; the exit status, and the one line that was printed."""
    (tmp_path / "plan.json").write_bytes(PLAN.to_json())

    def start(*argv: str, plan: Path = tmp_path / "plan.json") -> tuple[object, str]:
        with pytest.raises(SystemExit) as stopped:
            launch.main(["--plan", str(plan), *argv])
        [line] = capsys.readouterr().err.splitlines()
        return stopped.value.code, line

    return start


@pytest.mark.parametrize("listen", ["6653", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:port"])
def test_an_address_that_is_none_is_a_usage_error(refused: Callable[..., tuple[object, str]], listen: str) -> None:
    status, line = refused("--listen", listen)
    assert status == 64
    assert repr(listen) in line
    assert "127.0.0.1:6653" in line


def test_a_plan_that_is_not_there_or_is_none_is_named(
    refused: Callable[..., tuple[object, str]], tmp_path: Path
) -> None:
    status, line = refused(plan=tmp_path / "nowhere.json")
    assert (status, "nowhere.json" in line) == (66, True)
    (tmp_path / "other.json").write_text('{"kind": "leaf-spine"}')
    status, line = refused(plan=tmp_path / "other.json")
    assert (status, "other.json" in line, "not a fabric plan" in line) == (65, True, True)
    (tmp_path / "twice.json").write_bytes(PLAN.to_json().replace(b'"h2"', b'"h1"'))
    status, line = refused(plan=tmp_path / "twice.json")
    assert (status, "twice.json" in line, "name h1 is there more than once" in line) == (65, True, True)


def test_a_status_file_that_cannot_be_written_is_named(
    refused: Callable[..., tuple[object, str]], tmp_path: Path
) -> None:
    status, line = refused("--status", str(tmp_path / "nowhere" / "status"))
    assert (status, "nowhere/status" in line) == (73, True)


def test_a_port_in_use_is_named(refused: Callable[..., tuple[object, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, line = refused("--listen", address)
    assert (status, address in line) == (69, True)


@pytest.mark.parametrize("dead", [(), ("leaf1-spine1", "leaf3-spine2")])
def test_flows_and_groups_survive_the_trip_through_openflow(dead: tuple[str, ...]) -> None:
    from controllers import openflow
    from controllers.framework import ofproto, parser

    datapath = SimpleNamespace(ofproto=ofproto, ofproto_parser=parser)

    def sent(item: Flow | Group, kind: Any) -> Any:
        message = openflow.change_message(datapath, Change("add", item))
        message.xid = 1
        message.serialize()
        data = bytes(message.buf)
        return kind.parser(datapath, data[0], data[1], len(data), 1, data)

    for program in programs(LeafSpine(3, 3, 2), dead).values():
        assert openflow.read_flows([sent(flow, parser.OFPFlowMod) for flow in program.flows]) == list(program.flows)
        groups = [sent(group, parser.OFPGroupMod) for group in program.groups]
        assert openflow.read_groups(groups) == list(program.groups)


def test_a_group_with_another_hash_is_not_taken_for_ours() -> None:
    from controllers import openflow
    from controllers.framework import ofproto, parser

    [group] = programs(PLAN)["leaf1"].groups
    message = openflow.change_message(SimpleNamespace(ofproto=ofproto, ofproto_parser=parser), Change("add", group))
    assert openflow.read_groups([message]) == [group]
    [method] = message.properties
    method.data = [*method.data[:1], 0x68617368, 0, *method.data[3:]]  # "hash"
    assert openflow.read_groups([message]) != [group]
    message.properties = []
    assert openflow.read_groups([message]) != [group]
