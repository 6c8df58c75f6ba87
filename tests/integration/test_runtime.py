"""The runtime as it is run: operating-system processes, TCP, a disk, and what may happen to them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from crc32c import crc32c

from apps.journal import Identity, Journal
from apps.kv import Store
from apps.raft.messages import SnapshotRecord
from apps.raft.quorum import Configuration
from apps.runtime.framing import VERSION, Codec, FrameReader, Hello, Kind

ROOT = Path(__file__).parents[2]
PORT = 7000
MS = 1_000_000


class Node:
    """One process of the runtime, and its files."""

    def __init__(self, cluster: Cluster, name: str, listen: str | None, process: dict[str, Any]) -> None:
        self.cluster, self.name, self.listen, self.process = cluster, name, listen, process
        self.folder = cluster.folder / name
        self.folder.mkdir()
        self.incarnation = -1
        self.running: subprocess.Popen[bytes]

    def start(self, **changes: Any) -> Node:
        self.incarnation += 1
        config = {
            "node": self.name,
            "cluster": "test",
            "incarnation": self.incarnation,
            "listen": self.listen,
            "peers": self.cluster.addresses,
            "seed": 7,
            "data_dir": str(self.folder / "data"),
            "trace_dir": str(self.folder / "trace"),
            "process": self.process,
            **changes,
        }
        path = self.folder / f"{self.incarnation}.json"
        path.write_text(json.dumps(config))
        self.running = subprocess.Popen(
            [*self.cluster.prefix, sys.executable, "-m", "apps.runtime", str(path)],
            stdin=subprocess.PIPE,
            stdout=(self.folder / "out").open("ab"),
            stderr=(self.folder / "log").open("ab"),
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        )
        self.cluster.stack.callback(self.end)
        return self

    def end(self) -> None:
        if self.running.poll() is None:
            self.running.kill()
        self.running.wait()

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def status(self) -> int:
        return self.running.wait(timeout=30)

    def terminate(self) -> int:
        self.running.send_signal(signal.SIGTERM)
        return self.status()

    def tell(self, line: str) -> None:
        assert self.running.stdin is not None
        self.running.stdin.write(line.encode() + b"\n")
        self.running.stdin.flush()

    def trace(self, name: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "trace" / f"{self.incarnation if name is None else name}.ndjson"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def metrics(self) -> dict[str, Any]:
        """The last line."""
        return self.trace("metrics")[-1]


class Cluster:
    """Processes on loopback addresses that no other test uses."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.prefix: Sequence[str] = ()
        pick = random.SystemRandom()
        self.network = f"127.{pick.randrange(1, 255)}.{pick.randrange(256)}"
        self.addresses: dict[str, str] = {}

    def address(self, number: int) -> str:
        return f"{self.network}.{number}:{PORT}"

    def nodes(self, count: int, process: dict[str, Any]) -> list[Node]:
        self.addresses = {f"n{number}": self.address(number) for number in range(1, count + 1)}
        return [Node(self, name, address, process).start() for name, address in self.addresses.items()]

    def client(self, name: str, process: dict[str, Any]) -> Node:
        return Node(self, name, None, process).start()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack)


def eventually(what: Callable[[], Any], within: float = 20) -> Any:
    end = time.monotonic() + within
    while not (result := what()):
        assert time.monotonic() < end, f"not within {within} s"
        time.sleep(0.01)
    return result


CLIENT = Hello("splitbrain", VERSION, "test", "c", 0, "client")


class Peer:
    """The other end of a connection, by hand: of one to ``address``, or of one that was accepted."""

    CODEC = Codec(tuple[int, str], int, int)

    def __init__(self, address: str, hello: Hello | None = CLIENT, accepted: socket.socket | None = None):
        host, _, port = address.partition(":")
        self.socket = accepted or eventually(lambda: self._dial(host, int(port)))
        self.socket.settimeout(10)
        self.reader = FrameReader()
        self.numbers = itertools.count(1)
        if hello is not None:
            self.send(Kind.HELLO, hello)

    @staticmethod
    def _dial(host: str, port: int) -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port))
        return None

    def send(self, kind: Kind, items: Any) -> None:
        for frame in self.CODEC.encode(kind, items):
            self.socket.sendall(frame)

    def receive(self) -> list[tuple[Kind, Any]]:
        """The frames of one read; none at the end of the stream."""
        count = self.socket.recv_into(self.reader.space())
        return [(kind, self.CODEC.decode(kind, body)) for kind, body in self.reader.received(count)] if count else []

    def ask(self, *commands: int) -> list[int]:
        """Send requests in one frame and return their results."""
        numbers = [next(self.numbers) for _ in commands]
        self.send(Kind.REQUESTS, list(zip(numbers, commands, strict=True)))
        results: dict[int, int] = {}
        while len(results) < len(numbers):
            frames = self.receive()
            assert frames, "the node hung up"
            for kind, items in frames:
                if kind is Kind.RESPONSES:
                    results.update(items)
        return [results[number] for number in numbers]

    def is_hung_up(self) -> bool:
        try:
            while self.receive():
                pass
        except ConnectionError:
            pass
        return True


COUNTER = {"kind": "runtime_processes:counter"}
PINGER = {"kind": "runtime_processes:pinger"}


# ---------------------------------------------------------------------------------------------------------------------
# Disk and trace


def test_what_was_acknowledged_is_there_after_kill_9_and_so_is_the_evidence(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    total = 0
    for _ in range(4):
        peer = Peer(node.listen or "")
        for commands in ([1], [2, 3, 4], [5] * 50):
            results = peer.ask(*commands)
            assert results == list(itertools.accumulate(commands, initial=total))[1:]
            total = results[-1]
        node.kill()
        events = node.trace()
        assert events[0] == {
            "t": events[0]["t"], "ev": "trace", "schema": 1, "node": "n1", "incarnation": node.incarnation,
            "protocol": "counter",
        }  # fmt: skip
        assert events[-1]["value"] == total
        assert [event["t"] for event in events] == sorted(event["t"] for event in events)
        node.start()
    assert Peer(node.listen or "").ask(1) == [total + 1]


def test_writes_asked_for_while_the_disk_is_busy_share_a_sync(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    peers = [Peer(node.listen or "", Hello("splitbrain", VERSION, "test", f"c{n}", 0, "client")) for n in range(8)]
    for peer in peers:
        peer.send(Kind.REQUESTS, [(number, 1) for number in range(100)])
    for peer in peers:
        answered = 0
        while answered < 100:
            answered += sum(len(items) for kind, items in peer.receive() if kind is Kind.RESPONSES)
    assert node.terminate() == 0
    assert 1 <= sum(line["syncs"] for line in node.trace("metrics")) <= 100


def test_a_write_cut_short_by_a_crash_is_cut_off_and_said(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    Peer(node.listen or "").ask(7)
    node.kill()
    (segment,) = (node.folder / "data").glob("*.seg")
    size = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + b"torn")
    node.start()
    assert Peer(node.listen or "").ask(1) == [8]
    assert f"{segment}: cut off 4 bytes of an unfinished write at byte {size}" in node.log


def test_a_damaged_log_stops_the_start_with_one_clear_message(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    peer = Peer(node.listen or "")
    peer.ask(7)
    peer.ask(7)
    node.kill()
    (segment,) = (node.folder / "data").glob("*.seg")
    damaged = bytearray(segment.read_bytes())
    damaged[-60] ^= 1
    segment.write_bytes(damaged)
    assert node.start().status() == os.EX_DATAERR
    assert f"{segment}: damaged at byte " in node.log
    assert "Traceback" not in node.log


def test_a_snapshot_that_fails_its_checksum_stops_the_start_with_one_clear_message(cluster: Cluster) -> None:
    cluster.addresses = {"n1": cluster.address(1)}
    node = Node(cluster, "n1", cluster.address(1), {"kind": "raft"})
    journal: Journal[Any] = Journal(node.folder / "data", Identity("test", "n1"))
    data = Store().dump()
    journal.commit([SnapshotRecord(5, 1, 5, 1, crc32c(data) ^ 1, data, Configuration(0, ("n1",)))])
    journal.close()
    assert node.start().status() == os.EX_DATAERR
    assert "the checksum of the snapshot at 5 differs. The node does not start" in node.log
    assert "Traceback" not in node.log


def test_a_log_of_another_cluster_or_in_use_stops_the_start(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    Peer(node.listen or "").ask(7)
    rival = Node(cluster, "rival", cluster.address(9), COUNTER)
    assert rival.start(node="n1", data_dir=str(node.folder / "data")).status() == os.EX_TEMPFAIL
    node.kill()
    assert rival.start(node="n1", cluster="other", data_dir=str(node.folder / "data")).status() == os.EX_CONFIG
    assert "another process has this log open" in rival.log
    assert "this log is of node 'n1' of cluster 'test'" in rival.log
    assert "Traceback" not in rival.log


@pytest.mark.network
def test_a_full_disk_stops_the_node_without_acknowledging_and_it_recovers_when_there_is_room(
    cluster: Cluster, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f"mount -t tmpfs -o size=128k tmpfs {small} && exec sleep 1000"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script])
    cluster.stack.callback(holder.wait)
    cluster.stack.callback(holder.kill)
    eventually(lambda: f" {small} " in Path(f"/proc/{holder.pid}/mounts").read_text())
    cluster.prefix = ["nsenter", "-t", str(holder.pid), "-m", f"--wdns={ROOT}"]
    cluster.addresses = {"n1": cluster.address(1)}
    node = Node(cluster, "n1", cluster.address(1), COUNTER)
    node.start(data_dir=str(small / "data"))
    peer = Peer(node.listen or "")
    acknowledged = 0
    with contextlib.suppress(AssertionError, ConnectionError):
        for _ in range(100):
            (acknowledged,) = peer.ask(5000)
    assert 0 < acknowledged < 100 * 5000
    assert node.status() == os.EX_IOERR
    assert "the log could not be written: No space left on device" in node.log
    assert "Traceback" not in node.log
    subprocess.run(["nsenter", "-t", str(holder.pid), "-m", "mount", "-o", "remount,size=1m", small], check=True)
    node.start(data_dir=str(small / "data"))
    assert Peer(node.listen or "").ask(1) == [acknowledged + 1]


# ---------------------------------------------------------------------------------------------------------------------
# Starting and ending


def test_sigterm_ends_a_node_in_good_order(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    Peer(node.listen or "").ask(1)
    assert node.terminate() == 0
    assert node.log == ""


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"colour": "red"}, os.EX_CONFIG, "unknown key 'colour'"),
        ({"process": {"kind": "none"}}, os.EX_CONFIG, "unknown kind 'none'"),
        ({"listen": "192.0.2.1:7000"}, os.EX_OSERR, "192.0.2.1:7000 cannot be had: Cannot assign requested address"),
        ({"data_dir": "/proc/none"}, os.EX_IOERR, "/proc/none: the log cannot be opened"),
        ({"trace_dir": "/proc/none"}, os.EX_CANTCREAT, "/proc/none: cannot be made"),
    ],
)
def test_what_keeps_a_node_from_starting_is_said_in_a_line(
    cluster: Cluster, changes: dict[str, Any], status: int, words: str
) -> None:
    node = Node(cluster, "n1", cluster.address(1), COUNTER).start(**changes)
    assert node.status() == status
    assert words in node.log
    assert "Traceback" not in node.log


def test_an_incarnation_never_writes_over_the_evidence_of_an_earlier_start(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    Peer(node.listen or "").ask(1)
    node.terminate()
    before = node.trace()
    node.incarnation -= 1
    assert node.start().status() == os.EX_CANTCREAT
    assert node.trace() == before


def test_a_process_that_fails_ends_its_node_and_leaves_the_reason(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    Peer(node.listen or "").send(Kind.REQUESTS, [(1, 0)])
    assert node.status() == os.EX_SOFTWARE
    assert "ZeroDivisionError" in node.log


# ---------------------------------------------------------------------------------------------------------------------
# Network


def hello(**changes: Any) -> Hello:
    return msgspec.structs.replace(CLIENT, **changes)


def checksum(process: dict[str, Any]) -> int:
    return crc32(json.dumps(process, sort_keys=True, separators=(",", ":")).encode())


def test_what_is_not_said_in_the_protocol_is_hung_up_on_and_counted_while_others_are_served(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    good = Peer(node.listen or "", hello(node="good"))
    assert good.ask(1) == [1]

    def stranger(first: Hello | None, *raw: bytes) -> bool:
        peer = Peer(node.listen or "", first)
        with contextlib.suppress(ConnectionError):
            for data in raw:
                peer.socket.sendall(data)
        return peer.is_hung_up()

    requests = bytes(Peer.CODEC.encode(Kind.REQUESTS, [(1, 1)])[0])
    assert stranger(None, b"GET / HTTP/1.1\r\n\r\n")
    assert stranger(None, requests)
    assert stranger(hello(cluster="other"))
    assert stranger(hello(version=99))
    assert stranger(hello(node="n9", role="node"))
    assert stranger(hello(node=""))
    assert stranger(hello(), struct.pack(">IB", 1 << 30, Kind.REQUESTS))
    assert stranger(hello(), struct.pack(">IB", 1, 77))
    assert stranger(hello(), struct.pack(">IB", 5, Kind.REQUESTS) + b"junk")
    assert stranger(hello(), bytes(Peer.CODEC.encode(Kind.MESSAGES, [(1, "x")])[0]))
    assert stranger(hello(), bytes(Peer.CODEC.encode(Kind.REQUESTS, [(1, "not a number")])[0]))
    assert good.ask(1) == [2]
    assert node.terminate() == 0
    host = "127.0.0.1"
    assert node.metrics["rejected"] == {
        "oversized": {host: 1, "c": 1}, "unexpected": {host: 1, "c": 1}, "cluster": {"c": 1}, "version": {"c": 1},
        "node": {"n9": 1, host: 1}, "unknown": {"c": 1}, "malformed": {"c": 2},
    }  # fmt: skip
    assert "a member of cluster 'other', this is 'test'; hung up" in node.log


def test_a_later_incarnation_takes_over_its_name_and_an_earlier_one_is_turned_away(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, COUNTER)
    first = Peer(node.listen or "", hello(incarnation=1))
    assert first.ask(1) == [1]
    second = Peer(node.listen or "", hello(incarnation=2))
    assert second.ask(1) == [2]
    assert first.is_hung_up()
    assert Peer(node.listen or "", hello(incarnation=1)).is_hung_up()
    assert second.ask(1) == [3]


def test_a_node_that_is_configured_otherwise_is_turned_away_and_counted_while_the_others_go_on(
    cluster: Cluster,
) -> None:
    cluster.addresses = {f"n{number}": cluster.address(number) for number in (1, 2, 3)}
    nodes = [Node(cluster, name, address, PINGER) for name, address in cluster.addresses.items()]
    nodes[2].process = {**PINGER, "load": 1}
    for node in nodes:
        node.start()

    def heard(node: Node) -> set[str]:
        return {event["sender"] for event in node.trace() if event["ev"] == "heard"}

    eventually(lambda: heard(nodes[0]) == {"n2"} and heard(nodes[1]) == {"n1"})
    eventually(lambda: all(node.trace("metrics") and node.metrics["rejected"].get("settings") for node in nodes))
    assert set(nodes[0].metrics["rejected"]["settings"]) == {"n3"}
    assert set(nodes[2].metrics["rejected"]["settings"]) <= {"n1", "n2"}
    assert "node 'n3', whose process is configured otherwise than here; hung up" in nodes[0].log
    before = len(nodes[0].trace())
    eventually(lambda: len(nodes[0].trace()) > before + 5)
    assert heard(nodes[2]) == set()


def test_nodes_hear_each_other_whichever_starts_first_and_again_after_one_was_killed(cluster: Cluster) -> None:
    first, second = cluster.nodes(2, PINGER)

    def heard(node: Node) -> int:
        return sum(event["ev"] == "heard" for event in node.trace())

    eventually(lambda: heard(first) > 5 and heard(second) > 5)
    first.kill()
    first.start()
    before = heard(second)
    eventually(lambda: heard(first) > 5 and heard(second) > before + 5)
    numbers = [event["message"] for event in second.trace() if event["ev"] == "heard"]
    reset = next(i for i, (earlier, later) in enumerate(itertools.pairwise(numbers)) if later < earlier)
    assert numbers[: reset + 1] == sorted(numbers[: reset + 1])
    assert numbers[reset + 1 :] == sorted(numbers[reset + 1 :])


@pytest.mark.parametrize("name", ["n0", "n2"])
def test_two_nodes_speak_on_the_connection_that_the_first_by_name_dialled_and_on_the_other_without_it(
    cluster: Cluster, name: str
) -> None:
    cluster.addresses = {name: cluster.address(9), "n1": cluster.address(1)}
    host, _, port = cluster.addresses[name].partition(":")
    server = socket.create_server((host, int(port)))
    cluster.stack.callback(server.close)
    node = Node(cluster, "n1", cluster.address(1), PINGER).start()
    as_node = hello(node=name, role="node", settings=checksum(PINGER))
    dialled = Peer(cluster.address(1), as_node)
    accepted = Peer("", as_node, server.accept()[0])

    def speaks_on(peer: Peer) -> bool:
        peer.socket.settimeout(0.2)  # ten times as long as the node is ever silent
        with contextlib.suppress(TimeoutError):
            return bool([number for kind, items in peer.receive() if kind is Kind.MESSAGES for number in items])
        return False

    first, second = (dialled, accepted) if name < "n1" else (accepted, dialled)
    eventually(lambda: speaks_on(first) and not speaks_on(second))
    second.send(Kind.MESSAGES, [(1, "heard on the other")])
    if name > "n1":  # which then must have lost the first, if it speaks there
        eventually(lambda: speaks_on(second) and not speaks_on(first))
        first.send(Kind.MESSAGES, [(2, "heard again")])
    eventually(lambda: speaks_on(first) and not speaks_on(second))
    first.socket.close()
    eventually(lambda: speaks_on(second))
    assert node.terminate() == 0
    assert node.metrics["rejected"] == {}


def test_a_peer_that_does_not_read_costs_no_memory(cluster: Cluster) -> None:
    cluster.addresses = {"n1": cluster.address(1), "n2": cluster.address(2)}
    host, _, port = cluster.addresses["n2"].partition(":")
    deaf = socket.create_server((host, int(port)))
    cluster.stack.callback(deaf.close)
    # It would queue 50 MB a second. Its connection must last: silence is long.
    process = {**PINGER, "load": 1 << 20}
    node = Node(cluster, "n1", cluster.addresses["n1"], process).start(silence=10**12)
    connection, _ = deaf.accept()
    cluster.stack.callback(connection.close)
    for frame in Peer.CODEC.encode(Kind.HELLO, hello(node="n2", role="node", settings=checksum(process))):
        connection.sendall(frame)
    eventually(lambda: node.trace("metrics") and node.metrics["dropped"] > 100)
    assert node.metrics["rss_bytes"] < 100 << 20


@pytest.mark.network
def test_peers_hear_each_other_again_right_after_a_partition_however_long_it_was(cluster: Cluster) -> None:
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep 1000"])
    cluster.stack.callback(holder.wait)
    cluster.stack.callback(holder.kill)
    enter = ["nsenter", "-t", str(holder.pid), "-n"]
    up = [*enter, "ip", "-o", "link", "show", "dev", "lo", "up"]
    eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
    eventually(lambda: subprocess.run(up, capture_output=True, check=False).stdout)
    cluster.prefix = enter
    nodes = cluster.nodes(2, PINGER)

    def last_heard(node: Node) -> int:
        return max((event["t"] for event in node.trace() if event["ev"] == "heard"), default=0)

    eventually(lambda: all(last_heard(node) for node in nodes))
    network = f"{cluster.network}.0/24"
    rules = (
        "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
        f"add rule inet cut in ip daddr {network} drop; add rule inet cut in ip saddr {network} drop"
    )
    subprocess.run([*enter, "nft", rules], check=True)
    cut = time.monotonic_ns()
    time.sleep(5)  # long enough for TCP to have backed off by seconds
    assert all(last_heard(node) < cut + 1000 * MS for node in nodes)
    subprocess.run([*enter, "nft", "delete table inet cut"], check=True)
    healed = time.monotonic_ns()
    eventually(lambda: all(last_heard(node) > healed for node in nodes))
    for node in nodes:
        first = min(event["t"] for event in node.trace() if event["ev"] == "heard" and event["t"] > healed)
        # Meant to be 0.2 s at the most; a machine that is busy gets more.
        assert first - healed < 1000 * MS


def test_after_a_pause_what_came_in_time_is_seen_before_the_timeout_that_waits_for_it(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, {"kind": "runtime_processes:watchdog"})
    peer = Peer(node.listen or "")
    stop = threading.Event()

    def knock() -> None:
        while not stop.wait(0.02):
            peer.send(Kind.REQUESTS, [(1, 1)])

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        time.sleep(0.5)
        before = len(node.trace())
        for _ in range(4):
            node.running.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            node.running.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        assert len(node.trace()) == before
    finally:
        stop.set()
        knocking.join()
    eventually(lambda: len(node.trace()) > before)


# ---------------------------------------------------------------------------------------------------------------------
# Raft, with clients


def register(thread: int, threads: int) -> dict[str, Any]:
    return {"kind": "client", "thread": thread, "threads": threads, "rate": 100.0, "keys": 2,
            "mix": {"read": 0.4, "write": 0.5, "cas": 0.1}}  # fmt: skip


def test_clients_use_a_raft_cluster_from_start_to_stop_and_leave_their_history(cluster: Cluster) -> None:
    nodes = cluster.nodes(3, {"kind": "raft"})
    clients = [cluster.client(f"c{thread}", register(thread, 2)) for thread in range(2)]
    eventually(lambda: any(event.get("role") == "leader" for node in nodes for event in node.trace()))
    start = time.monotonic_ns() + 1000 * MS
    stop = start + 1500 * MS
    for client in clients:
        client.tell(f"start {start}")
        client.tell(f"stop {stop}")
    assert [client.status() for client in clients] == [0, 0]
    for thread, client in enumerate(clients):
        history = client.trace("history")
        begun = [event for event in history if event["type"] == "invoke"]
        assert all(start <= event["time"] <= stop for event in begun[:-2])
        assert [(event["f"], event["value"][0]) for event in begun[-2:]] == [("read", "k0"), ("read", "k1")]
        assert {event["process"] % 2 for event in history} == {thread}
        assert sum(event["type"] == "ok" for event in history) > 30
        assert len(history) == 2 * len(begun)
    assert [node.terminate() for node in nodes] == [0, 0, 0]


def test_the_end_of_its_input_stops_a_client_and_a_line_it_does_not_know_is_an_error(cluster: Cluster) -> None:
    cluster.addresses = {"n1": cluster.address(1)}
    quiet = cluster.client("c1", register(0, 2))
    assert quiet.running.stdin is not None
    quiet.running.stdin.close()
    assert quiet.status() == 0
    puzzled = cluster.client("c2", register(1, 2))
    puzzled.tell("begin now")
    assert puzzled.status() == os.EX_USAGE
    assert "'begin now'; 'start NANOSECONDS' or 'stop NANOSECONDS' was expected" in puzzled.log


def test_a_flood_leaves_its_figures(cluster: Cluster) -> None:
    (node,) = cluster.nodes(1, {"kind": "raft"})
    eventually(lambda: any(event.get("role") == "leader" for event in node.trace()))
    flood = cluster.client("c1", {"kind": "flood", "outstanding": 50, "warm_up": 0})
    eventually((flood.folder / "trace" / "metrics.ndjson").exists)  # it is about to dial
    flood.tell(f"start {time.monotonic_ns() + 500 * MS}")
    flood.tell(f"stop {time.monotonic_ns() + 2500 * MS}")
    assert flood.status() == 0
    (summary,) = flood.trace("history")
    assert summary["operations"] > 100
    assert 0 < summary["p50"] <= summary["p99"] <= summary["max"]
