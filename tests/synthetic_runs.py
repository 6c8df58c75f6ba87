"""Run folders made up by code, as ``docs/run-folder.md`` describes them: seeded, and shaped like real ones.

They stand in for the kernel when the report is tested. Nothing here is measured; no figure from here belongs in a
document.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from experiments.emulation.metrics import Metrics
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan

MS = 1_000_000
SECOND = 1_000 * MS
EPOCH = 8_123 * SECOND

NODES = ("n1", "n2", "n3", "n4", "n5")
HOSTS = ("h1", "h5", "h9", "h2", "h6", "h10", "h3", "h7", "h11", "h4")
PLACEMENT = dict(zip((*NODES, "c1", "c2", "c3", "c4", "c5"), HOSTS, strict=True))
OTHERS = tuple(name for name in NODES if name != "n3")

KINDS = ("held", "unordered", "two-leaders", "impaired", "killed", "link-down", "unbelievable", "died")


def write_run(folder: Path, kind: str, *, seed: int = 7, duration: int = 20, rate: float = 200.0) -> Path:
    """Write a run of ``kind`` (one of `KINDS`) into ``folder``; ``duration`` in seconds, ``rate`` in operations/s."""
    folder.mkdir(parents=True)
    rng = random.Random(f"{kind}-{seed}")
    length = duration * SECOND
    strike, heal = round(length * 0.3), round(length * 0.6)
    faults, steps, disturbed = _FAULTS[kind](strike, heal)
    elected = strike + 310 * MS if disturbed == "leader" else None

    operations = _operations(rng, length, rate, kind, strike, heal, elected)
    history = _history(operations, strike, heal, kind)
    traces = _traces(operations, length, kind, strike, heal, elected)
    if kind == "died":
        cut = heal - 1200 * MS
        history = [event for event in history if event["time"] < cut]
        steps = [step for step in steps if step["t"] < cut]
        traces = {
            name: [[line for line in lines if line["t"] - EPOCH < cut] for lines in files]
            for name, files in traces.items()
        }

    (folder / "manifest.json").write_text(json.dumps(_manifest(kind, seed, length, rate, faults), indent=1))
    if kind == "died":
        _write_client_traces(folder, history)
    else:
        _write_lines(folder / "history.jsonl", history)
    _write_lines(folder / "faults.jsonl", steps)
    for name, files in traces.items():
        (folder / "nodes" / name / "trace").mkdir(parents=True)
        for incarnation, lines in enumerate(files):
            _write_lines(folder / "nodes" / name / "trace" / f"{incarnation}.ndjson", lines)
    _write_metrics(rng, folder, kind, length, strike, heal)
    if kind != "died":
        results = _results(kind, operations, strike, heal, elected)
        (folder / "results.json").write_text(json.dumps(results, indent=1))
    return folder


def _write_metrics(rng: random.Random, folder: Path, kind: str, length: int, strike: int, heal: int) -> None:
    """Counters of every direction once a second, and what was idle; of the run that died, a stream without an end."""
    metrics = Metrics(folder)
    counted: dict[str, float] = {}
    for t in range(SECOND, length, SECOND):
        samples = [(t, "machine", "cpu_idle_share", 0.02 if kind == "unbelievable" else rng.uniform(0.3, 0.5))]
        for link in LeafSpine(2, 3, 4).links:
            for way in link.directions:
                dead = kind == "link-down" and strike < t <= heal and link.name.startswith("leaf1-")
                counted[way] = counted.get(way, 0.0) + (0 if dead else rng.randint(180, 260))
                samples.append((t, way, "packets", counted[way]))
        metrics.write(samples)
    if kind != "died":
        metrics.close()


def _write_client_traces(folder: Path, history: list[dict[str, Any]]) -> None:
    """What clients leave before anybody has merged it."""
    for number in range(5):
        lines: list[dict[str, Any]] = []
        for event in history:
            if event["process"] != "nemesis" and event["process"] % 5 == number:
                line = {name: value for name, value in event.items() if name not in ("index", "time")}
                lines.append({"time": EPOCH + event["time"]} | line)
        trace = folder / "clients" / f"c{number + 1}" / "trace"
        trace.mkdir(parents=True)
        _write_lines(trace / "history.ndjson", lines)


def _write_lines(path: Path, lines: Sequence[Any]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


# ---------------------------------------------------------------------------------------------------------------------
# Faults


def _matrix(groups: Sequence[Sequence[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names in no group, the clients among them, reach everyone."""
    side = {name: number for number, group in enumerate(groups) for name in group}

    def reach(to: str, by: str) -> bool:
        return to not in side or by not in side or side[to] == side[by]

    expected = {to: {by: reach(to, by) for by in PLACEMENT if by != to} for to in PLACEMENT}
    measured = {to: {by: [3, 3 if open_ else 0] for by, open_ in row.items()} for to, row in expected.items()}
    return expected, measured


def _connected() -> dict[str, Any]:
    expected, measured = _matrix([NODES])
    return {"effective": True, "expected": expected, "measured": measured, "mismatches": []}


def _partition(strike: int, heal: int, effective: bool = True) -> Any:
    asked = {"groups": [["leader"], ["others"]]}
    groups = [["n3"], list(OTHERS)]
    expected, measured = _matrix(groups)
    mismatches = []
    if not effective:
        for receiver, sender in (("n3", "n1"), ("n1", "n3")):
            measured[receiver][sender] = [3, 3]
            wrong = {"receiver": receiver, "sender": sender, "expected": False, "sent": 3, "arrived": 3}
            mismatches.append(wrong)
    grudge = {"n3": list(OTHERS)} | {name: ["n3"] for name in OTHERS}
    at = {"at": strike, "for": heal - strike}
    steps = [
        {"step": "asked", "t": strike, "asked": asked | at},
        {"step": "applied", "t": strike + 4 * MS, "resolved": {"groups": groups, "grudge": grudge, "leader": "n3"}},
        {"step": "proved", "t": strike + 205 * MS, "effective": effective, "expected": expected}
        | {"measured": measured, "mismatches": mismatches},
        {"step": "healed", "lifted": heal, "t": heal + 3 * MS} | _connected(),
    ]
    return [{"kind": "partition"} | asked | at], _numbered(0, "partition", steps), "leader" if effective else None


def _impaired(strike: int, heal: int) -> Any:
    asked = {"links": ["leaf1>spine1"], "delay": 20 * MS, "jitter": 5 * MS, "loss": 0.1}
    at = {"at": strike, "for": heal - strike}
    impairment = {"delay": 20 * MS, "jitter": 5 * MS, "distribution": "uniform", "loss": 0.1, "rate": 0, "queue": 1000}
    obtained = _obtained(180, 163, 20_112_000, 2_910_000, 25_230_000)
    obtained["counters"] = {"packets": 4123, "dropped": {"loss": 401, "queue": 0}, "delay_mean": 20_050_000}
    obtained["counters"] |= {"delay_p50": 20_020_000, "delay_p99": 24_980_000}
    steps = [
        {"step": "asked", "t": strike, "asked": asked | at},
        {
            "step": "applied",
            "t": strike + 2 * MS,
            "resolved": {"directions": {"leaf1>spine1": impairment}, "leader": "n3"},
        },
        {"step": "proved", "t": strike + 900 * MS, "effective": True, "obtained": {"leaf1>spine1": obtained}},
        {"step": "healed", "lifted": heal, "t": heal + 2 * MS, "effective": True},
    ]
    return [{"kind": "impair"} | asked | at], _numbered(0, "impair", steps), "paths"


def _obtained(sent: int, arrived: int, mean: int, deviation: int, p99: int) -> dict[str, Any]:
    delays = {"delay_min": mean - 2 * deviation, "delay_mean": mean, "delay_p50": mean, "delay_p99": p99}
    counts = {"sent": sent, "arrived": arrived, "loss": 1 - arrived / sent, "duplicated": 0, "reordered": 3}
    return {"backend": "wire", "jitter": deviation, "delay_max": p99, "corrupted": 0} | counts | delays


def _killed(strike: int, heal: int) -> Any:
    at = {"at": strike, "for": heal - strike}
    steps = [
        {"step": "asked", "t": strike, "asked": {"nodes": ["leader"]} | at},
        {"step": "applied", "t": strike + 1 * MS, "resolved": {"nodes": ["n3"], "leader": "n3"}},
        {"step": "proved", "t": strike + 12 * MS, "effective": True, "exited": {"n3": -9}},
        {
            "step": "healed",
            "lifted": heal,
            "t": heal + 1 * MS,
            "effective": True,
            "restarted": {"n3": {"pid": 2114, "incarnation": 1}},
        },
    ]
    return [{"kind": "kill", "nodes": ["leader"]} | at], _numbered(0, "kill", steps), "leader"


def _link_down(strike: int, heal: int) -> Any:
    links = ["leaf1-spine1", "leaf1-spine2"]
    at = {"at": strike, "for": heal - strike}
    expected, measured = _matrix([["n1", "n4", "c2"], [name for name in PLACEMENT if name not in ("n1", "n4", "c2")]])
    steps = [
        {"step": "asked", "t": strike, "asked": {"links": ["leaf1-spine*"]} | at},
        {"step": "applied", "t": strike + 3 * MS, "resolved": {"links": links, "leader": "n3"}},
        {"step": "proved", "t": strike + 240 * MS, "effective": True, "carrier": dict.fromkeys(links, False)}
        | {"expected": expected, "measured": measured, "mismatches": []},
        {"step": "healed", "lifted": heal, "t": heal + 4 * MS, "carrier": dict.fromkeys(links, True)} | _connected(),
    ]
    # A second fault, so that there is something to choose from.
    later, kill_steps, _ = _killed(round(heal * 1.2), round(heal * 1.4))
    kill_steps = [step | {"fault": 1} for step in kill_steps]
    return (
        [{"kind": "link-down", "links": ["leaf1-spine*"]} | at, *later],
        [
            *_numbered(0, "link-down", steps),
            *kill_steps,
        ],
        "some",
    )


def _numbered(number: int, kind: str, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"fault": number, "kind": kind} | step for step in steps]


_FAULTS: dict[str, Callable[[int, int], Any]] = {
    "held": _partition,
    "unordered": _partition,
    "two-leaders": _partition,
    "impaired": _impaired,
    "killed": _killed,
    "link-down": _link_down,
    "unbelievable": lambda strike, heal: _partition(strike, heal, effective=False),
    "died": _partition,
}

# ---------------------------------------------------------------------------------------------------------------------
# Operations


def _operations(
    rng: random.Random, length: int, rate: float, kind: str, strike: int, heal: int, elected: int | None
) -> list[dict[str, Any]]:
    """Open-loop clients: every arrival takes the first process that is idle. A register is read and written where
    the operation takes effect, somewhere between its two ends."""
    free = [0] * 20
    now = 0
    made: list[dict[str, Any]] = []
    while (now := now + round(rng.expovariate(rate) * SECOND)) < length - 60 * MS:
        thread = min(range(len(free)), key=lambda slot: (max(free[slot], now), slot))
        invoke = max(free[thread], now)
        f = rng.choices(("read", "write", "cas"), (0.5, 0.4, 0.1))[0]
        typical = 1.4 if f == "read" else 2.6
        took = round(rng.lognormvariate(0, 0.35) * typical * MS)
        if rng.random() < 0.004:
            took += round(rng.uniform(8, 25) * MS)
        if kind == "impaired" and strike <= invoke < heal and rng.random() < 0.45:
            took += round(rng.uniform(15, 25) * MS) + (round(rng.uniform(200, 240) * MS) if rng.random() < 0.1 else 0)
        if kind == "unbelievable" and rng.random() < 0.3:
            took += round(rng.expovariate(1 / 40) * MS)
        outcome = "ok"
        if elected is not None and strike <= invoke + took and invoke < elected:
            if rng.random() < (0.5 if invoke < strike else 0.12):
                outcome, took = "info", SECOND
            else:
                took = max(took, elected - invoke + round(rng.expovariate(1 / 30) * MS))
        if f == "cas" and outcome == "ok" and rng.random() < 0.7:
            outcome = "fail"
        complete = invoke + took
        free[thread] = complete + 1
        key = f"k{rng.randrange(5) + 1}"
        made.append({"thread": thread, "f": f, "key": key, "invoke": invoke, "complete": complete, "type": outcome})

    values: dict[str, int] = {}
    for number, operation in enumerate(sorted(made, key=lambda one: one["invoke"] + one["complete"])):
        key = operation["key"]
        if operation["f"] == "read":
            operation["value"] = values.get(key)
        elif operation["f"] == "write":
            operation["value"] = values[key] = number
        else:
            hit = operation["type"] == "ok" and key in values
            operation["value"] = [values[key] if hit else number + 100_000, number]
            operation["type"] = "ok" if hit else "info" if operation["type"] == "info" else "fail"
            if hit:
                values[key] = number
    threads: dict[int, int] = {}
    made.sort(key=lambda one: one["invoke"])
    for operation in made:
        thread = operation.pop("thread")
        operation["process"] = threads.setdefault(thread, thread)
        if operation["type"] == "info":
            threads[thread] += len(free)
    if kind == "unordered":
        _make_stale(made, strike)
    return made


def _make_stale(operations: list[dict[str, Any]], strike: int) -> None:
    """One read, well after a write of its key, answers with what was there before: what a deposed leader would say."""
    on_key = [
        one for one in operations if one["key"] == "k3" and one["type"] == "ok" and one["invoke"] > strike + SECOND
    ]
    writes = [one for one in on_key if one["f"] == "write"]
    old, new = writes[0], writes[1]
    read = next(one for one in on_key if one["f"] == "read" and one["invoke"] > new["complete"] + 5 * MS)
    read["value"] = old["value"]


def _history(operations: list[dict[str, Any]], strike: int, heal: int, kind: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for one in operations:
        asked = [one["key"], None if one["f"] == "read" else one["value"]]
        events.append(
            {"time": one["invoke"], "process": one["process"], "type": "invoke", "f": one["f"], "value": asked}
        )
        done = {"time": one["complete"], "process": one["process"], "type": one["type"], "f": one["f"]}
        done["value"] = [one["key"], one["value"]] if one["type"] == "ok" else asked
        if one["type"] == "info":
            done["error"] = "timeout"
        elif one["type"] == "fail":
            done["error"] = f"{one['key']} has another value"
        events.append(done)
    fault = {"impaired": "packet", "killed": "kill"}.get(kind, "partition")
    for time, f in ((strike, f"start-{fault}"), (heal, f"stop-{fault}")):
        events.append({"time": time, "process": "nemesis", "type": "info", "f": f, "value": None})
        events.append({"time": time + 3 * MS, "process": "nemesis", "type": "info", "f": f, "value": "done"})
    events.sort(key=lambda event: event["time"])
    return [{"index": index} | event for index, event in enumerate(events)]


# ---------------------------------------------------------------------------------------------------------------------
# Nodes


def _traces(
    operations: list[dict[str, Any]], length: int, kind: str, strike: int, heal: int, elected: int | None
) -> dict[str, list[list[dict[str, Any]]]]:
    lines: dict[str, list[list[dict[str, Any]]]] = {name: [[]] for name in NODES}

    def say(name: str, at: int, ev: str, **more: Any) -> None:
        lines[name][-1].append({"t": EPOCH + at, "ev": ev} | more)

    def role(node: str, t: int, name: str, term: int) -> None:
        say(node, t, "role", role=name, term=term, last=1, last_term=1)

    start = -900 * MS
    for node in NODES:
        say(node, start, "trace", schema=1, node=node, incarnation=0, protocol="raft")
        say(node, start, "started", term=0, vote=None, last=0, last_term=0)
        role(node, start, "follower", 0)
    role("n3", start + 180 * MS, "pre_candidate", 0)
    role("n3", start + 184 * MS, "candidate", 1)
    for node in OTHERS:
        say(node, start + 186 * MS, "vote", term=1, candidate="n3")
        role(node, start + 186 * MS, "follower", 1)
    role("n3", start + 190 * MS, "leader", 1)

    second_term = {"two-leaders": 1}.get(kind, 2)
    if elected is not None:
        role("n1", elected - 70 * MS, "pre_candidate", 1)
        role("n5", elected - 55 * MS, "pre_candidate", 1)
        role("n5", elected - 30 * MS, "follower", 1)
        role("n1", elected - 40 * MS, "candidate", second_term)
        for node in ("n2", "n4", "n5"):
            role(node, elected - 10 * MS, "follower", second_term)
        role("n1", elected, "leader", second_term)
        if kind == "killed":
            lines["n3"].append([])
            say("n3", heal + 180 * MS, "trace", schema=1, node="n3", incarnation=1, protocol="raft")
            say("n3", heal + 210 * MS, "started", term=1, vote="n3", last=900, last_term=1)
            role("n3", heal + 210 * MS, "follower", 1)
        else:
            role("n3", strike + 290 * MS, "follower", 1)
            for t in range(strike + 520 * MS, heal, 430 * MS):
                role("n3", t, "pre_candidate", 1)
        role("n3", heal + 240 * MS, "follower", second_term)

    # Two entries a write, roughly, since everything is proposed: the commit index is what the lanes are drawn from.
    writes = sorted(one["complete"] for one in operations if one["type"] == "ok" and one["f"] != "read")
    away = (strike, heal + 260 * MS) if elected is not None else (length, length)
    for index, t in enumerate(writes, 1):
        for node in NODES:
            if node == "n3" and away[0] <= t <= away[1]:
                continue
            if kind == "impaired" and node in ("n1", "n4") and strike <= t <= heal and index % 7:
                continue
            at = t + (crc32(node.encode()) % 5) * 100_000
            lines[node][-1 if at > strike else 0] += [
                {"t": EPOCH + at, "ev": "commit", "index": index, "term": second_term if t > strike else 1},
                {
                    "t": EPOCH + at,
                    "ev": "apply",
                    "first": index,
                    "terms": [1],
                    "digests": [f"{crc32(b'%d' % index):08x}"],
                },
            ]
    for files in lines.values():
        for file in files:
            file.sort(key=lambda line: line["t"])
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# The manifest and the verdict

_SCENARIOS = {
    "held": ("raft-leader-isolated", "What happens to five Raft nodes when their leader is cut off from everyone?"),
    "unordered": ("raft-leader-isolated", "A mutant: a deposed leader goes on answering reads from its own state."),
    "two-leaders": ("raft-leader-isolated", "A mutant: a restarted node forgets whom it voted for."),
    "impaired": ("raft-grey-link", "One direction of one uplink loses every tenth packet and delays the rest."),
    "killed": ("raft-crash-restart", "The leader is killed with SIGKILL and comes back from its log."),
    "link-down": ("raft-leaf-cut", "A leaf loses all its spines, then the leader dies."),
    "unbelievable": ("raft-leader-isolated", "What happens to five Raft nodes when their leader is cut off?"),
    "died": ("raft-leader-isolated", "What happens to five Raft nodes when their leader is cut off from everyone?"),
}


def _manifest(kind: str, seed: int, length: int, rate: float, faults: list[dict[str, Any]]) -> dict[str, Any]:
    name, description = _SCENARIOS[kind]
    toml = f'# {description}\nname = "{name}"\nseed = {seed}\nduration = "{length // SECOND}s"\n\n'
    toml += '[topology]\nkind = "leaf-spine"\nspines = 2\nleaves = 3\nhosts_per_leaf = 4\n\n[system]\nkind = "raft"\n'
    toml += f'nodes = 5\n\n[workload]\nkind = "register"\nclients = 5\nrate = {rate:g}\n'
    return {
        "schema": 1,
        "splitbrain": "0.1.0",
        "command": f"splitbrain run {name} --seed {seed}",
        "started": "2026-01-01T09:30:00Z",
        "world": "emulated",
        "seed": seed,
        "epoch": EPOCH,
        "time_scale": 1.0,
        "scenario": {
            "name": name,
            "description": description,
            "seed": seed,
            "duration": length,
            "topology": {"kind": "leaf-spine", "spines": 2, "leaves": 3, "hosts_per_leaf": 4},
            "system": {"kind": "raft", "nodes": 5, "election_timeout": [150 * MS, 300 * MS]},
            "workload": {"kind": "register", "clients": 5, "rate": rate, "keys": 5, "timeout": SECOND},
            "faults": faults,
            "expect": {"linearizable": True, "recovery": 2 * SECOND},
        },
        "scenario_toml": toml,
        "plan": msgspec.to_builtins(_plan(kind)),
        "placement": PLACEMENT,
        "machine": {"cores": 2, "memory_bytes": 24 << 30, "cpu": "a made-up CPU", "kernel": "6.18.0", "virtual": "kvm"},
        "backends": {"datapath": "netdev", "impairment": "wire", "controller": "ryu"},
        "versions": {"python": "3.11.2", "openvswitch": "3.1.0", "ryu": "4.34", "mininet": "2.3.0.dev6"},
    }


def _plan(kind: str) -> FabricPlan:
    impairments = {"leaf3>spine2": Impairment(delay=10 * MS)} if kind == "impaired" else {}
    return msgspec.structs.replace(LeafSpine(2, 3, 4), impairments=impairments)


def _results(
    kind: str, operations: list[dict[str, Any]], strike: int, heal: int, elected: int | None
) -> dict[str, Any]:
    count = {name: sum(one["type"] == name for one in operations) for name in ("ok", "fail", "info")}
    held = {
        "linearizable": f"{len(operations):,} operations on 5 keys, checked in 0.31 s",
        "acknowledged_writes": "none of 1,604 lost",
        "ElectionSafety": "no term had two leaders; 2 terms had one",
        "LeaderAppendOnly": "no leader removed or replaced an entry in 2 terms",
        "LogMatching": "5 logs agree up to every entry they have in common",
        "LeaderCompleteness": "every leader held what was committed before its term; 1,604 entries in all",
        "StateMachineSafety": "5 logs were applied alike",
        "recovery": "steady 0.14 s after the heal; 2.00 s allowed",
    }
    checks: list[dict[str, Any]] = [
        {"name": name, "valid": True, "summary": summary, "details": {}} for name, summary in held.items()
    ]
    refused = sum(one["type"] == "fail" for one in operations)
    results: dict[str, Any] = {
        "schema": 1,
        "valid": True,
        "exit_status": 0,
        "summary": "Every promise held.",
        "checks": checks,
        "believable": {"valid": True, "reasons": []},
        "availability": {
            "operations": len(operations),
            "ok": count["ok"],
            "refused": refused,
            "failed": 0,
            "unknown": count["info"],
            "share": (count["ok"] + refused) / len(operations),
            "longest_outage": 334 * MS if elected else 24 * MS,
            "outage_at": strike + 6 * MS,
            "interruption": {"0": 352 * MS if elected else 3 * MS},
            "recovery": {"0": 140 * MS},
            "new_leader": {"0": elected - strike - (1 if kind == "killed" else 4) * MS} if elected else {},
        },
        "leaders": [{"node": "n3", "term": 1, "from": -710 * MS, "to": strike + 290 * MS if elected else None}],
        "fidelity": {
            "loop_lag_p99": 1_840_000,
            "loop_lag_max": 11_300_000,
            "cpu_headroom": 0.41,
            "cpu_headroom_min": 0.22,
            "calibration": {}
            if kind != "impaired"
            else {
                "leaf3>spine2": _obtained(400, 400, 10_045_000, 41_000, 10_160_000) | {"disagreements": []},
            },
        },
    }
    if elected is not None:
        results["leaders"].append({"node": "n1", "term": 2, "from": elected, "to": None})
    if kind == "unordered":
        _fail(
            results,
            "linearizable",
            "no order of the operations on k3 explains what was read",
            _stale_details(operations),
        )
    if kind == "two-leaders":
        events = [
            {"t": EPOCH - 710 * MS, "ev": "role", "role": "leader", "term": 1, "last": 0, "last_term": 0}
            | {"node": "n3", "incarnation": 0, "line": 6},
            {"t": EPOCH + (elected or 0), "ev": "role", "role": "leader", "term": 1, "last": 871, "last_term": 1}
            | {"node": "n1", "incarnation": 0, "line": 1502},
        ]
        details = {"property": "ElectionSafety", "events": events}
        _fail(results, "ElectionSafety", "n3 and n1 both led term 1", details)
    if kind == "unbelievable":
        reasons = [
            "fault 1 (partition) had no effect as asked: n3 hears n1, n1 hears n3",
            "the nodes' event loops ran 0.09 s late (99th percentile), too much beside an election timeout of 0.15 s: "
            "give the machine less to do, or the scenario a time_scale",
        ]
        results |= {"valid": "unknown", "exit_status": 2, "believable": {"valid": False, "reasons": reasons}}
        results["fidelity"] |= {"loop_lag_p99": 87 * MS, "cpu_headroom": 0.02}
        checks[0] |= {"valid": "unknown", "summary": "no answer for k2 after 10 s; 4,012 operations on 5 keys in all"}
    return results


def _fail(results: dict[str, Any], name: str, summary: str, details: dict[str, Any]) -> None:
    results |= {"valid": False, "exit_status": 1, "summary": f"{name}: {summary}"}
    check = next(check for check in results["checks"] if check["name"] == name)
    check |= {"valid": False, "summary": summary, "details": details}


def _stale_details(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """The operations on k3 from the write that the stale read returns until that read, and an order of all but it."""
    fields = ("process", "f", "value", "invoke", "complete", "type")
    on_key = [one for one in operations if one["key"] == "k3" and one["type"] != "fail"]
    written = {one["value"]: one for one in on_key if one["f"] == "write"}
    latest: Any = None
    for read in sorted((one for one in on_key if one["f"] == "read" and one["type"] == "ok"), key=_middle):
        before = [
            one for one in on_key if one["f"] != "read" and one["type"] == "ok" and one["complete"] < read["invoke"]
        ]
        latest = max(before, key=_middle, default=None)
        source = written.get(read["value"])
        if source is not None and latest is not None and _middle(source) < latest["invoke"] and source is not latest:
            break
    else:
        raise AssertionError("no read is stale")
    shown = [one for one in on_key if source["invoke"] <= one["invoke"] <= read["complete"]]
    order = sorted((number for number, one in enumerate(shown) if one is not read), key=lambda at: _middle(shown[at]))
    return {
        "key": "k3",
        "stuck": shown.index(read),
        "final_paths": [{"order": order, "state": latest["value"]}],
        "operations": [{field: one[field] for field in fields} for one in shown],
    }


def _middle(operation: dict[str, Any]) -> int:
    return int(operation["invoke"] + operation["complete"]) // 2
