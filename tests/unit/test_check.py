"""Verdicts on whole runs, from folders written by hand: what is promised, what is believed, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.checking.check import check_path, judge
from experiments.checking.history import HistoryError, TornHistoryError
from experiments.checking.rejections import told
from experiments.checking.results import Check, Rejection, Results

MS = 1_000_000
SECOND = 1_000 * MS
EPOCH = 500 * SECOND
STRIKE, HEAL, END = 2 * SECOND, 4 * SECOND, 8 * SECOND
NODES = ("n1", "n2", "n3")


class Run:
    """A run of three nodes, whose leader n1 is cut off from 2 s to 4 s; n2 leads term 2 from 2.25 s on.

    One client writes and reads "k" in turn every 20 ms, but for the time until the new leader. Tests change the parts
    before `judge` writes and judges them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.elected = STRIKE + 250 * MS
        self.expect: dict[str, Any] = {"linearizable": True, "recovery": SECOND, "election": SECOND}
        self.manifest: dict[str, Any] = {"fidelity": {"cpu_headroom": 0.4, "cpu_headroom_min": 0.1}, "calibration": {}}
        self.operations = self._operations()
        grudge = {"n1": ["n2", "n3"], "n2": ["n1"], "n3": ["n1"]}
        reach = {to: {by: by not in grudge[to] for by in NODES if by != to} for to in NODES}
        whole = {to: dict.fromkeys(row, True) for to, row in reach.items()}
        resolved = {"groups": [["n1"], ["n2", "n3"]], "grudge": grudge, "leader": "n1"}
        asked = {"groups": [["leader"], ["others"]], "at": STRIKE, "for": HEAL - STRIKE}
        self.faults: list[dict[str, Any]] = [
            {"step": "asked", "t": STRIKE, "asked": asked},
            {"step": "applied", "t": STRIKE + 2 * MS, "resolved": resolved},
            {"step": "proved", "t": STRIKE + 200 * MS, "effective": True, "expected": reach, "mismatches": []},
            {
                "step": "healed",
                "lifted": HEAL,
                "t": HEAL + 200 * MS,
                "effective": True,
                "expected": whole,
                "mismatches": [],
            },
        ]
        self.kind = "partition"
        self.traces = self._traces()
        self.lags = [2 * MS] * 8

    def _operations(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        time, value, process = 10 * MS, 0, 0
        while time < END:
            took = 3 * MS
            f = "read" if len(made) % 2 else "write"
            outcome = "ok"
            if STRIKE <= time < self.elected:
                took, outcome = self.elected + 20 * MS - time, "info" if f == "write" else "fail"
            value += f == "write"
            made.append({"process": process, "f": f, "value": value, "type": outcome, "at": (time, time + took)})
            process += outcome == "info"
            time += max(20 * MS, took)
        return made

    def _traces(self) -> dict[str, list[dict[str, Any]]]:
        lines: dict[str, list[dict[str, Any]]] = {}
        for node in NODES:
            header = {"ev": "trace", "schema": 1, "node": node, "incarnation": 0, "protocol": "raft"}
            started = {"ev": "started", "term": 0, "vote": None, "last": 0, "last_term": 0}
            lines[node] = [{"t": EPOCH - SECOND} | header, {"t": EPOCH - SECOND} | started]
        role = {"ev": "role", "last": 0, "last_term": 0}
        entry = {"first": 1, "terms": [1], "digests": ["aaaaaaaa"]}
        lines["n1"].append({"t": EPOCH - 700 * MS, "role": "leader", "term": 1} | role)
        for node in NODES:
            lines[node].append({"t": EPOCH - 600 * MS, "ev": "append"} | entry)
            lines[node].append({"t": EPOCH - 500 * MS, "ev": "commit", "index": 1, "term": 1})
            lines[node].append({"t": EPOCH - 500 * MS, "ev": "apply"} | entry)
        lines["n2"].append({"t": EPOCH + self.elected, "role": "leader", "term": 2} | role)
        lines["n1"].append({"t": EPOCH + HEAL + 10 * MS, "role": "follower", "term": 2} | role)
        return lines

    def write(self) -> Path:
        folder = self.folder
        scenario = {
            "system": {"kind": "raft", "nodes": 3, "election_timeout": [150 * MS, 300 * MS]},
            "faults": [{"kind": self.kind}],
            "expect": self.expect,
        }
        write(folder / "manifest.json", {"schema": 1, "epoch": EPOCH, "scenario": scenario} | self.manifest)
        events = []
        for one in self.operations:
            invoke, complete = one["at"]
            event = {"process": one["process"], "f": one["f"]}
            asked = ["k", None if one["f"] == "read" else one["value"]]
            error = {} if one["type"] == "ok" else {"error": "timeout"}
            events.append(event | {"time": EPOCH + invoke, "type": "invoke", "value": asked})
            events.append(event | {"time": EPOCH + complete, "type": one["type"], "value": ["k", one["value"]]} | error)
        write(folder / "clients" / "c1" / "trace" / "history.ndjson", *sorted(events, key=lambda event: event["time"]))
        write(folder / "faults.jsonl", *({"fault": 0, "kind": self.kind} | step for step in self.faults))
        for node, lines in self.traces.items():
            write(folder / "nodes" / node / "trace" / "0.ndjson", *lines)
            figures = [{"t": EPOCH + at * SECOND, "loop_lag_max": lag} for at, lag in enumerate(self.lags)]
            write(folder / "nodes" / node / "trace" / "metrics.ndjson", {"t": 1, "loop_lag_max": 10**10}, *figures)
        return folder

    def judge(self) -> Results:
        return judge(self.write())


def write(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def of(results: Results, name: str) -> Check:
    return next(check for check in results.checks if check.name == name)


# ---------------------------------------------------------------------------------------------------------------------


def test_a_run_that_kept_every_promise_is_valid_and_says_what_happened(run: Run) -> None:
    results = run.judge()
    assert {check.name: check.valid for check in results.checks} == dict.fromkeys(
        [
            "linearizable",
            "acknowledged_writes",
            "ElectionSafety",
            "LeaderAppendOnly",
            "LogMatching",
            "LeaderCompleteness",
            "StateMachineSafety",
            "recovery",
            "election",
        ],
        True,
    )
    assert (results.valid, results.exit_status, results.believable.valid) == (True, 0, True)
    assert results.summary == (
        f"Linearizable: {len(run.operations)} operations on 1 key. n1 was cut off at 2.0 s; a new leader led after "
        "0.25 s; no acknowledged write was lost."
    )


def test_the_figures_of_a_run_are_those_of_its_parts(run: Run) -> None:
    results = run.judge()
    found = results.availability
    assert found is not None
    assert (found.operations, found.failed + found.unknown) == (len(run.operations), 1)
    assert found.ok == found.operations - 1
    assert (found.outage_at, found.longest_outage) == (STRIKE + 10 * MS, 263 * MS)
    assert found.new_leader == {"0": 248 * MS}
    assert 260 * MS < (found.interruption["0"] or 0) < 300 * MS
    assert 0 <= (found.recovery["0"] or 0) < 30 * MS
    assert [(led.node, led.term, led.start, led.end) for led in results.leaders] == [
        ("n1", 1, -700 * MS, HEAL + 10 * MS),
        ("n2", 2, run.elected, None),
    ]
    assert (results.fidelity.loop_lag_p99, results.fidelity.cpu_headroom) == (2 * MS, 0.4)
    data = json.loads(msgspec.json.encode(results))
    assert data["leaders"][0] == {"node": "n1", "term": 1, "from": -700 * MS, "to": HEAL + 10 * MS}


def test_a_stale_read_breaks_a_promise_and_is_shown_with_as_few_operations_as_it_takes(run: Run) -> None:
    late = next(one for one in run.operations if one["f"] == "read" and one["at"][0] > 3 * SECOND)
    late["value"] = 5
    results = run.judge()
    assert (results.valid, results.exit_status) == (False, 1)
    found = of(results, "linearizable")
    assert found.valid is False
    assert "no order of the operations on k explains that process 1 read 5 at 3.0 s" in found.summary
    details = found.details
    assert details["key"] == "k"
    assert [(one["f"], one["type"]) for one in details["operations"]] == [
        ("write", "ok"),
        ("write", "ok"),
        ("read", "ok"),
    ]
    blamed = details["operations"][details["stuck"]]
    assert (blamed["value"], blamed["invoke"], blamed["complete"]) == (5, *late["at"])
    assert details["final_paths"] == [{"order": [0, 1], "state": details["operations"][1]["value"]}]
    assert results.summary.startswith("Not linearizable: no order")
    assert of(results, "acknowledged_writes").valid is True


def test_a_last_read_behind_an_acknowledged_write_says_which_was_lost(run: Run) -> None:
    last = run.operations[-1] if run.operations[-1]["f"] == "read" else run.operations[-2]
    assert last["f"] == "read"
    lost, last["value"] = last["value"], last["value"] - 1
    results = run.judge()
    found = of(results, "acknowledged_writes")
    assert found.valid is False
    assert found.summary.startswith(f"1 acknowledged write lost, the first of {lost} to k at 8.0 s")
    assert [one["value"] for one in found.details["operations"]] == [lost, lost - 1]
    assert "no acknowledged write was lost" not in results.summary


def test_two_leaders_of_a_term_are_shown_side_by_side(run: Run) -> None:
    run.traces["n2"][-1]["term"] = 1
    results = run.judge()
    found = of(results, "ElectionSafety")
    assert (results.exit_status, found.valid) == (1, False)
    assert found.details["property"] == "ElectionSafety"
    assert [(one["node"], one["line"], one["term"]) for one in found.details["events"]] == [("n1", 3, 1), ("n2", 6, 1)]
    assert results.summary.startswith("ElectionSafety was broken: n1 and n2 were both elected in term 1.")


def test_what_is_not_promised_is_told_but_breaks_nothing(run: Run) -> None:
    run.expect["linearizable"] = False
    next(one for one in run.operations if one["f"] == "read" and one["at"][0] > 3 * SECOND)["value"] = 5
    results = run.judge()
    assert results.exit_status == 0
    assert of(results, "linearizable").summary.startswith("not promised: no order")


# ---------------------------------------------------------------------------------------------------------------------
# Time


@pytest.mark.parametrize(
    ("expect", "summary"),
    [
        ({"election": 100 * MS}, "No new leader in time: a new leader after 0.25 s; 0.10 s allowed."),
        ({"availability": 0.999}, "Too few operations were served: 99.7% of operations were served; 99.9% expected."),
        ({"leader_changes": 0}, "The leader changed too often: 1 change of leader; 0 allowed."),
    ],
)
def test_what_took_longer_than_expected_breaks_a_promise_unless_the_machine_may_be_to_blame(
    run: Run, expect: dict[str, Any], summary: str
) -> None:
    run.expect = expect
    results = run.judge()
    assert (results.valid, results.exit_status) == (False, 1)
    assert results.summary.startswith(summary)
    run.lags = [60 * MS] * 8
    doubted = run.judge()
    assert (doubted.valid, doubted.exit_status) == ("unknown", 2)
    assert doubted.summary.startswith("Not to be believed: the nodes' event loops ran 0.06 s late")


def test_service_that_does_not_come_back_breaks_the_promise_to_recover(run: Run) -> None:
    run.operations = [one for one in run.operations if one["at"][0] < HEAL or one["type"] != "ok"]
    for at, time in enumerate(range(HEAL, END, 100 * MS)):
        run.operations.append({"process": 900 + at, "f": "read", "value": 0, "type": "fail", "at": (time, time + MS)})
    results = run.judge()
    assert of(results, "recovery").summary == "no steady service after the heal; 1.00 s allowed"
    assert results.exit_status == 1


def test_a_workload_too_short_to_show_recovery_leaves_it_unknown(run: Run) -> None:
    run.operations = [one for one in run.operations if one["at"][1] < HEAL + 300 * MS and not one["at"][1] > HEAL]
    run.operations.append({"process": 900, "f": "read", "value": 0, "type": "fail", "at": (HEAL, HEAL + 300 * MS)})
    results = run.judge()
    assert (of(results, "recovery").valid, results.exit_status) == ("unknown", 2)


def test_a_fault_that_spares_the_leader_asks_for_no_election(run: Run) -> None:
    run.faults[1]["resolved"]["leader"] = "n3"
    run.faults[2]["expected"] = {"n3": {"n2": True}, "n2": {"n3": True}}
    results = run.judge()
    assert of(results, "election").summary == "no fault took the leader"
    assert results.availability is not None
    assert results.availability.new_leader == {}


def test_a_killed_leader_led_until_it_was_killed(run: Run) -> None:
    run.kind = "kill"
    run.faults[1]["resolved"] = {"nodes": ["n1"], "leader": "n1"}
    run.traces["n1"].pop()
    results = run.judge()
    assert [(led.node, led.end) for led in results.leaders] == [("n1", STRIKE + 2 * MS), ("n2", None)]
    assert "n1 was killed at 2.0 s; a new leader led after 0.25 s" in results.summary


# ---------------------------------------------------------------------------------------------------------------------
# Belief


def _not_proved(run: Run) -> None:
    run.faults[2] |= {
        "effective": False,
        "mismatches": [{"receiver": "n1", "sender": "n2", "expected": False, "sent": 3, "arrived": 2}] * 4,
    }


def _not_healed(run: Run) -> None:
    run.faults.pop()


def _never_asked(run: Run) -> None:
    run.faults.clear()


def _starved(run: Run) -> None:
    run.manifest["fidelity"]["cpu_headroom"] = 0.004
    run.lags = [9 * MS] * 8


def _not_calibrated(run: Run) -> None:
    run.manifest["calibration"]["leaf1>spine1"] = {"loss": 0.0, "disagreements": ["loss is 0 %, not 10 %"]}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            _not_proved,
            "fault 1 (partition) had no effect as asked: n1 should not hear n2, and got 2 of 3 probes, and 3 more",
        ),
        (_not_healed, "fault 1 (partition) was not healed: the run ended before"),
        (_never_asked, "fault 1 of the scenario never came"),
        (_starved, "only 0.4% of the processors' time was left: fewer processes, or a time_scale"),
        (_not_calibrated, "leaf1>spine1 did not do what was asked when it was calibrated: loss is 0 %, not 10 %"),
    ],
)
def test_a_run_that_did_not_test_what_it_should_is_not_to_be_believed(run: Run, spoil: Any, reason: str) -> None:
    spoil(run)
    results = run.judge()
    assert results.believable.reasons == [reason]
    assert (results.valid, results.exit_status) == ("unknown", 2)
    assert results.summary.startswith(f"Not to be believed: {reason}.")


def test_a_busy_machine_that_woke_every_node_in_time_is_no_reason_for_doubt(run: Run) -> None:
    run.manifest["fidelity"]["cpu_headroom"] = 0.0
    assert run.judge().exit_status == 0


def test_a_broken_promise_is_broken_on_any_machine(run: Run) -> None:
    _starved(run)
    run.traces["n2"][-1]["term"] = 1
    results = run.judge()
    assert (results.valid, results.exit_status, results.believable.valid) == (False, 1, False)


def test_a_trace_with_a_hole_leaves_raft_undecided(run: Run) -> None:
    run.traces["n3"].pop(2)
    results = run.judge()
    assert (of(results, "LogMatching").valid, results.exit_status) == ("unknown", 2)
    assert "nodes/n3/trace/0.ndjson:3: committed up to 1 in a log that ends at 0" in results.summary


def test_nodes_without_traces_leave_raft_undecided(run: Run) -> None:
    run.traces = {}
    assert of(run.judge(), "ElectionSafety").summary == "no node left a trace"


# ---------------------------------------------------------------------------------------------------------------------
# What people check by hand


def test_a_run_is_judged_anew_by_its_folder_and_alike(run: Run) -> None:
    first = run.judge()
    again = check_path(run.folder)
    assert (again.valid, again.availability, again.leaders) == (first.valid, first.availability, first.leaders)


@pytest.mark.parametrize("name", ["history.jsonl", "history.edn"])
def test_a_history_alone_is_judged_for_what_clients_saw(run: Run, name: str) -> None:
    run.judge()
    results = check_path(run.folder / name)
    assert [check.name for check in results.checks] == ["linearizable", "acknowledged_writes"]
    assert (results.valid, results.exit_status) == (True, 0)
    assert results.availability is not None


def test_a_classic_jepsen_history_of_one_register_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "history.edn"
    path.write_text(
        "{:process 0, :type :invoke, :f :write, :value 1}\n{:process 0, :type :ok, :f :write, :value 1}\n"
        "{:process 1, :type :invoke, :f :cas, :value [1 2]}\n{:process 1, :type :ok, :f :cas, :value [1 2]}\n"
        "{:process 2, :type :invoke, :f :read, :value nil}\n{:process 2, :type :ok, :f :read, :value 1}\n"
    )
    results = check_path(path)
    assert results.exit_status == 1
    assert results.checks[0].summary == "no order of the operations on the register explains that process 2 read 1"
    assert results.availability is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"process":0,"type":"invoke","f":"enqueue","value":1,"time":1}\n', "no model for 'enqueue'"),
        ('{"process":"nemesis","type":"info","f":"kill","time":1}\n', "no operation of a client in it"),
        (
            '{"process":0,"type":"ok","f":"read","value":["k",1],"time":1}\n',
            "process 0 completes what it never invoked",
        ),
    ],
)
def test_what_cannot_be_judged_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text)
    with pytest.raises(HistoryError, match=says):
        check_path(path)


def counted(run: Run, node: str, rejected: Any, incarnation: int = 0) -> None:
    path = run.folder / "nodes" / node / "trace" / "metrics.ndjson"
    with path.open("a") as file:
        file.write(json.dumps({"t": EPOCH, "loop_lag_max": 0, "incarnation": incarnation, "rejected": rejected}) + "\n")


def test_nodes_that_turn_each_other_away_are_named_and_such_a_run_is_not_to_be_believed(run: Run) -> None:
    run.write()
    counted(run, "n1", {"settings": {"n3": 2}})
    counted(run, "n1", {"settings": {"n3": 5}})
    counted(run, "n1", {"settings": {"n3": 1}}, incarnation=1)
    counted(run, "n3", {"settings": {"n1": 4}})
    results = judge(run.folder)
    assert results.valid == "unknown"
    assert results.believable.reasons == [
        "nodes that belong together turned each other away: n1 rejected 6 connections of n3: its process is configured "
        "otherwise; n3 rejected 4 connections of n1: its process is configured otherwise"
    ]
    assert results.rejections[0] == Rejection(
        "n1", "n3", "connection", "settings", "its process is configured otherwise", 6
    )


def test_connections_that_a_fault_or_a_stranger_explains_are_told_of_and_no_reason_for_doubt(run: Run) -> None:
    run.write()
    counted(run, "n1", {"short": {"n3": 1}, "incarnation": {"n2": 1}, "cluster": {"10.0.0.9": 7}, "malformed": 2})
    results = judge(run.folder)
    assert results.valid is True
    assert [told(one) for one in results.rejections] == [
        "n1 rejected 1 connection of n3: it ended within a frame",
        "n1 rejected 1 connection of n2: a later incarnation of it had been there",
        "n1 rejected 7 connections of 10.0.0.9: it is of another cluster",
        "n1 rejected 2 connections of somebody: a frame that cannot be read",
    ]


def test_a_message_that_no_correct_node_sends_fails_the_run_and_names_who_sent_it(run: Run) -> None:
    lines = run.traces["n1"]
    why = "entry 7 stands where 1 belongs"
    for many in (1, 2, 8):
        rejected = {"t": lines[-1]["t"], "ev": "reject", "sender": "n3", "message": "Append", "why": why, "count": many}
        lines.append(rejected)
    results = run.judge()
    check = of(results, "sound_messages")
    assert (check.valid, check.summary) == (False, f"n1 rejected 8 messages of n3: Append, {why}")
    assert results.summary.startswith("A node said what no correct one can: n1 rejected 8 messages of n3")
    assert [one.count for one in results.rejections] == [8]


def test_a_torn_history_is_judged_up_to_the_tear_if_asked(run: Run) -> None:
    run.judge()
    path = run.folder / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TornHistoryError):
        check_path(path)
    assert check_path(path, ignore_torn_tail=True).exit_status == 0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("manifest.json", "{", r"manifest\.json: not the manifest of a run"),
        ("faults.jsonl", '{"fault":0}\n', r"faults\.jsonl:1: not a step of a fault"),
        ("nodes/n1/trace/metrics.ndjson", '{"t":"noon"}\n', r"metrics\.ndjson:1: not a line of a node's metrics"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(run: Run, name: str, text: str, says: str) -> None:
    folder = run.write()
    (folder / name).write_text(text)
    with pytest.raises(HistoryError, match=says):
        judge(folder)
