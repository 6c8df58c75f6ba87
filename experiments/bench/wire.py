"""How exact the wire is, and how much it carries: a veth between two namespaces, one direction of it impaired.

The bare veth is measured in the same run, since what the kernel and the measuring itself take is in every figure.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from experiments.bench import BenchError, Figure, figure
from topologies import netns
from topologies.impair import Attachment, Direction, inside, interface_counters, run
from topologies.impairment import Impairment
from topologies.intervals import binomial_tail
from topologies.measure import Flood, Obtained, ProbeRun
from topologies.sandbox import Sandbox
from topologies.wire import WireBackend

TEN_MS = Impairment(delay=10_000_000)
BARE = "bare veth"
LOSSES = (0.001, 0.01, 0.1, 0.3)
LOSS_FRAMES = 100_000
BURST = Impairment(loss=0.1, burst=5.0)
BURST_PROBES = 100_000
RATES_MBIT = (1, 10, 100, 500)

#: Frames under way while the capacity is measured; the 10 ms hold 2,000 of them at 200,000 a second.
WINDOW = 6_000

_NEAR, _FAR = "10.9.0.1", "10.9.0.2"
_TCP_MEMORY = "4096 131072 33554432"


def bench() -> list[Figure]:
    with Sandbox(Pair) as sandbox:
        figures: list[Figure] = sandbox.call_sync("figures")
    return figures


class Pair:
    """Two namespaces with a veth between them; the direction from ``near`` to ``far`` is the one impaired."""

    def __init__(self) -> None:
        if shutil.which("iperf3") is None:
            raise BenchError("there is no iperf3 command, which this bench measures TCP with: install iperf3")
        netns.DIRECTORY.mkdir(parents=True, exist_ok=True)
        with netns.created("far"):
            _tune()
        with netns.created("near"):
            _tune()
            run(["ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", "far"])
        for name, address in (("near", _NEAR), ("far", _FAR)):
            with netns.inside(name):
                run(["ip", "address", "add", f"{address}/24", "dev", f"{name}0"])
                run(["ip", "link", "set", f"{name}0", "up"])
        self.direction = Direction("near>far", Attachment("near0", "near"), Attachment("far0", "far"))
        self.wire = WireBackend()

    def figures(self) -> list[Figure]:
        bare, bare_20k = self._probe(1_000, 2_000), self._probe(20_000, 20_000)
        bare_capacity, bare_tcp = self._capacity(1.0), self._tcp(4)
        with self._impaired(TEN_MS):
            rounds = [self._probe(1_000, 2_000) for _ in range(3)]
            fast = self._probe(20_000, 60_000)
            capacity, tcp = self._capacity(2.0), self._tcp(5)
        rate_errors = {kind: self._rate_error(kind) for kind in ("tcp", "udp")}
        return [
            figure(
                "delay_error_mean_ms",
                statistics.median(_error_ms(probed.delay_mean) for probed in rounds),
                "ms",
                aim="≤ 0.1",
                peer=BARE,
                peer_value=_ms(bare.delay_mean),
            ),
            figure(
                "delay_error_p99_ms",
                statistics.median(_error_ms(probed.delay_p99) for probed in rounds),
                "ms",
                aim="≤ 0.2",
                peer=BARE,
                peer_value=_ms(bare.delay_p99),
            ),
            figure(
                "delay_error_p99_20k_ms",
                _error_ms(fast.delay_p99),
                "ms",
                aim="≤ 0.5",
                peer=BARE,
                peer_value=_ms(bare_20k.delay_p99),
            ),
            figure("packets_per_s", capacity, "1/s", aim="≥ 200,000", peer=BARE, peer_value=bare_capacity),
            figure("tcp_gbit_per_s", tcp, "Gbit/s", aim="≥ 2", peer=BARE, peer_value=bare_tcp),
            figure("loss_in_interval", self._losses_in_interval(), "share", aim="≥ 1"),
            figure("burst_error", self._burst_error(), "%", aim="≤ 5"),
            figure("rate_error", max(rate_errors.values()), "%", aim="≤ 2"),
            *(figure(f"rate_error_{kind}", error, "%") for kind, error in rate_errors.items()),
        ]

    @contextmanager
    def _impaired(self, impairment: Impairment) -> Iterator[None]:
        self.wire.apply(self.direction, impairment, seed=1)
        try:
            yield
        finally:
            self.wire.clear(self.direction)

    def _probe(self, per_second: int, packets: int) -> Obtained:
        """Probes that leave evenly, each at its own moment."""
        with ProbeRun(self.direction, 128) as probes:
            time.sleep(0.02)
            started = time.monotonic_ns()
            for number in range(packets):
                due = started + number * 1_000_000_000 // per_second
                if (ahead := due - time.monotonic_ns()) > 200_000:
                    time.sleep((ahead - 150_000) / 1e9)
                while time.monotonic_ns() < due:
                    pass
                probes.send()
                if number % 16 == 0:
                    probes.drain()
            time.sleep(0.1)
            probes.drain()
            return probes.obtained()

    def _capacity(self, seconds: float) -> float:
        """Frames of 64 bytes that arrive in a second when as many are sent as `WINDOW` allows, so that none is lost."""
        with Flood(self.direction.sender, 64) as flood:
            before = interface_counters(self.direction.receiver).rx_packets
            arrived, started = 0, time.monotonic()
            while time.monotonic() - started < seconds:
                arrived = interface_counters(self.direction.receiver).rx_packets - before
                if flood.sent - arrived <= WINDOW - flood.batch:
                    flood.send(flood.batch)
            return arrived / (time.monotonic() - started)

    def _losses_in_interval(self) -> float:
        """The share of `LOSSES` of which what arrived lies in the 99 % binomial interval."""
        met = 0
        for loss in LOSSES:
            with self._impaired(Impairment(loss=loss)), Flood(self.direction.sender, 64) as flood:
                before = interface_counters(self.direction.receiver).rx_packets
                while flood.sent < LOSS_FRAMES:
                    flood.send(min(flood.batch, LOSS_FRAMES - flood.sent))
                    time.sleep(0.002)
                time.sleep(0.2)
                arrived = interface_counters(self.direction.receiver).rx_packets - before
            met += binomial_tail(LOSS_FRAMES, loss, LOSS_FRAMES - arrived) >= 0.005
        return met / len(LOSSES)

    def _burst_error(self) -> float:
        """How far the mean length of runs of lost packets is from what was asked, in percent of it."""
        with self._impaired(BURST):
            obtained = self._probe(30_000, BURST_PROBES)
        return abs((obtained.loss_burst or 0) / BURST.burst - 1) * 100

    def _rate_error(self, kind: str) -> float:
        """The largest error, in percent of the rate asked, of what arrives while iperf3 sends more than it."""
        worst = 0.0
        for mbit in RATES_MBIT:
            with self._impaired(Impairment(rate=mbit * 1_000_000)), self._iperf(5, kind, 1.2 * mbit):
                time.sleep(1.5)  # the queue fills
                first, began = interface_counters(self.direction.receiver), time.monotonic()
                time.sleep(2)
                last, ended = interface_counters(self.direction.receiver), time.monotonic()
            rate = (last.rx_bytes - first.rx_bytes) * 8 / (ended - began)
            worst = max(worst, abs(rate / (mbit * 1e6) - 1) * 100)
        return worst

    def _tcp(self, seconds: int) -> float:
        """Gbit/s of one connection, its first second left out."""
        with self._iperf(seconds, "tcp") as client:
            output, _ = client.communicate()
        return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9

    @contextmanager
    def _iperf(self, seconds: int, kind: str, mbit: float = 0) -> Iterator[subprocess.Popen[bytes]]:
        """An iperf3 client that sends from near to far, with its server."""
        options = ["-u", "-b", f"{mbit}M", "-l", "1400"] if kind == "udp" else ["-C", "cubic"]
        serve = ["iperf3", "-s", "-1", "--forceflush"]
        send = ["iperf3", "-c", _FAR, "-t", str(seconds - 1), "-O", "1", "-J", *options]
        with ExitStack() as stack:
            with inside(self.direction.receiver):
                server = stack.enter_context(subprocess.Popen(serve, stdout=subprocess.PIPE))
            stack.callback(server.kill)
            assert server.stdout is not None
            while b"listening" not in (line := server.stdout.readline()):
                if not line:
                    raise BenchError("iperf3 -s did not start")
            with inside(self.direction.sender):
                client = stack.enter_context(subprocess.Popen(send, stdout=subprocess.PIPE))
            stack.callback(client.kill)
            yield client


def _tune() -> None:
    """What the namespace just made needs, so that neither the machine's defaults nor small buffers are measured."""
    for switch, value in {
        "ipv4/tcp_rmem": _TCP_MEMORY,
        "ipv4/tcp_wmem": _TCP_MEMORY,
        "ipv6/conf/default/disable_ipv6": "1",
    }.items():
        Path("/proc/sys/net", switch).write_text(value)
    run(["ip", "link", "set", "lo", "up"])


def _error_ms(delay: int | None) -> float:
    return abs(_ms(delay) - TEN_MS.delay / 1e6)


def _ms(delay: int | None) -> float:
    if delay is None:
        raise BenchError("no probe arrived over a bare veth: the machine is too busy to measure anything")
    return delay / 1e6
