from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import kv
from apps.raft import RaftConfig
from tests.unit.raft.chaos import Chaos
from tests.unit.raft.cluster import MS, Cluster, Conditions

#: Some hundred more take a minute: ``python -m tests.unit.raft.chaos 600``.
SEEDS = range(120)
SHARE = 15


@pytest.mark.parametrize("first", range(0, len(SEEDS), SHARE))
def test_no_schedule_of_faults_breaks_a_promise(first: int) -> None:
    failed = {seed: found for seed in SEEDS[first : first + SHARE] if (found := Chaos(seed).play())}
    assert failed == {}


Action = tuple[str, Any]
names = st.sampled_from(["n1", "n2", "n3"])
actions = st.one_of(
    st.tuples(st.just("run"), st.sampled_from([1, 5, 40, 400])),
    st.tuples(st.sampled_from(["elect", "isolate", "crash", "restart", "write"]), names),
    st.tuples(st.just("heal"), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(actions, max_size=40), st.booleans(), st.booleans())
def test_no_short_script_breaks_a_promise(script: list[Action], pre_vote: bool, check_quorum: bool) -> None:
    config = RaftConfig(pre_vote=pre_vote, check_quorum=check_quorum, max_batch_entries=2)
    cluster = Cluster(["n1", "n2", "n3"], config, conditions=Conditions(delay=(1 * MS, 8 * MS), write=(1 * MS, 8 * MS)))
    written: list[int] = []
    for action, argument in script:
        match action:
            case "heal":
                cluster.heal()
            case "write":
                written.append(cluster.write(argument, "x", len(written)))
            case "crash" if not cluster.nodes[argument].alive:
                pass
            case "restart" if cluster.nodes[argument].alive:
                pass
            case _:
                getattr(cluster, action)(argument)
    assert cluster.violations == []
    present = {entry.command for entry in cluster.invariants.committed}
    done = [number for number in written if cluster.replies.get(number) == kv.Done()]
    assert len([command for command in present if command]) >= len(done)


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
