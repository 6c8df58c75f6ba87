"""What a person is told when something they typed or have is wrong: one clear message, a status, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.scenarios import PARTITION, write

SPLITBRAIN = str(Path(sys.executable).with_name("splitbrain"))


def refused(*arguments: object, cwd: Path, **options: Any) -> tuple[int, str]:
    command = [SPLITBRAIN, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=100, **options)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("splitbrain: ")
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments", [["rnu"], ["run"], ["run", "a", "b"], ["run", "a", "-n", "0"], ["run", "a", "--seed", "x"], ["check"]]
)
def test_a_wrong_command_line_is_a_usage_error_and_says_where_help_is(arguments: list[str], tmp_path: Path) -> None:
    status, message = refused(*arguments, cwd=tmp_path)
    assert status == 64
    assert "--help" in message


def test_a_scenario_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    status, message = refused("run", "raft-leader-isolatd", cwd=tmp_path)
    assert status == 66
    assert "raft-leader-isolatd" in message
    assert "raft-leader-isolated" in message
    assert refused("run", "mine.toml", cwd=tmp_path)[0] == 66


def test_a_wrong_scenario_is_told_with_file_line_key_and_remedy_and_leaves_no_folder(tmp_path: Path) -> None:
    broken = write(tmp_path, "broken", PARTITION.replace('"2s"', '"20s"'), "[expect]\nlinearisable = true\n")
    status, message = refused("run", broken, cwd=tmp_path)
    assert status == 65
    assert "broken.toml:26: fault[0].for: the fault ends at 21s, past the end of the scenario (5s)" in message
    assert 'expect.linearisable: unknown key; did you mean "linearizable"?' in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
def test_an_output_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    scenario = write(tmp_path, "fine", PARTITION)
    scenario.chmod(0o644)
    # /proc takes no directories from anybody, root included
    status, message = refused("run", scenario, "--out", "/proc/runs", cwd=tmp_path)
    assert status == 73
    assert "/proc/runs" in message
    assert "--out" in message


@pytest.mark.network
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
def test_without_privileges_it_says_what_is_lacking_and_leaves_no_folder(tmp_path: Path) -> None:
    if os.access("/dev/net/tun", os.W_OK) and Path("/dev/net/tun").stat().st_mode & 0o006:
        pytest.skip("anybody may use tun here, so nothing is refused")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    scenario = write(tmp_path, "fine", PARTITION)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", SPLITBRAIN, "run", str(scenario)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 77, done.stderr
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/*"))


def in_mounts(before: str, *arguments: object, cwd: Path) -> tuple[int, str]:
    """Run splitbrain in a mount namespace of its own, where the shell commands ``before`` have been run."""
    command = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$0" "$@"', SPLITBRAIN, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=100)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr


@pytest.mark.network
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_disk_that_fills_up_ends_the_run_with_one_message_that_says_so(tmp_path: Path) -> None:
    scenario = write(tmp_path, "full", PARTITION)
    (tmp_path / "runs").mkdir()
    status, message = in_mounts("mount -t tmpfs -o size=400k none runs", "run", scenario, cwd=tmp_path)
    assert status == 74, message
    assert "o space left on device" in message or "isk is full" in message
    assert len(message.splitlines()) == 1


@pytest.mark.network
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_missing_program_is_named_with_its_package_before_anything_is_made(tmp_path: Path) -> None:
    scenario = write(tmp_path, "fine", PARTITION)
    gone = "mount --bind /dev/null $(readlink -f /usr/sbin/ovs-vswitchd)"
    status, message = in_mounts(gone, "run", scenario, cwd=tmp_path)
    assert status == 69, message
    assert "ovs-vswitchd" in message
    assert "openvswitch-switch" in message
    assert not (tmp_path / "runs").exists()


def test_a_history_that_is_cut_off_or_foreign_is_refused_with_its_place(tmp_path: Path) -> None:
    line = '{"index":0,"time":1,"process":0,"type":"invoke","f":"write","value":["k0",1]}\n'
    torn = tmp_path / "torn.jsonl"
    torn.write_text(line + line[:30])
    status, message = refused("check", torn, cwd=tmp_path)
    assert status == 65
    assert "torn.jsonl:2" in message
    foreign = tmp_path / "foreign.edn"
    foreign.write_text("{:type :shrug}")
    assert refused("check", foreign, cwd=tmp_path)[0] == 65
    assert refused("check", tmp_path / "none.jsonl", cwd=tmp_path)[0] == 66


def test_a_run_is_played_again_from_its_manifest_alone_to_the_same_bytes(tmp_path: Path) -> None:
    scenario = write(tmp_path, "again", PARTITION)
    for number, command in enumerate(
        (["run", scenario, "--world", "simulated", "--seed", 5], ["rerun", tmp_path / "0"])
    ):
        argv = [SPLITBRAIN, *map(str, command), "--out", "runs"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        (made,) = (tmp_path / "runs" / "again").iterdir()
        made.rename(tmp_path / str(number))
        scenario.unlink(missing_ok=True)
    first, second = ((tmp_path / number / "history.jsonl").read_bytes() for number in "01")
    assert first == second


def test_a_folder_that_is_no_run_cannot_be_played_again(tmp_path: Path) -> None:
    assert refused("rerun", tmp_path, cwd=tmp_path)[0] == 66
    (tmp_path / "manifest.json").write_text('{"schema": 1}')
    status, message = refused("rerun", tmp_path, cwd=tmp_path)
    assert status == 65
    assert "not the manifest of a run that can be played again" in message
