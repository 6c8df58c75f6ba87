"""Histories, read and written as JSON lines and as EDN, and what cannot be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checking import edn
from experiments.checking.history import (
    Event,
    History,
    HistoryError,
    TornHistoryError,
    merge,
    merge_histories,
    operations,
    read_history,
    to_edn,
    write_history,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True)


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """Any events; what they say together need make no sense."""
    return [
        Event(
            draw(st.integers(0, 99) | names),
            draw(st.sampled_from(["invoke", "ok", "fail", "info"])),
            draw(names),
            draw(values),
            draw(st.integers(0, 2**60)),
            index,
            **({"error": draw(values)} if draw(st.booleans()) else {}),
        )
        for index in range(draw(st.integers(1, 6)))
    ]


@given(events())
def test_what_is_written_reads_the_same_from_both_formats(tmp_path_factory: Any, written: list[Event]) -> None:
    folder = tmp_path_factory.mktemp("history")
    write_history(folder, written)
    assert read_history(folder / "history.jsonl").events == written
    assert read_history(folder / "history.edn").events == written


@given(values)
def test_edn_has_a_notation_for_every_json_value(value: Any) -> None:
    assert [found for _, found in edn.read_each(edn.write({"value": value}))] == [{"value": value}]


@given(st.text(alphabet='{}[]()#_"\\:;, \nab1-+.eN/', max_size=40))
def test_any_text_is_edn_or_an_error_with_a_place_in_it(text: str) -> None:
    try:
        for offset, _ in edn.read_each(text):
            assert 0 <= offset < len(text)
    except edn.EdnError as error:
        place = error.offset
    else:
        place = 0
    assert 0 <= place <= max(len(text) - 1, 0)


def test_an_event_is_written_as_jepsen_writes_it() -> None:
    written = to_edn(Event(3, "invoke", "cas", ["k1", [1, 2]], 41, 7))
    assert written == '{:index 7, :time 41, :process 3, :type :invoke, :f :cas, :value ["k1" [1 2]]}'
    nemesis = to_edn(Event("nemesis", "info", "start-partition", None, 5, 0, error='no "effect"\n'))
    assert nemesis == (
        "{:index 0, :time 5, :process :nemesis, :type :info, :f :start-partition, :value nil, "
        ':error "no \\"effect\\"\\n"}'
    )


JEPSEN = """; a comment
{:process 0, :type :invoke, :f :read, :value nil, :index 0, :time 10}
#jepsen.history.Op{:index 1, :time 12, :type :ok, :process 0, :f :read, :value #{3 1}}
#_ {:index 99} {:type :info :f :start :process :nemesis :time 13N :index 2 :value [:isolated {"n1" #{"n2"}}]}

{:process 1, :type :invoke, :f :write, :value [:x 1.5M], :index 3, :time 14 :error \\a}
"""


@pytest.mark.parametrize("form", ["{}", "[{}]", "(\n{}\n)"])
def test_jepsens_own_files_are_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "history.edn"
    path.write_text(form.format(JEPSEN) if form != "{}" else JEPSEN)
    history = read_history(path)
    assert [event.type for event in history.events] == ["invoke", "ok", "info", "invoke"]
    assert history.events[1].value == [3, 1]
    assert history.events[2].value == ["isolated", {"n1": ["n2"]}]
    assert (history.events[3].value, history.events[3].error) == (["x", 1.5], "a")
    assert [line - history.lines[0] for line in history.lines] == [0, 1, 2, 4]


def test_a_history_without_indices_and_times_is_numbered(tmp_path: Path) -> None:
    path = tmp_path / "old.edn"
    path.write_text("{:process 0 :type :invoke :f :write :value 1}\n{:process 0 :type :ok :f :write :value 1}\n")
    history = read_history(path)
    assert [event.index for event in history.events] == [0, 1]
    assert not history.timed
    assert [operation.type for operation in operations(history)] == ["ok"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("h.jsonl", "", "no operation in it"),
        ("h.edn", "; nothing\n", "no operation in it"),
        ("h.jsonl", '{"process":0,"type":"invoke","f":"read"}\n\n{"process" 1}\n{}\n', r"h\.jsonl:3:12: not JSON"),
        ("h.jsonl", '{"process":0,"type":"began","f":"read"}\n', r"h\.jsonl:1: .*'began' - at `\$\.type`"),
        ("h.jsonl", '{"type":"invoke","f":"read"}\n', r"h\.jsonl:1: .*missing required field `process`"),
        ("h.edn", "{:process 0 :type :invoke :f :read}\n{:process 1.5 :type :ok :f :read}", r"h\.edn:2: not an event"),
        ("h.edn", "{:process 0\n :type :invoke :f :read :value ]}\n", r"h\.edn:2:32: '\]' closes nothing"),
        ("h.edn", "{:process 0 :type}\n", r"h\.edn:1:1: a map with a key that has no value"),
        ("h.edn", "{:process 12monkeys}\n", r"h\.edn:1:11: '12monkeys' is neither a number nor a name"),
        ("h.txt", "once upon a time\n", r"h\.txt:1: not an event"),
        ("h.edn", "[" * 100_000, "ends in the middle"),
    ],
)
def test_what_is_no_history_is_refused_with_its_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(HistoryError, match=says):
        read_history(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"process":0}\xff\xfe')
    with pytest.raises(HistoryError, match="byte 13 is not UTF-8"):
        read_history(path)


@given(st.data())
def test_a_torn_tail_is_an_error_or_what_came_before_it(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("torn")
    made = [Event(0, "invoke", "write", ["k", 'a "b" {c'], at, at) for at in range(3)]
    write_history(folder, made)
    path = folder / data.draw(st.sampled_from(["history.jsonl", "history.edn"]))
    whole = path.read_bytes()
    second, third = (at + 1 for at, byte in enumerate(whole[:-1]) if byte == ord("\n"))
    cut = data.draw(st.integers(second + 1, len(whole) - 2))
    path.write_bytes(whole[:cut])
    if cut in (third, third - 1):
        assert len(read_history(path).events) == 2
        return
    with pytest.raises(TornHistoryError, match=f":{2 if cut < third else 3}: .*--ignore-torn-tail"):
        read_history(path)
    assert read_history(path, ignore_torn_tail=True).events == made[: 1 if cut < third else 2]


def history(*events: Event) -> History:
    return History("made up", list(events), list(range(1, len(events) + 1)))


def test_operations_are_paired_and_one_without_an_end_is_unknown() -> None:
    done = operations(
        history(
            Event(0, "invoke", "read", ["k", None], 1, 0),
            Event("nemesis", "info", "start-partition", None, 2, 1),
            Event(1, "invoke", "write", ["k", 5], 3, 2),
            Event(0, "ok", "read", ["k", 4], 4, 3),
            Event(2, "invoke", "cas", ["k", [4, 6]], 5, 4),
            Event(2, "fail", "cas", ["k", [4, 6]], 6, 5, error="has another value"),
        )
    )
    assert [(one.process, one.type, one.value, one.result) for one in done] == [
        (0, "ok", ["k", None], ["k", 4]),
        (1, "info", ["k", 5], None),
        (2, "fail", ["k", [4, 6]], ["k", [4, 6]]),
    ]
    assert (done[0].invoke, done[0].complete, done[0].called, done[0].returned) == (1, 4, 0, 3)
    assert (done[1].complete, done[1].returned) == (None, None)
    assert done[2].error == "has another value"


def test_every_reason_why_processes_cannot_have_done_this_is_listed() -> None:
    with pytest.raises(HistoryError) as caught:
        operations(
            history(
                Event(0, "invoke", "write", ["k", 1], 10, 0),
                Event(0, "invoke", "write", ["k", 2], 11, 1),
                Event(1, "ok", "read", ["k", 1], 9, 2),
                Event(0, "ok", "write", ["k", 3], 12, 3),
                Event(2, "invoke", "read", ["k", None], 13, 4),
                Event(2, "ok", "read", ["j", 1], 14, 4),
                Event(3, "invoke", "read", ["k", None], 15, 6),
                Event(3, "info", "write", ["k", None], 16, 7),
                Event(3, "invoke", "read", ["k", None], 17, 8),
            )
        )
    listed = [line.strip() for line in str(caught.value).splitlines()]
    assert listed == [
        "made up: not a history of processes:",
        "line 2: process 0 has not finished what it invoked on line 1",
        "line 3: time 9 after time 11; time does not go back",
        "line 3: process 1 completes what it never invoked",
        "line 4: value is ['k', 3], not ['k', 2] as process 0 invoked on line 2",
        "line 6: index 4 after index 4; indices rise",
        "line 6: key is 'j', not 'k' as process 2 invoked on line 5",
        "line 8: f is 'write', not 'read' as process 3 invoked on line 7",
        "line 9: process 3 goes on after its info on line 8; its thread goes on as another process",
    ]


def test_only_the_first_problems_are_listed_and_the_rest_counted() -> None:
    orphans = [Event(process, "ok", "read", None, process, process) for process in range(25)]
    with pytest.raises(HistoryError, match="and 15 more"):
        operations(history(*orphans))


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["invoke", "ok"])), max_size=6).map(sorted), max_size=4
    )
)
def test_merging_keeps_every_clients_order_and_time(parts: list[list[tuple[int, str]]]) -> None:
    clients = [
        [Event(number, "invoke" if at % 2 == 0 else "ok", "f", at, time) for at, (time, _) in enumerate(part)]
        for number, part in enumerate(parts)
    ]
    merged = merge(clients)
    assert [event.index for event in merged] == list(range(sum(map(len, parts))))
    assert [event.time for event in merged] == sorted(time for part in parts for time, _ in part)
    for number, client in enumerate(clients):
        assert [event.value for event in merged if event.process == number] == [event.value for event in client]


def test_events_of_different_clients_at_one_moment_are_concurrent() -> None:
    one = [Event(0, "invoke", "write", 1, 1), Event(0, "ok", "write", 1, 5)]
    other = [Event(1, "invoke", "write", 2, 5), Event(1, "ok", "write", 2, 9)]
    for parts in ([one, other], [other, one]):
        assert [(event.process, event.type) for event in merge(parts)] == [
            (0, "invoke"),
            (1, "invoke"),
            (0, "ok"),
            (1, "ok"),
        ]


def write_lines(path: Path, *lines: dict[str, Any], tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)


def test_a_runs_history_is_made_of_what_its_clients_and_faults_left_up_to_where_a_kill_cut_them_off(
    tmp_path: Path,
) -> None:
    write_lines(tmp_path / "manifest.json", {"epoch": 1000})
    client = tmp_path / "clients" / "c1" / "trace" / "history.ndjson"
    begun: dict[str, Any] = {"time": 1010, "process": 0, "type": "invoke", "f": "write", "value": ["k", 1]}
    write_lines(client, begun, begun | {"time": 1050, "type": "ok"}, tail='{"time":1060,"pro')
    write_lines(tmp_path / "clients" / "c2" / "trace" / "history.ndjson")
    asked = {"fault": 0, "kind": "partition", "step": "asked", "t": 20, "asked": {"groups": [["leader"], ["others"]]}}
    resolved = {"groups": [["n1"], ["n2", "n3"]]}
    applied = asked | {"step": "applied", "t": 25, "resolved": resolved, "asked": None}
    healed = {"fault": 0, "kind": "partition", "step": "healed", "t": 70, "effective": True}
    write_lines(tmp_path / "faults.jsonl", asked, applied, healed)
    merge_histories(tmp_path)
    found = read_history(tmp_path / "history.jsonl").events
    assert found == read_history(tmp_path / "history.edn").events
    assert [(event.time, event.process, event.type, event.f) for event in found] == [
        (10, 0, "invoke", "write"),
        (20, "nemesis", "info", "start-partition"),
        (25, "nemesis", "info", "start-partition"),
        (50, 0, "ok", "write"),
        (70, "nemesis", "info", "stop-partition"),
        (70, "nemesis", "info", "stop-partition"),
    ]
    assert found[2].value == resolved


def test_faults_of_clocks_have_jepsens_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "manifest.json", {"epoch": 1000})
    write_lines(
        tmp_path / "faults.jsonl",
        {"fault": 0, "kind": "skew", "step": "asked", "t": 1, "asked": {"offset": 5, "period": 0}},
        {"fault": 1, "kind": "skew", "step": "asked", "t": 2, "asked": {"offset": 5, "period": 1}},
        {"fault": 1, "kind": "skew", "step": "applied", "t": 3, "resolved": {"nodes": ["n1"]}},
        {"fault": 0, "kind": "skew", "step": "healed", "t": 4, "effective": True},
        {"fault": 1, "kind": "skew", "step": "healed", "t": 5, "effective": True},
    )
    merge_histories(tmp_path)
    names = [event.f for event in read_history(tmp_path / "history.jsonl").events]
    assert names == ["bump-clock", "strobe-clock", "strobe-clock", *["reset-clock"] * 4]


def test_a_run_that_ended_before_its_workload_has_no_history(tmp_path: Path) -> None:
    write_lines(tmp_path / "manifest.json", {"seed": 1})
    with pytest.raises(HistoryError, match="ended before its workload began"):
        merge_histories(tmp_path)
