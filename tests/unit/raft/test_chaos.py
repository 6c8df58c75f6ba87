from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.unit.raft.chaos import Chaos

#: Some hundred more take a minute: ``python -m tests.unit.raft.chaos 600``.
SEEDS = range(120)
SHARE = 15


@pytest.mark.parametrize("first", range(0, len(SEEDS), SHARE))
def test_no_schedule_of_faults_breaks_a_promise(first: int) -> None:
    failed = {seed: found for seed in SEEDS[first : first + SHARE] if (found := Chaos(seed).play())}
    assert failed == {}


def test_clients_get_most_of_their_answers_in_spite_of_the_faults() -> None:
    chaos = Chaos(1)
    chaos.play()
    assert len(chaos.acknowledged) > 20
    assert chaos.cluster.invariants.committed


DIGEST = """
import hashlib, msgspec
from tests.unit.raft.chaos import Chaos
chaos = Chaos(5)
chaos.play()
digest = hashlib.sha256()
for name in chaos.cluster.names:
    for event in chaos.cluster.nodes[name].trace:
        digest.update(msgspec.json.encode(event))
print(digest.hexdigest())
"""


def test_a_seed_replays_exactly_whatever_the_hash_seed() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        digests.add(ran.stdout)
    assert len(digests) == 1
