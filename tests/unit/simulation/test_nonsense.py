"""Nodes that say what no correct one can: the others drop it, and the seed fails and names who said it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pytest

from apps.raft import Entry, Raft
from apps.raft.messages import Append, InstallSnapshot
from apps.raft.snapshots import _Outgoing
from apps.runtime.config import Config
from apps.runtime.kinds import Kind, raft
from experiments.scenario import Kill
from experiments.simulation.seed import play_seed
from tests.unit.simulation.test_world import SECOND, short


class MisnumbersEntries(Raft):
    def _append_message(self, first: int, entries: Sequence[Entry]) -> Append:
        return super()._append_message(first, [msgspec.structs.replace(one, index=one.index + 1) for one in entries])


class MissumsSnapshots(Raft):
    def _piece(self, out: _Outgoing) -> InstallSnapshot:
        piece = super()._piece(out)
        return msgspec.structs.replace(piece, checksum=piece.checksum ^ 1)


def misnumbers(config: Config) -> Kind:
    return raft(config, MisnumbersEntries)


def missums(config: Config) -> Kind:
    return raft(config, MissumsSnapshots)


@pytest.mark.parametrize(
    ("implementation", "said"),
    [
        ("misnumbers", r"Append, entry \d+ stands where \d+ belongs"),
        ("missums", r"InstallSnapshot, the checksum of the snapshot at \d+ differs"),
    ],
)
def test_a_seed_in_which_a_node_says_what_none_can_fails_and_names_it(implementation: str, said: str) -> None:
    scenario = short(Kill(at=1 * SECOND, lasts=3 * SECOND, nodes=("n1",)))
    system = msgspec.structs.replace(
        scenario.system, implementation=f"{__name__}:{implementation}", snapshot_entries=20
    )
    outcome = play_seed(msgspec.structs.replace(scenario, system=system))
    assert outcome.valid is False
    (broken,) = [found for found in outcome.broken if found.startswith("sound_messages")]
    assert re.match(rf"sound_messages: n\d rejected [\d,]+ messages? of n\d: {said}", broken), broken
