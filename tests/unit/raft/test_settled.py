"""A step of heartbeats that change nothing has nothing to do at its end, and so is left out; nothing else is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from apps.process import Idle
from apps.raft import Raft
from apps.runtime.config import Config
from apps.runtime.kinds import Kind, raft
from experiments.scenario import Scenario
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import play_seed
from tests.unit.simulation.test_world import short

left_out = 0


class Distrustful(Raft):
    """Looks whether there is really nothing to do."""

    def _on_idle(self, event: Idle) -> None:
        if self._settled:
            global left_out
            left_out += 1
            before = len(self._effects)
            self._settled = False
            super()._on_idle(event)
            assert self._effects[before:] == [], self._effects[before:]
        else:
            super()._on_idle(event)


def distrustful(config: Config) -> Kind:
    return raft(config, Distrustful)


def scenario(**settings: Any) -> Scenario:
    played = short(seconds=6)
    system = msgspec.structs.replace(played.system, implementation="tests.unit.raft.test_settled:distrustful")
    return msgspec.structs.replace(played, system=msgspec.structs.replace(system, **settings))


@pytest.mark.parametrize(
    "settings", [{}, {"reads": "lease"}, {"follower_reads": True}, {"snapshot_entries": 20}], ids=str
)
def test_what_is_left_out_would_have_done_nothing(settings: dict[str, Any]) -> None:
    before = left_out
    for seed in range(4):
        outcome = play_seed(with_random_faults(scenario(**settings).with_seed(seed)))
        assert outcome.valid is True, outcome.broken
    assert left_out > before + 500
