"""The scripts that set up, build and boot: read by shellcheck, and told of machines where they cannot do their work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for folder in (".ci", "vagrant", "tests/kernel")
    for path in (ROOT / folder).iterdir()
    if path.is_file() and path.read_bytes()[:2] == b"#!" and b"bash" in path.read_bytes().partition(b"\n")[0]
)
GIB = 1024

needs_ruby = pytest.mark.skipif(shutil.which("ruby") is None, reason="the Vagrantfile is Ruby, and there is none")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_scripts_have_nothing_that_shellcheck_warns_of(script: Path) -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("there is no shellcheck")
    done = subprocess.run([checker, "--severity=warning", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def copied(script: str, checkout: Path) -> Path:
    """The script in an otherwise empty checkout."""
    target = checkout / script
    target.parent.mkdir(parents=True)
    return Path(shutil.copy2(ROOT / script, target))


def pretending(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which these programs say something else."""
    folder.mkdir()
    for name, said in programs.items():
        (folder / name).write_text(f"#!/bin/sh\nprintf '%s\\n' '{said}'\n")
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_virtual_machine_is_not_tested_without_its_box(tmp_path: Path) -> None:
    done = subprocess.run([copied(".ci/test-vm", tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert "`make vm-box` builds it" in done.stderr


def test_a_box_is_not_built_on_another_architecture(tmp_path: Path) -> None:
    script = copied("vagrant/build-box", tmp_path)
    copied(".ci/setup", tmp_path)
    for name in ("pyproject.toml", "uv.lock"):
        (tmp_path / name).touch()
    done = subprocess.run(
        [script], env=pretending(tmp_path / "bin", uname="aarch64"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 69
    assert "this machine is aarch64" in done.stderr
    assert not (tmp_path / ".vm").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root builds boxes")
def test_a_box_is_not_built_where_the_disk_is_full(tmp_path: Path) -> None:
    script = copied("vagrant/build-box", tmp_path)
    copied(".ci/setup", tmp_path)
    for name in ("pyproject.toml", "uv.lock", "Makefile"):
        (tmp_path / name).touch()
    full = pretending(tmp_path / "bin", df="Avail\n 312M", uname="x86_64")
    done = subprocess.run([script], env=full, capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert "312 MiB free on its disk" in done.stderr
    assert list((tmp_path / ".vm").iterdir()) == []


def test_a_machine_without_the_checkout_is_told_how_it_gets_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "vagrant/provision.sh"],
        env=os.environ | {"CHECKOUT": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 69
    assert "vagrant rsync" in done.stderr


def lacking(**machine: object) -> list[str]:
    """What `vagrant up` says of a machine outside that has everything but this."""
    whole: dict[str, object] = {
        "memory": 2 * GIB,
        "available": 8 * GIB,
        "disks": {"/var/lib/libvirt/images": 20 * GIB},
        "processor": "x86_64",
        "box": "amd64",
    }
    asked = json.dumps(whole | machine)
    ruby = (
        "require 'json'; require './vagrant/host'; asked = JSON.parse(STDIN.read, symbolize_names: true); "
        "asked[:disks] = asked[:disks].transform_keys(&:to_s); puts JSON.generate(Host.lacking(**asked))"
    )
    done = subprocess.run(["ruby", "-e", ruby], input=asked, cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


@needs_ruby
def test_a_machine_with_room_lacks_nothing() -> None:
    assert lacking() == []


@needs_ruby
def test_everything_that_is_missing_is_told_at_once_with_its_remedy() -> None:
    memory, disk, box = lacking(available=GIB, disks={"/small": 100, "/big": 20 * GIB}, box="arm64")
    assert "SPLITBRAIN_MEMORY" in memory
    assert "/small has 100 MiB free" in disk
    assert "the box is one for arm64, and this machine is amd64" in box


@needs_ruby
def test_what_is_not_known_of_a_machine_is_not_held_against_it() -> None:
    assert lacking(available=None, disks={"/odd": None}, box=None) == []


@needs_ruby
@pytest.mark.parametrize(
    ("asked", "kvm", "driver"),
    [(None, True, "kvm"), (None, False, "qemu"), ("qemu", True, "qemu"), ("kvm", True, "kvm")],
)
def test_the_driver_is_what_was_asked_for_or_what_there_is(asked: str | None, kvm: bool, driver: str) -> None:
    assert said_of_driver(asked, kvm) == driver


@needs_ruby
def test_without_kvm_whoever_asks_for_it_is_told_what_to_do() -> None:
    assert "/dev/kvm may not be opened" in said_of_driver("kvm", False)


def said_of_driver(asked: str | None, kvm: bool) -> str:
    call = f"Host.driver({'nil' if asked is None else repr(asked)}, {str(kvm).lower()})"
    ruby = f"require './vagrant/host'; begin; print {call}; rescue ArgumentError => error; print error.message; end"
    return subprocess.run(["ruby", "-e", ruby], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@needs_ruby
def test_memory_and_disks_are_read_as_the_system_tells_them() -> None:
    ruby = (
        "require './vagrant/host'; p Host.available(\"MemTotal: 9 kB\\nMemAvailable:    2048000 kB\\n\"), "
        "Host.available(nil), Host.free('/tmp/not/there/yet') == Host.free('/tmp')"
    )
    done = subprocess.run(["ruby", "-e", ruby], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2000", "nil", "true"]
