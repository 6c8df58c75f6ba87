"""Scenarios in virtual time: played whole, judged, replayed to the byte, and failing where they should."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.plans import SCENARIOS
from experiments.run import play
from experiments.scenario import (
    BitFlip,
    CrashPoint,
    Disorder,
    Drift,
    FullDisk,
    Impair,
    Kill,
    LinkDown,
    Mute,
    Partition,
    Pause,
    Scenario,
    Skew,
    SlowDisk,
    Transfer,
    load,
    place,
)
from experiments.schedule import Schedule
from experiments.simulation.campaign import play_seeds, spread, summarise
from experiments.simulation.driver import Clock
from experiments.simulation.faults import SIMULATED_STRIKES
from experiments.simulation.kernel import DAY_NS, Loop
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.recording import OnlineRecorder, TextRecorder
from experiments.simulation.seed import play_seed, play_traced
from experiments.simulation.world import SimulatedWorld
from tests.unit.simulation import mutants, swarm
from topologies.impairment import Impairment

MS = 1_000_000
SECOND = 1_000 * MS
SHIPPED = sorted(path.stem for path in SCENARIOS.glob("raft-*.toml"))


def shipped(name: str, **changes: Any) -> Scenario:
    """A shipped scenario with a light workload, so that seeds are cheap."""
    scenario = load(SCENARIOS / f"{name}.toml")
    workload = msgspec.structs.replace(scenario.workload, rate=30.0)
    return msgspec.structs.replace(scenario, workload=workload, **changes)


def short(*faults: Any, seconds: int = 6) -> Scenario:
    return shipped("raft-leader-isolated", duration=seconds * SECOND, faults=faults)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_keeps_its_promises_with_several_seeds(name: str) -> None:
    for seed in range(3):
        outcome = play_seed(shipped(name).with_seed(seed))
        assert (outcome.valid, outcome.broken) == (True, [])
        assert outcome.availability is not None
        assert outcome.availability.operations > 150


def test_a_majority_that_is_lost_serves_nobody_until_it_is_back() -> None:
    outcome = play_seed(shipped("raft-majority-lost"))
    assert outcome.availability is not None
    assert outcome.availability.longest_outage is not None
    assert outcome.availability.longest_outage > 4 * SECOND
    assert outcome.availability.failed > 0


def test_schedules_of_random_faults_of_every_kind_break_no_promise_and_are_what_the_seed_says() -> None:
    drawn = [with_random_faults(short(seconds=8).with_seed(seed)) for seed in range(60)]
    assert drawn == [with_random_faults(short(seconds=8).with_seed(seed)) for seed in range(60)]
    assert len({type(fault) for scenario in drawn for fault in scenario.faults}) == 13
    for scenario in drawn[:12]:
        outcome = play_seed(scenario)
        assert outcome.valid is True, (scenario.seed, outcome.broken)


REPLAY = """
from tests.unit.simulation.test_world import short
from experiments.simulation.random_faults import with_random_faults
from experiments.simulation.seed import play_traced
recorder, _ = play_traced(with_random_faults(short().with_seed(5)))
print(recorder.digest(), sum(map(len, recorder.files.values())))
"""


def test_a_seed_replays_to_the_byte_in_another_process_whatever_the_hash_seed() -> None:
    printed = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", REPLAY], env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        printed.add(done.stdout)
    recorder, _ = play_traced(with_random_faults(short().with_seed(5)))
    assert printed == {f"{recorder.digest()} {sum(map(len, recorder.files.values()))}\n"}


def test_a_replay_that_stops_early_shows_the_beginning_of_the_whole() -> None:
    scenario = short(Partition((("leader",), ("others",)), SECOND, SECOND), seconds=4)
    whole, epoch = play_traced(scenario)
    part, same_epoch = play_traced(scenario, 1500 * MS)
    assert epoch == same_epoch
    assert part.digest() != whole.digest()
    for path, lines in part.files.items():
        assert lines == whole.files[path][: len(lines)]
        assert msgspec.json.decode(lines[-1]).get("t", 0) <= epoch + 1500 * MS


def test_another_seed_is_another_run() -> None:
    assert len({play_traced(short(seconds=2).with_seed(seed))[0].digest() for seed in range(3)}) == 3


def test_a_run_in_virtual_time_leaves_the_folder_of_a_run_and_the_evidence_of_a_replay(tmp_path: Path) -> None:
    faults = (
        Partition((("leader",), ("others",)), SECOND, SECOND),
        Impair(("leaf1>spine1",), Impairment(delay=20 * MS, jitter=5 * MS, loss=0.1), 2500 * MS, SECOND),
        LinkDown(("leaf3-spine*",), 4 * SECOND, SECOND),
        Kill(("leader",), 5500 * MS, SECOND),
        Pause(("leader",), 7 * SECOND, SECOND),
        Mute(("leader",), 8500 * MS, SECOND),
        SlowDisk(("n3",), 20.0, 2 * SECOND, SECOND),
        FullDisk(("n4",), 4 * SECOND, SECOND),
        Drift(("n5",), 1.1, SECOND, 8 * SECOND),
        Skew(("n1",), -SECOND, 0, SECOND, SECOND),
        Disorder(0.01, 0.01, 0.01, 50 * MS, 6 * SECOND, SECOND),
        CrashPoint("vote", 1.0, 50 * MS, 8 * SECOND, SECOND),
        BitFlip(("n2",), 9500 * MS, 500 * MS),
    )
    scenario = short(*faults, seconds=12)
    run = play(scenario, tmp_path, "test", lambda stage, detail: None, "simulated")
    assert run.results.valid is True, run.results.summary
    assert (run.path / "report.html").stat().st_size > 10_000
    manifest = msgspec.json.decode((run.path / "manifest.json").read_bytes())
    assert manifest["world"] == "simulated"
    steps = [msgspec.json.decode(line) for line in (run.path / "faults.jsonl").read_bytes().splitlines()]
    assert [step["step"] for step in steps].count("healed") == len(faults)
    assert all(step["effective"] for step in steps if step["step"] in ("proved", "healed"))
    replayed, _ = play_traced(scenario)
    for path, lines in replayed.files.items():
        assert (run.path / path).read_bytes() == b"".join(lines)


def test_both_ways_to_judge_a_seed_agree(tmp_path: Path) -> None:
    scenario = short(Partition((("leader",), ("others",)), SECOND, SECOND), seconds=5)
    judged = play(scenario, tmp_path, "test", lambda stage, detail: None, "simulated").results
    outcome = play_seed(scenario)
    assert outcome.valid == judged.valid
    assert outcome.availability == judged.availability
    assert outcome.elections == sum(leader.start > 0 for leader in judged.leaders)


def test_two_faults_that_cut_one_link_are_both_proved_and_healed() -> None:
    down = (LinkDown(("leaf1-spine1",), SECOND, SECOND), LinkDown(("leaf1-*",), 1500 * MS, SECOND))
    outcome = play_seed(short(*down, seconds=4))
    assert (outcome.valid, outcome.broken) == (True, [])


def test_an_impairment_that_another_fault_hides_is_said_to_be_hidden_and_no_reason_for_doubt(tmp_path: Path) -> None:
    faults = (
        LinkDown(("leaf1-spine1",), SECOND, 2 * SECOND),
        Impair(("leaf1>spine1",), Impairment(loss=0.5), 1500 * MS, SECOND),
    )
    run = play(short(*faults), tmp_path, "test", lambda stage, detail: None, "simulated")
    steps = [msgspec.json.decode(line) for line in (run.path / "faults.jsonl").read_bytes().splitlines()]
    proved, healed = (step for step in steps if step["fault"] == 1 and step["step"] in ("proved", "healed"))
    assert proved["effective"] is None
    assert proved["hidden"] == {"leaf1>spine1": "another fault held leaf1-spine1 down"}
    assert healed["effective"], "it is measured when the link is up again"
    assert run.results.valid is True, run.results.summary


# ---------------------------------------------------------------------------------------------------------------------
# Faults that only a simulation has


def watch(scenario: Scenario, seconds: float, look: Callable[[SimulatedWorld], Awaitable[Any]]) -> Any:
    """What ``look`` finds in the world of ``scenario`` so many seconds after its workload began."""

    async def play() -> Any:
        recorder = OnlineRecorder(scenario.system)
        world = SimulatedWorld(scenario, place(scenario.plan, scenario.system, scenario.workload), recorder)
        schedule = Schedule(scenario, world, lambda line: None, lambda stage, detail: None, SIMULATED_STRIKES)
        async with world:
            await world.settle()
            schedule.epoch = world.clock()
            await world.start_workload(schedule.epoch)
            playing = asyncio.create_task(schedule.play())
            await schedule.until(round(seconds * SECOND))
            found = await look(world)
            playing.cancel()
            return found

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(play())


async def who_leads(world: SimulatedWorld) -> tuple[str | None, int]:
    leader = world.leader()
    return leader, max(term for _, term in world._roles.values())


@pytest.mark.parametrize(
    "fault",
    [
        Pause(("leader",), SECOND, 2 * SECOND),
        Mute(("leader",), SECOND, 2 * SECOND),
        FullDisk(("leader",), SECOND, 2 * SECOND),
        SlowDisk(("leader",), 500.0, SECOND, 2 * SECOND),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_leader_that_is_taken_away_in_another_way_is_replaced_or_waited_for_and_no_promise_breaks(fault: Any) -> None:
    before, _ = watch(short(fault), 0.9, who_leads)
    during, _ = watch(short(fault), 2.9, who_leads)
    if not isinstance(fault, SlowDisk):  # whose heartbeats go on
        assert during != before
    outcome = play_seed(short(fault))
    assert outcome.valid is True, outcome.broken


def test_a_node_that_is_started_again_while_a_pause_of_it_goes_on_stands_still_until_that_ends() -> None:
    async def stands_still(world: SimulatedWorld) -> bool | None:
        return await world.is_paused("n2")

    scenario = short(Pause(("n2",), SECOND, 3 * SECOND), Kill(("n2",), 2 * SECOND, SECOND), seconds=6)
    assert [watch(scenario, at, stands_still) for at in (1.5, 2.5, 3.5, 4.5)] == [True, None, True, False]
    outcome = play_seed(scenario)
    assert (outcome.valid, outcome.broken) == (True, [])


def test_a_node_whose_disk_is_full_ends_and_is_there_again_when_there_is_room() -> None:
    async def alive(world: SimulatedWorld) -> list[str]:
        return [node for node in world.nodes if world.drivers[node].alive]

    fault = FullDisk(("n2",), SECOND, SECOND)
    assert watch(short(fault), 1.9, alive) == ["n1", "n3", "n4", "n5"]
    assert watch(short(fault), 2.1, alive) == ["n1", "n2", "n3", "n4", "n5"]


def test_a_clock_that_runs_fast_lets_its_timeouts_run_out_early() -> None:
    async def clocks(world: SimulatedWorld) -> list[float]:
        now = world.kernel.now
        return [world._clocks[node].read(now) / now for node in ("n1", "n2")]

    fast, right = watch(short(Drift(("n1",), 10.0, 0, 5 * SECOND)), 2.0, clocks)
    assert right == 1.0
    assert fast > 5
    # Ten times as fast, it takes a healthy leader for dead again and again; PreVote keeps it from deposing it.
    outcome = play_seed(short(Drift(("n1",), 10.0, SECOND, 3 * SECOND)))
    assert outcome.valid is True
    assert outcome.elections <= 1


def test_a_skew_sets_the_time_of_day_and_no_monotonic_clock_and_a_strobe_sets_it_there_and_back() -> None:
    clock = Clock()
    bump, strobe = clock.skew(10 * MS, -SECOND, 0), clock.skew(20 * MS, 5, 10 * MS)
    assert clock.read(25 * MS) == 25 * MS
    assert clock.wall(25 * MS) == DAY_NS + 25 * MS - SECOND + 5
    assert clock.wall(30 * MS) == DAY_NS + 30 * MS - SECOND
    assert clock.wall(41 * MS) == DAY_NS + 41 * MS - SECOND + 5
    clock.set_right(bump)
    clock.set_right(strobe)
    assert clock.wall(50 * MS) == DAY_NS + 50 * MS


def test_when_a_clock_runs_right_again_its_time_of_day_is_right_and_its_monotonic_one_keeps_what_it_gained() -> None:
    clock = Clock()
    clock.set_rate(SECOND, 2.0)
    clock.set_rate(3 * SECOND, 0.5)
    assert clock.read(5 * SECOND) == 6 * SECOND
    assert clock.wall(5 * SECOND) == DAY_NS + 6 * SECOND
    clock.set_rate(5 * SECOND, 1.0)
    assert clock.read(6 * SECOND) == 7 * SECOND
    assert clock.wall(6 * SECOND) == DAY_NS + 6 * SECOND


def test_another_node_leads_when_it_is_asked_to() -> None:
    """Each of two transfers takes the lead to where it was asked to go, without a pause for an election timeout."""
    moves = (Transfer(("n2",), SECOND, SECOND), Transfer(("n3",), 3 * SECOND, SECOND))
    recorder, epoch = play_traced(short(*moves))
    led = [
        (path.split("/")[1], msgspec.json.decode(line)["t"] - epoch)
        for path, lines in recorder.files.items()
        for line in lines
        if b'"role":"leader"' in line
    ]
    late = sorted((moment, node) for node, moment in led if moment > SECOND)
    assert [node for _, node in late][-1] == "n3"
    assert {node for node, _ in led} >= {"n2", "n3"}
    for moment, node in late:
        assert moment < (1.2 * SECOND if node == "n2" else 3.2 * SECOND)


# ---------------------------------------------------------------------------------------------------------------------
# Many seeds


def test_seeds_over_all_cores_are_those_played_one_by_one_in_their_order() -> None:
    scenario = short(Partition((("leader",), ("others",)), SECOND, SECOND), seconds=3)
    outcomes = list(play_seeds(scenario, range(3, 12)))
    assert [outcome.seed for outcome in outcomes] == list(range(3, 12))
    assert outcomes[4] == play_seed(scenario.with_seed(7))
    summary = summarise(outcomes)
    assert (summary.seeds, summary.valid, summary.verdict) == (9, 9, True)
    assert summary.new_leader.count == 9
    assert summary.new_leader.p50 is not None
    assert 100 * MS < summary.new_leader.p50 < SECOND


def test_a_spread_counts_what_never_came_apart() -> None:
    found = spread([3, None, 1, 2])
    assert (found.count, found.never, found.p50, found.max) == (3, 1, 2, 3)
    assert spread([None]).p50 is None


@pytest.mark.parametrize("mutant", ["AcksEarly", "VotesTwice", "VotesForAnyLog"])
def test_a_mutant_of_raft_is_found_with_the_events_that_contradict_each_other(mutant: str) -> None:
    outcomes = (play_seed(swarm.scenario(mutants.named(mutant), seed)) for seed in range(60))
    found = next((outcome for outcome in outcomes if outcome.valid is False), None)
    assert found is not None
    assert found.violations or found.broken[0].startswith(("linearizable", "acknowledged_writes"))
    for violation in found.violations:
        assert len(violation["events"]) == 2


def test_a_core_that_raises_ends_its_node_and_fails_the_seed() -> None:
    scenario = short(seconds=2)
    system = msgspec.structs.replace(scenario.system, implementation="tests.unit.simulation.test_world:raising")
    outcome = play_seed(msgspec.structs.replace(scenario, system=system))
    assert outcome.valid is False
    assert "ZeroDivisionError" in outcome.broken[0]


def raising(config: Any) -> Any:
    from apps.raft import Raft
    from apps.runtime.kinds import raft

    class Raises(Raft):
        def _on_heartbeat_due(self) -> None:
            raise ZeroDivisionError("on purpose")

    return raft(config, Raises)


def test_a_node_that_ends_by_itself_under_the_workload_is_a_finding_and_the_others_go_on(tmp_path: Path) -> None:
    scenario = short(seconds=4)
    system = msgspec.structs.replace(scenario.system, implementation="tests.unit.simulation.test_world:tires")
    scenario = msgspec.structs.replace(scenario, system=system)
    outcome = play_seed(scenario)
    assert outcome.valid is False
    assert any(one.startswith("nodes_stayed_up: ") and "tired" in one for one in outcome.broken)
    assert outcome.availability is not None
    assert outcome.availability.recovery == {}
    assert outcome.elections >= 1
    run = play(scenario, tmp_path, "test", lambda stage, detail: None, "simulated")
    (check,) = [check for check in run.results.checks if check.name == "nodes_stayed_up"]
    assert check.valid is False
    assert "tired" in check.summary


def tires(config: Any) -> Any:
    """The first node to commit so much as a leader ends."""
    from apps.raft import Raft
    from apps.raft.node import Role
    from apps.runtime.kinds import raft

    class Tires(Raft):
        def _on_heartbeat_due(self) -> None:
            if self.term == 1 and self.role is Role.LEADER and self.commit > 20:
                raise RuntimeError("tired")
            super()._on_heartbeat_due()

    return raft(config, Tires)


def test_a_node_whose_log_was_damaged_refuses_to_start_and_the_others_go_on() -> None:
    async def damage(world: SimulatedWorld) -> tuple[str, Any, list[str]]:
        await world.kill("n2")
        said = next(said for _ in range(50) for said in [world.flip_bit("n2")] if not said.endswith("on it"))
        restarted = await world.restart("n2")
        await asyncio.sleep(1)
        return said, restarted, [node for node in world.nodes if world.drivers[node].alive]

    said, restarted, alive = watch(short(), 2.0, damage)
    assert said.partition(": ")[2] in restarted["refused"]
    assert alive == ["n1", "n3", "n4", "n5"]


def test_text_of_evidence_is_what_the_runtime_writes() -> None:
    recorder = TextRecorder()
    recorder.begin_node(5, "n1", 0, "raft")
    (line,) = recorder.files["nodes/n1/trace/0.ndjson"]
    assert line == b'{"t":5,"ev":"trace","schema":1,"node":"n1","incarnation":0,"protocol":"raft"}\n'
