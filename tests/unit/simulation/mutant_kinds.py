"""Every mutant of Raft as a kind: ``implementation = "tests.unit.simulation.mutant_kinds:AcksEarly"``."""

from __future__ import annotations

from collections.abc import Callable

from apps.runtime.config import Config
from apps.runtime.kinds import Kind, raft
from tests.unit.raft import mutants


def __getattr__(name: str) -> Callable[[Config], Kind]:
    try:
        core = next(mutant for mutant in mutants.MUTANTS if mutant.__name__ == name)
    except StopIteration:
        raise AttributeError(name) from None
    return lambda config: raft(config, core)
