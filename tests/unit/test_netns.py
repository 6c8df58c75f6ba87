"""Names of network namespaces are files: none may lead out of their directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from topologies import netns


def create(name: str) -> None:
    with netns.created(name):
        pass


def enter(name: str) -> None:
    with netns.inside(name):
        pass


@pytest.mark.parametrize("use", [create, enter, netns.remove])
@pytest.mark.parametrize("name", ["../evil", "a/b", "..", ".", ""])
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_made(
    use: Callable[[str], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netns, "DIRECTORY", tmp_path / "netns")
    (tmp_path / "netns" / "a").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="no name of a network namespace"):
        use(name)
    assert sorted(tmp_path.rglob("*")) == before
