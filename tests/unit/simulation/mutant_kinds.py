"""Every mutant as a kind: ``implementation = "tests.unit.simulation.mutant_kinds:AcksEarly"``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from apps.runtime.config import Config
from apps.runtime.kinds import Kind, quorum, raft, swim
from tests.unit.detectors import mutants as of_swim
from tests.unit.quorum import mutants as of_quorum
from tests.unit.raft import mutants as of_raft


def __getattr__(name: str) -> Callable[[Config], Kind]:
    for mutants, kind in ((of_raft.MUTANTS, raft), (of_quorum.MUTANTS, quorum), (of_swim.MUTANTS, swim)):
        for core in mutants:
            if core.__name__ == name:
                return partial(kind, core=core)
    raise AttributeError(name)
