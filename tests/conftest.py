"""What tests ask for. Whoever asks for a `sandbox` gets one the way one gets `tmp_path`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from topologies.privileges import obstacles, probe
from topologies.sandbox import Sandbox

#: For those who have minutes: see tests/unit/test_bad_input.py.
settings.register_profile("fuzz", max_examples=4_000, deadline=None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without the rights for it a network test is skipped and says so; in CI, where nobody reads that, it fails."""
    if item.get_closest_marker("network") is None:
        return
    lacking = "; ".join(obstacles(probe(), tun=True))
    if not lacking:
        return
    if os.environ.get("CI"):
        pytest.fail(f"network tests cannot run: {lacking}", pytrace=False)
    pytest.skip(lacking)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Callable[..., Sandbox]]:
    """``sandbox(Service, *args, on_event=None)`` is a started `Sandbox`, closed when the test ends.

    Several may be open at once. Its log is ``sandbox.log`` in a folder of its own under ``tmp_path``, and is printed
    with a test that fails.
    """
    with ExitStack() as stack:
        logs: list[Path] = []

        def start(service: type, *args: Any, on_event: Callable[[Any], None] | None = None) -> Sandbox:
            out = tmp_path / f"sandbox-{len(logs)}"
            out.mkdir()
            logs.append(out / "sandbox.log")
            return stack.enter_context(Sandbox(service, *args, out=out, on_event=on_event))

        try:
            yield start
        finally:
            stack.close()
            for log in logs:
                print(f"--- {log.parent.name}", log.read_text(errors="replace"), sep="\n", end="")
