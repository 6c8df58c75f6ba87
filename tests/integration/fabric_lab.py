"""What the tests of the fabric have in their sandboxes: a fabric, a controller in a process of its own, and hands."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from topologies.dataplane import Fault
from topologies.fabric import Fabric
from topologies.plan import End, FabricPlan
from topologies.sandbox import Sandbox

SO_TIMESTAMPNS = 35  # asm-generic/socket.h

CHECKOUT = Path(__file__).resolve().parents[2]


@contextmanager
def fabric_lab(plan: FabricPlan, out: Path, *, controller: bool = True) -> Iterator[Sandbox]:
    """A sandbox with a fabric that forwards, or one without a controller that does not yet."""
    with Sandbox(FabricLab, plan, controller, out=out) as sandbox:
        if controller:
            sandbox.call_sync("wait_ready")
        yield sandbox


class FabricLab:
    """Its methods are the hands of tests, called from outside; the fabric itself cannot leave."""

    def __init__(self, plan: FabricPlan, controller: bool = True) -> None:
        self.plan = plan
        self._controller: subprocess.Popen[bytes] | None = None
        if controller:
            self.start_controller()
        self.net = Fabric(plan, controller="tcp:127.0.0.1:6653" if controller else None)
        self.net.start()
        self._faults: list[Fault] = []

    async def wait_ready(self) -> None:
        await self.net.wait_ready(30)

    def start_controller(self) -> None:
        path = Path("/run/plan.json")
        path.write_bytes(self.plan.to_json())
        command = [sys.executable, "-m", "controllers.launch", "--plan", str(path), "--status", "/run/status.jsonl"]
        self._controller = subprocess.Popen(command, cwd=CHECKOUT)

    def kill_controller(self) -> None:
        assert self._controller is not None
        self._controller.kill()
        self._controller.wait()

    async def matrix(self, hosts: Any, probes: int = 3, timeout: float = 0.5) -> dict[str, dict[str, list[int]]]:
        return await self.net.prober.matrix(hosts, probes, timeout)

    def drop(self, grudge: Mapping[str, set[str]]) -> int:
        return self._keep(self.net.dataplane.drop(grudge))

    def cut(self, link: str) -> int:
        return self._keep(self.net.dataplane.cut(link))

    def restore(self, link: str) -> None:
        self.net.dataplane.restore(link)

    def _keep(self, fault: Fault) -> int:
        self._faults.append(fault)
        return len(self._faults) - 1

    def lift(self, number: int) -> None:
        self._faults[number].lift()

    def tables(self) -> dict[str, list[str]]:
        """Every switch's rules, without counters, in an order of their own: the switch's is that of its hashes."""
        dump = ("ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "--no-names", "dump-flows")
        return {switch.name: sorted(run(*dump, switch.name).splitlines()) for switch in self.plan.switches}

    def carriers(self, link: str) -> list[bool]:
        """Whether each end of a link has carrier."""
        found = self.plan.link(link)
        return [self._has_carrier(end) for end in (found.a, found.b)]

    def _has_carrier(self, end: End) -> bool:
        if end.node in self.net.host_names:
            # A host's /sys is the sandbox's, which shows the sandbox's interfaces: ask netlink.
            return "NO-CARRIER" not in self.command(end.node, "ip", "-o", "link", "show", end.interface)[1]
        try:
            return Path(f"/sys/class/net/{end.interface}/carrier").read_text().strip() == "1"
        except OSError:  # EINVAL: the interface is down
            return False

    def command(self, host: str, *argv: str) -> tuple[int, str]:
        """Exit status and output of a program in a host."""
        process = self.net.spawn(host, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output.decode()

    def established_tcp(self, sender: str, receiver: str) -> tuple[int, int, int]:
        """Bytes that a running TCP stream delivers in 0.3 s before its direction is dropped, while it is, and after."""
        with self.net.inside(receiver):
            listener = socket.create_server((self.plan.endpoint(receiver).ip, 0))
        with self.net.inside(sender):
            source = socket.create_connection(listener.getsockname(), timeout=5)
        sink, _ = listener.accept()
        with listener, source, sink:
            source.setblocking(False)
            # So that little is still on its way when the stream ends and the next test begins.
            source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            before = stream(source, sink, 0.3)
            with self.net.dataplane.drop({receiver: {sender}}):
                # What had crossed the switch by then may still sit in the receiver's socket.
                sink.settimeout(0)
                with suppress(BlockingIOError):
                    while sink.recv(1 << 20):
                        pass
                during = stream(source, sink, 0.3)
            # A retransmission is due at the latest after what it had backed off to, about as long as the silence was.
            return before, during, stream(source, sink, 2)

    def slipped_through(self, sender: str, receiver: str) -> float:
        """Milliseconds from when `drop` returns to the last datagram of a running stream that still arrives."""
        to = self.plan.endpoint(receiver).ip
        with self.net.inside(receiver):
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with self.net.inside(sender):
            source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sink, source:
            sink.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sink.bind((to, 0))
            source.connect(sink.getsockname())
            arrivals: list[int] = []

            def run(seconds: float) -> None:
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    source.send(b"x")
                    while select.select([sink], [], [], 0.0005)[0]:
                        _, ancillary, _, _ = sink.recvmsg(1, 64)
                        seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
                        arrivals.append(seconds * 1_000_000_000 + nanoseconds)

            deadline = time.monotonic() + 10
            while not arrivals and time.monotonic() < deadline:
                run(0.2)
            assert arrivals, f"nothing arrives from {sender} at {receiver} before it is dropped"
            with self.net.dataplane.drop({receiver: {sender}}):
                dropped = time.time_ns()
                run(0.2)
        return (arrivals[-1] - dropped) / 1e6


def stream(source: socket.socket, sink: socket.socket, seconds: float) -> int:
    """Write and read as much as goes for so long; how much was read."""
    deadline = time.monotonic() + seconds
    arrived = 0
    while (left := deadline - time.monotonic()) > 0:
        readable, writable, _ = select.select([sink], [source], [], left)
        if writable:
            source.send(b"x" * 1000)
        if readable:
            arrived += len(sink.recv(1 << 16))
    return arrived


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
