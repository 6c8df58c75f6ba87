"""Raft with one rule broken, as an ``implementation`` that a scenario can name."""

from __future__ import annotations

from apps.runtime.config import Config
from apps.runtime.kinds import Kind, raft
from tests.unit.raft.mutants import AcksEarly, ServesStaleReads


def acks_early(config: Config) -> Kind:
    return raft(config, AcksEarly)


def serves_stale_reads(config: Config) -> Kind:
    return raft(config, ServesStaleReads)
