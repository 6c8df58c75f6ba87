"""The report without a browser: what is computed for it, and that it is written whatever the folder lacks."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.checking.fault_record import Step
from experiments.checking.history import Event
from experiments.checking.results import SCHEMA, Believable, Leader, Results, Valid
from experiments.report import ReportError, events, fabric, orders, series, story, timeline, words, write_report
from experiments.report.balance import balance
from experiments.report.record import TraceEvent, read_record
from tests.synthetic_runs import KINDS, MS, NODES, SECOND, write_run
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.three_tier import ThreeTier

PARTS = ("manifest.json", "history.jsonl", "faults.jsonl", "results.json", "nodes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {kind: write_run(root / kind, kind) for kind in KINDS}


def text_of(page: str) -> str:
    """What a reader sees: without style, script and tags."""
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


# ---------------------------------------------------------------------------------------------------------------------
# Words and numbers


@given(st.integers(1_000, 10**13))
def test_a_span_is_rounded_to_three_figures_and_keeps_its_unit(nanoseconds: int) -> None:
    number, unit = words.span(nanoseconds).split(words.THIN)
    factor = {"µs": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(nanoseconds, rel=0.0051)


@given(st.floats(0.00001, 0.99999))
def test_a_share_is_never_rounded_to_all_or_nothing(value: float) -> None:
    said = words.share(value)
    assert said not in (f"0{words.THIN}%", f"100{words.THIN}%")


@given(st.lists(st.floats(0, 100), max_size=6), st.floats(1, 15))
def test_labels_that_fit_are_spread_without_overlap_and_stay_in_order(heights: list[float], gap: float) -> None:
    placed = words.spread(heights, gap, 0, 100)
    assert all(-1e-6 <= y <= 100 + 1e-6 for y in placed)
    in_order = [placed[index] for index in sorted(range(len(heights)), key=lambda index: heights[index])]
    assert all(lower - upper >= gap - 1e-6 for upper, lower in itertools.pairwise(in_order))


@given(st.floats(0.001, 1e6), st.integers(2, 20))
def test_axis_steps_are_round_and_no_more_than_asked(extent: float, parts: int) -> None:
    step = words.nice_step(extent, parts)
    assert extent / step <= parts * (1 + 1e-6)
    assert float(f"{step:e}".partition("e")[0]) in (1, 2, 5)


def test_what_nodes_turned_away_is_told_beside_how_far_to_believe_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", KINDS[0])
    path = run / "results.json"
    results = json.loads(path.read_text())
    results["rejections"] = [
        {
            "node": "n1",
            "peer": "n3",
            "what": "connection",
            "code": "settings",
            "why": "it is set otherwise",
            "count": 2,
        },
        {"node": "n2", "peer": "n3", "what": "message", "code": "Append", "why": "entry 7 is <missing>", "count": 1},
    ]
    path.write_text(json.dumps(results))
    page = text_of(write_report(run).read_text())
    assert "What nodes turned away n1 rejected 2 connections of n3: it is set otherwise" in page
    assert "n2 rejected 1 message of n3: Append, entry 7 is &lt;missing&gt;" in page


# ---------------------------------------------------------------------------------------------------------------------
# Operations and their latencies


@given(st.lists(st.integers(0, 10**9), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_with_that_share_at_or_below_it(values: list[int], rank: int) -> None:
    values.sort()
    found = series.percentile(values, rank)
    assert sum(value <= found for value in values) * 100 >= rank * len(values)
    assert sum(value < found for value in values) * 100 < rank * len(values)


def event(time: int, process: int | str, type: Any, f: str, value: Any = None, error: Any = None) -> Event:
    return Event(process, type, f, value, time, error=error)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Processes that do one thing at a time; some completions are missing, as after a crash."""
    written: list[Event] = []
    for process in range(draw(st.integers(1, 4))):
        now = 0
        for _ in range(draw(st.integers(0, 8))):
            now += draw(st.integers(1, SECOND))
            f = draw(st.sampled_from(["read", "write", "cas"]))
            written.append(event(now, process, "invoke", f, ["k", 1]))
            outcome = draw(st.sampled_from(["ok", "fail", "info", "nothing"]))
            if outcome == "nothing":
                break
            now += draw(st.integers(1, SECOND))
            written.append(event(now, process, outcome, f, ["k", 1], draw(st.sampled_from([None, "timeout"]))))
    return sorted(written, key=lambda one: one.time)


@given(histories())
def test_every_invocation_is_one_operation_and_every_completion_is_counted_once(history: list[Event]) -> None:
    made = events.operations([*history, event(5, "nemesis", "info", "start-partition")])
    assert len(made) == sum(one.type == "invoke" for one in history)
    end = max((one.time for one in history), default=0) + SECOND
    counts = series.count(made, end)
    assert sum(map(sum, (counts.ok, counts.fail, counts.info))) == sum(one.type != "invoke" for one in history)


def test_a_refused_compare_and_set_is_an_answer_and_one_nobody_answered_is_an_error() -> None:
    history = [
        event(0, 0, "invoke", "cas"),
        event(MS, 0, "fail", "cas", error="k1 has another value"),
        event(2 * MS, 0, "invoke", "cas"),
        event(3 * MS, 0, "fail", "cas", error="no leader"),
    ]
    counts = series.count(events.operations(history), SECOND)
    assert (sum(counts.ok), sum(counts.fail)) == (1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Roles, leaders, faults


@st.composite
def incarnations(draw: st.DrawFn) -> list[list[TraceEvent]]:
    now, files = draw(st.integers(0, SECOND)), []
    for _ in range(draw(st.integers(1, 3))):
        file = [TraceEvent(now, "trace")]
        for _ in range(draw(st.integers(0, 6))):
            now += draw(st.integers(1, SECOND))
            role = draw(st.sampled_from(["follower", "pre_candidate", "candidate", "leader"]))
            file.append(TraceEvent(now, "role", role, draw(st.integers(0, 3))))
        files.append(file)
        now += draw(st.integers(1, SECOND))
    return files


@given(incarnations(), st.integers(0, 3 * SECOND))
def test_a_nodes_roles_follow_each_other_without_gap_or_overlap(files: list[list[TraceEvent]], more: int) -> None:
    end = files[-1][-1].t + more
    (lane,) = events.lanes({"n1": files}, 0, (), end)
    for before, after in itertools.pairwise(lane.stretches):
        assert before.end == after.start
        assert (before.role, before.term) != (after.role, after.term)
    if lane.stretches:
        assert lane.stretches[-1].end == end
    assert any(stretch.role == events.DOWN for stretch in lane.stretches) == (len(files) > 1)


def test_a_killed_node_is_down_from_the_kill_until_its_next_incarnation_has_started() -> None:
    files = [
        [TraceEvent(0, "trace"), TraceEvent(0, "role", "leader", 1), TraceEvent(7 * SECOND, "role", "follower", 9)],
        [TraceEvent(9 * SECOND, "trace"), TraceEvent(10 * SECOND, "started", term=1)],
    ]
    steps = [Step(0, "kill", "applied", 6 * SECOND, resolved={"nodes": ["n3"]})]
    (lane,) = events.lanes({"n3": files}, 0, events.faults(steps, ()), 12 * SECOND)
    found = [(stretch.start // SECOND, stretch.end // SECOND, stretch.role) for stretch in lane.stretches]
    assert found == [(0, 6, "leader"), (6, 10, "down"), (10, 12, "follower")]


def test_a_node_killed_for_good_stays_down() -> None:
    steps = [Step(0, "kill", "applied", 6 * SECOND, resolved={"nodes": ["n3"]})]
    files = [[TraceEvent(0, "trace"), TraceEvent(0, "role", "leader", 1)]]
    (lane,) = events.lanes({"n3": files}, 0, events.faults(steps, ()), 12 * SECOND)
    assert lane.stretches[-1] == events.Stretch(6 * SECOND, 12 * SECOND, events.DOWN, 0)


def test_of_two_leaders_at_once_the_later_term_leads() -> None:
    led = [Leader("n3", 1, 0, 8 * SECOND), Leader("n1", 2, 6 * SECOND, None)]
    assert events.leader_at(led, 7 * SECOND) == led[1]
    assert events.leader_at(led, 5 * SECOND) == led[0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=8))
def test_faults_that_overlap_in_time_never_share_a_row(spans: list[tuple[int, int]]) -> None:
    steps = []
    for index, (start, length) in enumerate(spans):
        resolved = {"nodes": ["n1"]}
        steps.append(Step(index, "kill", "applied", start * SECOND, resolved=resolved))
        steps.append(Step(index, "kill", "healed", (start + length) * SECOND))
    placed = timeline.windows(events.faults(steps, ()), 100 * SECOND)
    assert len(placed) == len(spans)
    for one, other in itertools.combinations(placed, 2):
        assert one.row != other.row or one.end <= other.start or other.end <= one.start


def test_a_fault_counts_as_proved_only_if_both_its_effect_and_its_end_were() -> None:
    def proof(proved: bool | None, healed: bool | None) -> bool | None:
        steps = [Step(0, "partition", "applied", 1)]
        steps += [] if proved is None else [Step(0, "partition", "proved", 2, effective=proved)]
        steps += [] if healed is None else [Step(0, "partition", "healed", 3, effective=healed)]
        return events.faults(steps, ())[0].proof

    assert proof(True, True) is True
    assert proof(True, False) is False
    assert proof(False, True) is False
    assert proof(None, True) is None


# ---------------------------------------------------------------------------------------------------------------------
# Drawings


@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 40))
@settings(max_examples=40)
def test_no_two_boxes_of_a_drawn_fabric_overlap_and_all_are_inside(spines: int, leaves: int, hosts: int) -> None:
    plan = LeafSpine(spines, leaves, hosts)
    placement = {f"n{number}": host.name for number, host in enumerate(plan.hosts[::3], 1)}
    drawing = fabric.draw(plan, placement, None)
    for box in drawing.boxes:
        assert box.x >= 0
        assert box.x + box.width <= drawing.width
        assert box.y + box.height <= drawing.height
    for one, other in itertools.combinations(drawing.boxes, 2):
        assert (
            one.x + one.width <= other.x
            or other.x + other.width <= one.x
            or one.y + one.height <= other.y
            or other.y + other.height <= one.y
        )
    placed = [occupant.name for box in drawing.boxes for occupant in box.occupants]
    assert sorted(placed) == sorted(placement)


def drawn(kind: str, runs: dict[str, Path]) -> tuple[FabricPlan, fabric.Drawing]:
    record = read_record(runs[kind])
    plan = record.manifest.plan
    assert plan is not None
    fault = events.faults(record.faults, ())[0]
    return plan, fabric.draw(plan, record.manifest.placement, fault)


def test_a_partition_is_drawn_as_its_sides_and_the_pairs_it_keeps_apart(runs: dict[str, Path]) -> None:
    _, drawing = drawn("held", runs)
    sides = {occupant.name: occupant.group for box in drawing.boxes for occupant in box.occupants}
    assert {name for name in NODES if sides[name] == 1} == {"n1", "n2", "n4", "n5"}
    assert sides["n3"] == 0
    assert sides["c1"] is None
    assert {arc.title for arc in drawing.arcs} == {
        f"{one} and {other} do not hear each other"
        for one, other in (("n1", "n3"), ("n2", "n3"), ("n3", "n4"), ("n3", "n5"))
    }


def test_cut_links_impaired_directions_and_killed_nodes_are_marked(runs: dict[str, Path]) -> None:
    assert {line.name for line in drawn("link-down", runs)[1].lines if line.cut} == {"leaf1-spine1", "leaf1-spine2"}
    arrows = {arrow.line.name: arrow for arrow in drawn("impaired", runs)[1].arrows}
    assert arrows["leaf1>spine1"].label == f"20{words.THIN}ms ±{words.THIN}5{words.THIN}ms, 10{words.THIN}% loss"
    assert arrows["leaf1>spine1"].line.y1 > arrows["leaf1>spine1"].line.y2, "it points up, to the spine"
    assert arrows["leaf3>spine2"].lasting
    killed = [occupant.name for box in drawn("killed", runs)[1].boxes for occupant in box.occupants if occupant.killed]
    assert killed == ["n3"]


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_in_a_diagram_of_operations_what_came_before_what_is_seen(data: st.DataObject) -> None:
    moments = data.draw(st.permutations(range(2 * data.draw(st.integers(1, 30)))))
    pairs = [sorted(pair) for pair in zip(moments[::2], moments[1::2], strict=True)]
    operations: list[dict[str, Any]] = [
        {"process": number, "f": "write", "value": number, "invoke": invoke, "complete": complete, "type": "ok"}
        for number, (invoke, complete) in enumerate(pairs)
    ]
    stuck = data.draw(st.integers(0, len(pairs) - 1))
    found = orders.diagram({"key": "k1", "stuck": stuck, "operations": operations, "final_paths": []})
    assert found is not None
    assert len(found.bars) <= orders.MOST_OPERATIONS
    shown = {bar.text: (bar, pairs[int(bar.text.removeprefix("write "))]) for bar in found.bars}
    assert [bar.text for bar in found.bars if bar.blamed] == [f"write {stuck}"]
    for (one, mine), (other, theirs) in itertools.permutations(shown.values(), 2):
        assert (one.x + one.width < other.x) == (mine[1] < theirs[0])


# ---------------------------------------------------------------------------------------------------------------------
# The verdict


@pytest.mark.parametrize(
    ("valid", "believable", "state"),
    [
        (True, True, "held"),
        (False, True, "broken"),
        ("unknown", True, "unknown"),
        (True, False, "doubtful"),
        ("unknown", False, "doubtful"),
        (False, False, "broken"),
    ],
)
def test_a_run_claims_no_more_than_its_verdict(valid: Valid, believable: bool, state: str) -> None:
    assert story.state(Results(SCHEMA, valid, 0, "", [], Believable(believable, []))) == state
    assert story.state(None) == "unjudged"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("held", "Held. Five Raft nodes lost their leader to a partition for 6 s; a new one led 306 ms later and no"),
        ("unordered", "Broken. Five Raft nodes lost their leader to a partition for 6 s. Not linearizable: no order"),
        ("two-leaders", "Broken. Five Raft nodes lost their leader to a partition for 6 s. Election safety: n3 and n1"),
        ("impaired", "Held. Five Raft nodes ran for 6 s with 20 ms ± 5 ms, 10 % loss on leaf1>spine1; n3 led"),
        ("killed", "Held. Five Raft nodes had their leader killed and started again after 6 s; a new one led 309 ms"),
        ("unbelievable", "Not to be believed. Fault 1 (partition) had no effect as asked: n3 hears n1, n1"),
        ("died", "No verdict. Five Raft nodes lost their leader to a partition. The run was not judged"),
    ],
)
def test_the_first_sentence_says_what_happened(kind: str, sentence: str, runs: dict[str, Path]) -> None:
    page = write_report(runs[kind]).read_text()
    match = re.search(r"<h1>(.*?)</h1>", page, re.S)
    assert match
    heading = text_of(match[1]).replace("&gt;", ">").replace(words.THIN, " ").strip()
    assert heading.startswith(sentence)


def test_a_mismatch_between_asked_and_measured_is_marked_in_the_matrix(runs: dict[str, Path]) -> None:
    page = write_report(runs["unbelievable"]).read_text()
    wrong = re.findall(r'<td class="cut wrong" title="([^"]+)"', page)
    assert wrong == [
        "n3 to n1: 3 of 3 probes arrived; they must not arrive",
        "n1 to n3: 3 of 3 probes arrived; they must not arrive",
    ]
    assert 'class="cut wrong"' not in write_report(runs["held"]).read_text()


def test_a_broken_check_is_drawn_with_the_operation_that_no_order_explains(runs: dict[str, Path]) -> None:
    page = write_report(runs["unordered"]).read_text()
    details = json.loads((runs["unordered"] / "results.json").read_text())["checks"][0]["details"]
    stale = details["operations"][details["stuck"]]
    assert len(re.findall(r'class="op read blamed"', page)) == 1
    assert f"Every order gets stuck before read {stale['value']} is explained" in page


def test_events_that_contradict_each_other_stand_side_by_side(runs: dict[str, Path]) -> None:
    page = text_of(write_report(runs["two-leaders"]).read_text())
    assert "n3, incarnation 0, line 6 n1, incarnation 0, line 1502" in page
    assert "term = 1 1" in page
    assert "last ≠ 0 871" in page


# ---------------------------------------------------------------------------------------------------------------------
# Whatever the folder holds


@pytest.mark.parametrize("lost", [part for size in (1, 4) for part in itertools.combinations(PARTS, size)])
def test_a_report_is_written_whatever_is_missing_and_says_what(lost: tuple[str, ...], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "killed", duration=4, rate=50)
    for part in lost:
        (run / part).rename(tmp_path / part)
    if not any((run / part).exists() for part in ("manifest.json", "history.jsonl", "results.json")):
        with pytest.raises(ReportError, match="not a run's folder"):
            write_report(run)
        return
    seen = text_of(write_report(run).read_text())
    for part in lost:
        assert part.replace("nodes", "nodes/*/trace") in seen
    assert ("No verdict." in seen) == ("results.json" in lost)


@given(st.integers(0, 10**6), st.sampled_from(["history.jsonl", "faults.jsonl", "nodes/n1/trace/0.ndjson"]))
@settings(max_examples=15, deadline=None)
def test_a_file_cut_off_anywhere_is_read_up_to_there(
    tmp_path_factory: pytest.TempPathFactory, where: int, name: str
) -> None:
    run = write_run(tmp_path_factory.mktemp("cut") / "run", "held", duration=4, rate=50)
    data = (run / name).read_bytes()
    cut = data[: where % len(data)]
    (run / name).write_bytes(cut)
    record = read_record(run)
    read: Sequence[object] = record.traces["n1"][0]
    if name.endswith(".jsonl"):
        read = record.history if name == "history.jsonl" else record.faults
    assert len(read) == cut.count(b"\n") or not cut.count(b"\n")
    assert record.missing == []
    write_report(run)


def test_a_line_that_is_wrong_is_named_and_what_came_before_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "held", duration=4, rate=50)
    lines = (run / "history.jsonl").read_bytes().splitlines()
    lines[100] = b'{"time": "yesterday"}'
    (run / "history.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    record = read_record(run)
    assert len(record.history) == 100
    assert record.missing[0].startswith("history.jsonl: line 101 cannot be read (Expected `int`")


def test_operations_of_a_run_that_died_come_from_its_clients(runs: dict[str, Path]) -> None:
    record = read_record(runs["died"])
    assert len(events.operations(record.history)) > 1000
    assert record.history[0].time < SECOND, "relative to the start of the workload"


def test_links_that_were_cut_carry_nothing_meanwhile(runs: dict[str, Path]) -> None:
    record = read_record(runs["link-down"])
    up = record.metrics["leaf1>spine2", "packets"]
    moved = {t // SECOND: after - before for (_, before), (t, after) in itertools.pairwise(up)}
    assert {second for second, packets in moved.items() if packets == 0} == set(range(7, 13))
    page = text_of(write_report(runs["link-down"]).read_text())
    for shown in ("to spine1", "to spine2", "leaf1&gt;spine2", "spine1&gt;leaf1"):
        assert shown in page


def test_metrics_of_a_run_that_died_are_read_as_far_as_they_got(runs: dict[str, Path], tmp_path: Path) -> None:
    whole = (runs["died"] / "metrics.arrows").read_bytes()
    run = write_run(tmp_path / "run", "died")
    (run / "metrics.arrows").write_bytes(whole[: len(whole) // 2])
    seen = len(read_record(run).metrics["machine", "cpu_idle_share"])
    assert 5 <= seen < len(read_record(runs["died"]).metrics["machine", "cpu_idle_share"]) == 19


def test_a_folder_that_no_run_has_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="not a run's folder"):
        write_report(tmp_path)


def test_text_from_the_run_cannot_become_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "held", duration=4, rate=50)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["scenario"]["description"] = "</title></script><script>alert(1)</script>"
    manifest["scenario"]["name"] = "<img src=x onerror=alert(2)>"
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "nodes" / "n1").rename(run / "nodes" / "<script>alert(3)<!--")
    page = write_report(run).read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def test_a_report_of_a_minute_stays_below_a_megabyte(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "held", duration=60)
    assert write_report(run).stat().st_size < 1_000_000


def test_a_report_of_twenty_seconds_is_written_quickly(runs: dict[str, Path]) -> None:
    write_report(runs["held"])
    start = time.process_time()
    write_report(runs["held"])
    assert time.process_time() - start < 1.5, "a third of that, on two busy cores"


def test_what_was_recorded_by_a_newer_version_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "held", duration=4, rate=50)
    results = json.loads((run / "results.json").read_text())
    results["novelty"] = {"a": 1}
    results["checks"].append({"name": "a new check", "valid": True, "summary": "fine", "novelty": 1})
    (run / "results.json").write_bytes(msgspec.json.encode(results))
    assert "a new check" in write_report(run).read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [("OneVoteATerm", "one vote a term"), ("ElectionSafety", "election safety"), ("stale_reads", "stale reads")],
)
def test_a_checks_name_is_spelled_as_words(name: str, said: str) -> None:
    assert words.spelled(name) == said


def test_what_a_leaf_sent_over_each_of_its_ways_is_told_as_shares_beside_what_weights_planned() -> None:
    plan = LeafSpine(2, 2, 1)
    counted = {
        ("leaf1>spine1", "packets"): [(0, 100.0), (SECOND, 400.0)],
        ("leaf1>spine2", "packets"): [(0, 0.0), (SECOND, 100.0)],
    }
    table = balance(counted, plan)
    assert table is not None
    assert [[cell.replace(words.THIN, " ") for cell in row] for row in table.rows] == [
        ["leaf1", "400", "spine1 75 %, spine2 25 %"]
    ]
    links = tuple(msgspec.structs.replace(link, weight=3 if link.name == "leaf1-spine1" else 1) for link in plan.links)
    weighted = balance(counted, msgspec.structs.replace(plan, links=links))
    assert weighted is not None
    assert "spine1 75 % (planned 75 %)" in weighted.rows[0][2].replace(words.THIN, " ")


def test_ways_are_told_of_every_tier_and_of_none_where_there_is_no_choice() -> None:
    three = ThreeTier(4, 2, 2, 2, 1)
    ups = {(f"{link.a.node}>{link.b.node}", "packets"): [(0, 0.0), (SECOND, 1.0)] for link in three.links}
    ups |= {(f"{link.b.node}>{link.a.node}", "packets"): [(0, 0.0), (SECOND, 1.0)] for link in three.links}
    table = balance(ups, three)
    assert table is not None
    assert {row[0] for row in table.rows} == {
        switch.name for switch in three.switches if not switch.name.startswith("super")
    }
    assert balance(ups, LeafSpine(1, 2, 1)) is None
