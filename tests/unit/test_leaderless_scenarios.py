"""Quorum stores and failure detectors in scenario files: what they mean, and what is refused, with file and line."""

from __future__ import annotations

import pytest

from experiments.plans import SCENARIOS
from experiments.scenario import Drift, Failover, NoWorkload, Phi, Quorum, Register, ScenarioError, Swim, load, parse
from experiments.scenario.process_faults import LOG_FAULTS
from experiments.simulation.random_faults import with_random_faults

MS = 1_000_000


def told(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse('duration = "10s"\n' + text, "store.toml")
    return str(caught.value)


def test_a_store_has_its_configurations_keys_and_clients_that_ask_once_and_for_no_compare_and_set() -> None:
    scenario = parse('duration = "10s"\n[system]\nkind = "quorum"\nr = 1\nw = 3\npatience = "20ms"\n')
    system = scenario.system
    assert isinstance(system, Quorum)
    assert (system.config.r, system.config.w, system.config.patience) == (1, 3, 20 * MS)
    assert not system.elects
    assert isinstance(scenario.workload, Register)
    assert "cas" not in scenario.workload.mix
    assert scenario.workload.process("c1", system)["retry"] is False
    assert scenario.expect.linearizable is False


def test_a_store_that_cannot_keep_its_promise_is_refused_where_it_was_asked_for() -> None:
    said = told('[system]\nkind = "quorum"\nn = 3\nr = 1\nw = 2\n')
    assert said.startswith("store.toml:5: system.r: r + w is 1 + 2, not more than n = 3")
    said = told('[system]\nkind = "quorum"\nquorum = "sloppy"\nlinearizable = true\n')
    assert said.startswith("store.toml:5: system.linearizable: linearizable needs quorum 'strict'")
    assert "5 copies of a key need as many nodes, and there are 3" in told(
        '[system]\nkind = "quorum"\nnodes = 3\nn = 5\nr = 3\nw = 3\n'
    )


def test_nobody_leads_a_store_so_no_fault_can_aim_at_its_leader() -> None:
    fault = '[system]\nkind = "quorum"\n[[fault]]\nkind = "kill"\nat = "1s"\nfor = "1s"\nnodes = ["leader"]\n'
    said = told(fault)
    assert said.startswith("store.toml:8: fault[0].nodes: 'leader': the system's nodes have no leader")
    assert "others, majority, minority" in said
    assert "elect no leader" in told('[system]\nkind = "quorum"\n[expect]\nelection = "1s"\n')


def test_more_than_the_store_promises_cannot_be_expected() -> None:
    assert "store.toml:6: expect.linearizable: the system does not promise that" in told(
        '[system]\nkind = "quorum"\nquorum = "strict"\n[expect]\nlinearizable = true\n'
    )


def test_detectors_need_no_clients_and_take_none() -> None:
    scenario = parse('duration = "10s"\n[system]\nkind = "swim"\nnodes = 7\nbuddy = false\n')
    assert isinstance(scenario.system, Swim)
    assert scenario.system.process()["buddy"] is False
    assert scenario.workload == NoWorkload()
    assert "'register' is not one of none" in told('[system]\nkind = "phi"\n[workload]\nkind = "register"\n')
    assert "probe_timeout is" in told('[system]\nkind = "swim"\ninterval = "100ms"\nprobe_timeout = "100ms"\n')


def test_a_slow_machine_stretches_their_durations_and_nothing_else() -> None:
    text = 'time_scale = 2\nduration = "10s"\n[system]\nkind = "phi"\ninterval = "50ms"\nwindow = 100\n'
    system = parse(text + '[expect]\ndetection = "1s"\n').system
    assert isinstance(system, Phi)
    assert (system.config.interval, system.config.window, system.config.least_deviation) == (100 * MS, 100, 20 * MS)


@pytest.mark.parametrize("kind", ["slow-disk", "full-disk", "bit-flip"])
@pytest.mark.parametrize("system", ["swim", "heartbeat", "phi", "failover", "raft", "quorum"])
def test_a_fault_of_the_log_is_refused_where_nodes_keep_none(system: str, kind: str) -> None:
    factor = "factor = 5" if kind == "slow-disk" else ""
    text = (
        f'duration = "9s"\n[system]\nkind = "{system}"\n'
        f'[[fault]]\nkind = "{kind}"\nnodes = ["n2"]\nat = "1s"\nfor = "1s"\n{factor}\n'
    )
    if system in ("raft", "quorum"):
        assert len(parse(text).faults) == 1
        return
    with pytest.raises(ScenarioError) as refused:
        parse(text, "mine.toml")
    said = f'fault[0].kind: "{kind}" strikes the log on a node\'s disk, and nodes of kind "{system}" keep none'
    assert str(refused.value) == f"mine.toml:5: {said}"


@pytest.mark.parametrize("name", ["detector-one-way-loss", "detector-grey-link", "failover-shards", "quorum-sloppy"])
def test_drawn_faults_are_such_as_the_system_can_have_and_promises_to_bear(name: str) -> None:
    scenario = load(SCENARIOS / f"{name}.toml")
    drawn = [fault for seed in range(200) for fault in with_random_faults(scenario.with_seed(seed)).faults]
    of_logs = [fault for fault in drawn if isinstance(fault, LOG_FAULTS)]
    assert bool(of_logs) == scenario.system.keeps_log
    rates = {fault.rate for fault in drawn if isinstance(fault, Drift)}
    if isinstance(scenario.system, Failover):
        assert min(rates) / max(rates) >= 1 - scenario.system.config.drift - 1e-9
    else:
        assert rates == {0.5, 0.9, 1.1, 2.0}
