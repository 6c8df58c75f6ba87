"""Binaries in lock-step with virtual time: real programs in three languages, and those that do not behave."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apps.maelstrom.bridge import End, Ended, Heard, Tell
from apps.process import Event, Requested
from experiments.scenario import Scenario, parse
from experiments.simulation.binary import Binary
from experiments.simulation.seed import play_seed, play_traced
from tests.unit.maelstrom.network import LIN_KV, NODES, UNRULY, ours

Start = Callable[..., tuple[Binary, list[Any]]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Binary] = []

    def spawn(*command: str) -> tuple[Binary, list[Any]]:
        heard: list[Any] = []

        def deliver(events: list[Event]) -> None:
            heard.extend(event.command for event in events if isinstance(event, Requested))

        binary = Binary(command, deliver)
        started.append(binary)
        binary.start()
        return binary, heard

    yield spawn
    for binary in started:
        binary.close()


@pytest.fixture(scope="session")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None, "the wire needs a C compiler too"
    program = tmp_path_factory.mktemp("binaries") / "echo"
    subprocess.run([compiler, "-O1", "-o", str(program), str(NODES / "echo.c")], check=True)
    return str(program)


def tell(type: str, number: int, **body: Any) -> Tell:
    message = {"src": "c1", "dest": "n1", "body": {"type": type, "msg_id": number, **body}}
    return Tell(json.dumps(message, separators=(",", ":")).encode() + b"\n")


INIT = tell("init", 0, node_id="n1", node_ids=["n1"])


@pytest.mark.parametrize("language", ["python", "c", "shell", "ours"])
def test_the_answer_is_there_when_the_line_has_been_told(language: str, start: Start, in_c: str) -> None:
    command = {
        "python": LIN_KV,
        "c": [in_c],
        "shell": ["/bin/sh", str(NODES / "echo.sh")],
        "ours": ours("echo"),
    }[language]
    binary, heard = start(*command)
    binary.take([INIT])
    for number in range(1, 10):
        asked = tell("write", number, key=number % 3, value=number) if language == "python" else None
        binary.take([asked or tell("echo", number, echo=number)])
        assert len(heard) == number + 1
        body = json.loads(heard[-1].line)["body"]
        assert body["in_reply_to"] == number
        assert body.get("echo", number) == number


def test_lines_told_together_are_answered_in_their_order(start: Start, in_c: str) -> None:
    binary, heard = start(in_c)
    binary.take([INIT, *(tell("echo", number, echo=number) for number in range(1, 200))])
    assert [json.loads(one.line)["body"]["in_reply_to"] for one in heard] == list(range(200))


def test_a_long_line_goes_through_a_pipe_that_holds_less(start: Start) -> None:
    binary, heard = start(*ours("echo"))
    binary.take([INIT, tell("echo", 1, echo="x" * 500_000)])
    assert len(json.loads(heard[-1].line)["body"]["echo"]) == 500_000


def test_one_that_exits_is_told_of_with_its_last_words(start: Start) -> None:
    binary, heard = start(*UNRULY, "exit")
    binary.take([INIT, tell("write", 1), tell("write", 2), tell("write", 3)])
    assert [type(one) for one in heard] == [Heard, Heard, Ended]
    assert heard[-1] == Ended("it exited with status 1: I have had enough")


def test_one_that_floods_or_never_rests_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.simulation.binary.MOST_CPU", 0.5)
    binary, heard = start(*UNRULY, "flood")
    binary.take([INIT, tell("write", 1), tell("write", 2)])
    assert isinstance(heard[-1], Ended)
    restless, heard = start(*UNRULY, "restless")
    restless.take([INIT, tell("write", 1), tell("write", 2)])
    assert heard[-1] == Ended("it computed for more than 0.5 s over one line")


def test_one_that_sleeps_without_reading_init_is_given_up_after_the_time_it_has_for_that() -> None:
    heard: list[Any] = []
    binary = Binary(["sleep", "1000"], heard.extend, init_timeout=300_000_000)
    binary.start()
    began = time.monotonic()
    binary.take([INIT, tell("read", 1)])
    assert 0.3 <= time.monotonic() - began < 10
    assert [event.command for event in heard] == [Ended("it did not answer init within 0.3 s, which it has not read")]


def test_one_that_is_not_there_is_told_of(start: Start) -> None:
    _, heard = start("/no/such/program")
    assert heard == [Ended("it could not be started: /no/such/program: No such file or directory")]


def test_nothing_is_left_of_one_that_was_ended_nor_of_what_it_started(start: Start, tmp_path: Path) -> None:
    binary, _ = start("/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; read line; read line")
    binary.take([INIT])
    pid = int((tmp_path / "pid").read_text())
    binary.take([End()])
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------------------
# In a scenario

SCENARIO = """\
name = "binaries"
duration = "3s"
seed = 5

[topology]
hosts_per_leaf = 3

[system]
kind = "maelstrom"
command = {command}
nodes = {nodes}
workload = "{workload}"
own_timers = false
init_timeout = "1s"

[workload]
clients = 3
rate = 60
timeout = "500ms"

{faults}
"""

CUT = '[[fault]]\nkind = "partition"\nat = "1s"\nfor = "1s"\ngroups = [["n1", "n2"], ["n3"]]\n'


def scenario(command: list[str], nodes: int = 3, workload: str = "lin-kv", faults: str = "") -> Scenario:
    return parse(SCENARIO.format(command=json.dumps(command), nodes=nodes, workload=workload, faults=faults))


def test_a_register_at_one_node_that_the_others_ask_is_linearizable_through_a_partition() -> None:
    outcome = play_seed(scenario(LIN_KV, faults=CUT))
    assert outcome.valid is True, outcome.broken
    assert outcome.availability is not None
    assert outcome.availability.unknown + outcome.availability.failed > 0  # clients of n3, which could not ask n1
    assert outcome.availability.ok > 60


def test_a_register_of_its_own_at_every_node_is_not() -> None:
    outcome = play_seed(scenario([*LIN_KV, "naive"]))
    assert outcome.valid is False
    assert any(found.startswith("linearizable: no order") for found in outcome.broken)


def test_a_seed_repeats_itself_to_the_byte_with_a_binary_that_does() -> None:
    first, second = (play_traced(scenario(LIN_KV, faults=CUT))[0].digest() for _ in range(2))
    assert first == second


def test_a_compiled_program_echoes_what_is_called(in_c: str) -> None:
    outcome = play_seed(scenario([in_c], workload="echo"))
    assert outcome.valid is True, outcome.broken
    assert outcome.availability is not None
    assert outcome.availability.ok == outcome.availability.operations > 100


@pytest.mark.parametrize(
    ("way", "finding"),
    [
        ("mute", "it did not answer init within 1 s"),
        ("debug", "not a line of JSON: 'debug: here I am'"),
        ("forger", "a message of 'n9'"),
        ("inventor", "there is nobody of that name"),
        ("long", "a line longer than is taken"),
        ("exit", "it exited with status 1: I have had enough"),
        ("flood", "it printed more than"),
    ],
)
def test_what_a_binary_must_not_do_is_found_and_named_and_the_run_goes_on(way: str, finding: str) -> None:
    outcome = play_seed(scenario([*UNRULY, way]))
    assert outcome.valid is False
    (told,) = [found for found in outcome.broken if found.startswith("maelstrom_protocol")]
    assert finding in told
    assert "n1's binary" in told
    assert outcome.availability is not None
    assert outcome.availability.operations > (5 if way == "flood" else 50)  # it takes the others' time to hear a flood


def test_one_with_timers_of_its_own_is_played_by_the_clock_on_the_wall() -> None:
    timed = scenario(ours("raft"))
    timed = msgspec.structs.replace(
        timed, duration=2_000_000_000, system=msgspec.structs.replace(timed.system, own_timers=True)
    )
    began = time.monotonic()
    outcome = play_seed(timed)
    assert time.monotonic() - began > 2.0
    assert not [found for found in outcome.broken if not found.startswith("recovery")], outcome.broken
    assert outcome.availability is not None
    assert outcome.availability.operations > 20
