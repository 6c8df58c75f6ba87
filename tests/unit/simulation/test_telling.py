"""What `splitbrain simulate` says: of a campaign all that its kind of system has, of a replay what failed and where."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from experiments.plans import SCENARIOS
from experiments.run import play
from experiments.scenario import NoWorkload, Scenario, load
from experiments.simulation.campaign import play_seeds, summarise
from experiments.simulation.command import replay
from experiments.simulation.seed import replay_seed
from experiments.simulation.standing import standing
from experiments.simulation.telling import Pace, show_summary
from tests.unit.simulation.test_world import MS, SECOND, short

MUTANT = "tests.unit.simulation.mutant_kinds:AcksEarly"


def told(scenario: Scenario, seeds: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """The text that is printed of a campaign, and its summary as data."""
    outcomes = list(play_seeds(scenario, seeds))
    summary = summarise(outcomes)
    console = Console(file=io.StringIO(), width=200)
    show_summary(console, scenario, outcomes, summary, Pace(len(outcomes), summary.events, 1.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), msgspec.to_builtins(summary)


@pytest.mark.parametrize(
    ("name", "has", "has_not"),
    [
        ("failover-shards", ["time a shard was served by nobody", "shards that went to another, a seed",
                             "time to reintegrate who came back"], ["operations", "election", "leader", "stale"]),
        ("detector-grey-link", ["time until the first found a failure", "time until all found it", "took it back",
                                "false positives", "messages a member sent"], ["operations", "election", "shard"]),
        ("quorum-sloppy", ["stale reads", "siblings", "refused reads, writes", "read repairs",
                           "hints kept, handed over", "differ at the end"],
         ["election", "new leader", "shard", "compare-and-sets"]),
        ("raft-leader-isolated", ["elections a seed", "time to a new leader", "compare-and-sets refused", "recover"],
         ["stale", "shard", "repairs", "false positives"]),
    ],
)  # fmt: skip
def test_a_campaign_tells_of_all_that_its_kind_of_system_has_and_of_nothing_else(
    name: str, has: list[str], has_not: list[str]
) -> None:
    scenario = load(SCENARIOS / f"{name}.toml")
    text, summary = told(scenario, [scenario.seed])
    assert [one for one in has if one not in text] == []
    assert [one for one in has_not if one in text] == []
    assert ("elections_per_seed" in summary) == scenario.system.elects
    assert ("operations" in summary) != isinstance(scenario.workload, NoWorkload)


def test_what_a_campaign_says_of_shards_and_replicas_is_what_the_checks_measured() -> None:
    shards = told(load(SCENARIOS / "failover-shards.toml"), [14])[1]["takeover"]
    assert 100 * MS < shards["longest"]["max"] < SECOND
    assert shards["unserved"]["count"] > shards["moves_per_seed"] > 64
    assert shards["reintegration"]["count"] == 2
    replicas = told(load(SCENARIOS / "quorum-sloppy.toml"), [5])[1]["replication"]
    assert min(replicas["hinted"], replicas["handed_over"], replicas["repairs"]) > 0
    assert replicas["refused_reads"] == replicas["refused_writes"] == 0  # a sloppy quorum refuses nothing
    strict = told(load(SCENARIOS / "quorum-partition-strict.toml"), [5])[1]["replication"]
    assert min(strict["refused_reads"], strict["refused_writes"]) > 0


def mutant() -> Scenario:
    scenario = load(SCENARIOS / "raft-chaos.toml")
    return msgspec.structs.replace(scenario, system=msgspec.structs.replace(scenario.system, implementation=MUTANT))


def replayed(scenario: Scenario, **how: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    asked = {"random_faults": False, "until": None, "show": False, "as_json": False} | how
    status = replay(console, scenario, scenario.seed, **asked)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_a_replay_shows_the_faults_what_contradicts_what_and_the_verdict_and_returns_its_status() -> None:
    status, text = replayed(mutant(), show=True)
    assert status == 1
    lines = text.splitlines()
    (asked,) = (number for number, line in enumerate(lines) if "fault 0 asked " in line)
    (healed,) = (number for number, line in enumerate(lines) if "fault 0 healed" in line)
    assert 0 < asked < healed
    assert any("check   ✘ CommittedByQuorum" in line for line in lines)
    assert "✘ seed" in text
    assert "trace 0   " in text  # one column beside the other
    times = [float(line.split()[0]) for line in lines[: text[: text.index("✘ seed")].count("\n")]]
    assert times == sorted(times)


def test_a_replay_that_is_stopped_says_where_every_node_stood_and_is_in_doubt() -> None:
    status, text = replayed(short(seconds=3), until=1500 * MS)
    assert status == 2
    assert "stopped: at 1.5 s of 3.0 s" in text
    assert text.count("role follower  term 1") == 4
    assert text.count("role leader  term 1") == 1


def test_a_replay_that_was_asked_for_json_prints_nothing_else(capfdbinary: Any) -> None:
    status, text = replayed(mutant(), until=4 * SECOND, show=True, as_json=True)
    printed = msgspec.json.decode(capfdbinary.readouterr().out)
    assert (status, text) == (1, "")
    assert printed["outcome"]["valid"] is False
    assert printed["nodes"]["n1"]["term"] >= 1
    assert len(printed["trace"]) >= printed["lines"]


def test_no_node_is_said_to_have_applied_what_is_not_committed_nor_committed_what_it_does_not_have() -> None:
    for until in (500 * MS, 2500 * MS, 3500 * MS):
        found = replay_seed(load(SCENARIOS / "raft-chaos.toml"), until)
        stood = standing(found.seen.witnesses, found.played.nodes, found.played.epoch + until)
        running = [one for one in stood.values() if one["state"] == "running"]
        assert len(running) >= 3
        assert sum(one["role"] == "leader" for one in running) <= 2
        assert all(one["applied"] <= one["committed"] <= one["last"] for one in stood.values())


def test_the_hash_of_a_failing_seed_is_that_of_its_replay_and_of_its_run(tmp_path: Path) -> None:
    scenario = mutant()
    (outcome,) = play_seeds(scenario, [scenario.seed])
    assert outcome.valid is False
    assert outcome.evidence_sha256 == replay_seed(scenario).outcome.evidence_sha256
    run = play(scenario, tmp_path, "test", lambda stage, detail: None, "simulated")
    assert run.results.evidence_sha256 == outcome.evidence_sha256
    assert msgspec.json.decode((run.path / "manifest.json").read_bytes())["evidence_sha256"] == outcome.evidence_sha256
