"""An Open vSwitch of our own: an ovsdb-server and an ovs-vswitchd that belong to the sandbox, and their configuration.

They keep everything in a run directory on the sandbox's tmpfs and are started directly, never through the system's
service, which is left alone. What ovs-vsctl would be asked is said to the database in one transaction of its own
protocol (RFC 7047), so a whole fabric appears at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec

from topologies.plan import FabricPlan, Link, Switch
from topologies.rtnetlink import NETLINK_GENERIC, Netlink

Datapath = Literal["system", "netdev"]

RUN_DIRECTORY = Path("/run/openvswitch")

#: 1.3 is what Ryu's applications are written in; bundles need 1.4, group properties 1.5.
PROTOCOLS = ("OpenFlow13", "OpenFlow14", "OpenFlow15")

#: Milliseconds, the columns' unit. A controller that came back is found again within a second, OVS's least.
RECONNECT_WITHIN = 1_000
INACTIVITY_PROBE = 5_000

#: What a port of the user space datapath may hold before it drops, in bytes as the kernel accounts them. Its sockets'
#: default is 208 KiB: three TCP segments of 64 KiB, or what 300 small packets bring while a busy machine lets
#: ovs-vswitchd wait. Both would be losses that nobody asked for.
PORT_BUFFER = 4 << 20

_SCHEMAS = ("/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema")
_START_WITHIN = 60.0  # a deadlock, not slowness: an emulated processor takes twenty
_CLOSING_THREADS = 128
_ROOM_FOR_FILES = 4096  # a port is one or two
_KEEP_FREE = 4 << 20
_SYS_PIDFD_GETFD = 438  # pidfd_getfd(2), the same on every architecture
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_libc = ctypes.CDLL(None, use_errno=True)
#: Whenever ovs-vswitchd wakes, it takes 32 buffers of a packet's size for every port and gives back those that stay
#: empty. Debian's libjemalloc2 does that so much faster than the C library that it takes a packet through a switch with
#: 30 % less processor time; without it the switches are as good but slower.
_ALLOCATOR = "lib/*/libjemalloc.so.2"
#: Where daemons are on systems that leave it out of ordinary users' PATH.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_INSTALL = "install it, for example by `apt install openvswitch-switch`"


class OpenVSwitchError(RuntimeError):
    """Open vSwitch is not there, did not start, or refused a configuration; the message says which and why."""


class PortStatus(msgspec.Struct, frozen=True):
    """How a port came out: ``number`` is its OpenFlow port (-1 when OVS could not open it), ``error`` why not."""

    name: str
    number: int
    error: str


def choose_datapath(wanted: Literal["auto", "system", "netdev"] = "auto") -> Datapath:
    """The kernel's datapath where its module is there, else OVS's own in user space.

    Raises `OpenVSwitchError` when ``system`` is wanted and the kernel has none.
    """
    if wanted == "netdev":
        return "netdev"
    with Netlink(NETLINK_GENERIC) as netlink:
        if netlink.has_generic_family("ovs_datapath"):
            return "system"
    if wanted == "system":
        raise OpenVSwitchError(
            "the kernel has no openvswitch module (`modprobe openvswitch`); datapath 'netdev' does without"
        )
    return "netdev"


def bridges(switches: Iterable[Switch], datapath: Datapath) -> list[dict[str, Any]]:
    """The database operations (RFC 7047 §5.2) that make these switches of the plan, without ports.

    In fail mode ``secure`` with no connection inside the fabric's own links: what forwards is what a controller put
    there, and it goes on forwarding without one.
    """
    operations: list[dict[str, Any]] = []
    named: list[Any] = []
    for switch in switches:
        bridge = _uuid_name("bridge", switch.name)
        # Every bridge has a port of its own name: to Open vSwitch it is the bridge's local interface.
        inserted, local = _port(switch.name, {"type": "internal"})
        row = {
            "name": switch.name,
            "ports": local,
            "datapath_type": datapath,
            "fail_mode": "secure",
            "protocols": ["set", list(PROTOCOLS)],
            "other_config": _map(
                {
                    "datapath-id": f"{switch.datapath_id:016x}",
                    "disable-in-band": "true",
                    "dp-desc": switch.name,
                }
            ),
        }
        operations += [*inserted, _insert("Bridge", bridge, row)]
        named.append(["named-uuid", bridge])
    operations.append(
        {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["bridges", "insert", ["set", named]]]}
    )
    return operations


def ports(plan: FabricPlan, switches: Iterable[Switch], links: Iterable[Link]) -> list[dict[str, Any]]:
    """The operations that give these switches, whose bridges are there, their ends of these links of the plan."""
    operations: list[dict[str, Any]] = []
    references: dict[str, list[list[str]]] = {switch.name: [] for switch in switches}
    for link in links:
        for end in (link.a, link.b):
            if end.node in references:
                inserted, reference = _port(end.interface, {"ofport_request": end.port, **_watch(plan, link)})
                operations += inserted
                references[end.node].append(reference)
    operations += [
        {
            "op": "mutate",
            "table": "Bridge",
            "where": [["name", "==", name]],
            "mutations": [["ports", "insert", ["set", inserted]]],
        }
        for name, inserted in references.items()
    ]
    return operations


def _watch(plan: FabricPlan, link: Link) -> dict[str, Any]:
    """The column that has both ends watch a link between switches by BFD (RFC 5880), where the plan wants that."""
    if not plan.bfd_interval or not (link.a.port and link.b.port):
        return {}
    milliseconds = str(round(plan.bfd_interval / 1e6))
    return {"bfd": _map({"enable": "true", "min_tx": milliseconds, "min_rx": milliseconds})}


def _port(name: str, columns: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The operations that make a port of one interface, and the reference by which a bridge has it."""
    interface, port = _uuid_name("interface", name), _uuid_name("port", name)
    row = {"name": name, "interfaces": ["named-uuid", interface]}
    return [_insert("Interface", interface, {"name": name, **columns}), _insert("Port", port, row)], [
        "named-uuid",
        port,
    ]


def controllers(switches: Iterable[Switch], target: str | None) -> list[dict[str, Any]]:
    """The operations that point these switches at a controller, ``tcp:ADDRESS:PORT``, or at none.

    A switch that had this target already connects anew, at once instead of when its backoff ends.
    """
    operations: list[dict[str, Any]] = []
    for switch in switches:
        references: list[Any] = []
        if target is not None:
            name = _uuid_name("controller", switch.name)
            row = {"target": target, "max_backoff": RECONNECT_WITHIN, "inactivity_probe": INACTIVITY_PROBE}
            operations.append(_insert("Controller", name, row))
            references.append(["named-uuid", name])
        operations.append(
            {
                "op": "update",
                "table": "Bridge",
                "where": [["name", "==", switch.name]],
                "row": {"controller": ["set", references]},
            }
        )
    return operations


def forget_cached_flows() -> None:
    """Have the datapath ask the tables anew about every packet, from now on.

    It caches what the tables said about a flow, and would by itself go on by a table that has changed for some
    milliseconds, more under load. Raises `OpenVSwitchError`.
    """
    try:
        answer = _call(_control_socket(), "revalidator/purge", [])
    except OSError as error:
        raise OpenVSwitchError(f"ovs-vswitchd does not answer: {error}") from error
    if answer["error"] is not None:
        raise OpenVSwitchError(f"ovs-vswitchd refused: {answer['error']}")


class OpenVSwitch:
    """The two daemons. `start` makes them, `configure` tells them what to be, `stop` ends them.

    ``segmentation_offload`` carries hosts' 64 KiB segments whole through the user space datapath, which is several
    times faster, and wrong where links differ in MTU; the kernel's does so by itself. ``log_directory`` gets their
    logs, ``ovsdb-server.log`` and ``ovs-vswitchd.log``; without, they stay in the run directory.
    """

    def __init__(
        self, datapath: Datapath, *, segmentation_offload: bool = True, log_directory: Path | None = None
    ) -> None:
        self.datapath = datapath
        self._offload = segmentation_offload
        self._logs = log_directory or RUN_DIRECTORY
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._database = RUN_DIRECTORY / "db.sock"

    def start(self) -> None:
        """Start both and return once the database answers; ovs-vswitchd comes up meanwhile."""
        RUN_DIRECTORY.mkdir(parents=True, exist_ok=True)
        storage = RUN_DIRECTORY / "conf.db"
        storage.unlink(missing_ok=True)
        self._database.unlink(missing_ok=True)
        schema = next((path for path in _SCHEMAS if os.path.exists(path)), None)
        if schema is None:
            raise OpenVSwitchError(f"Open vSwitch's database schema is not at {' nor at '.join(_SCHEMAS)}; {_INSTALL}")
        made = subprocess.run(
            [program("ovsdb-tool"), "create", storage, schema], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise OpenVSwitchError(f"ovsdb-tool could not create {storage}: {made.stderr.strip()}")
        self._launch("ovsdb-server", f"--remote=punix:{self._database}", str(storage))
        self._await_database()
        # Set before ovs-vswitchd starts, as it reads this once.
        settings = {"userspace-tso-enable": "true"} if self.datapath == "netdev" and self._offload else {}
        self.transact([{"op": "insert", "table": "Open_vSwitch", "row": {"other_config": _map(settings)}}])
        extra = ["--disable-system"] if self.datapath == "netdev" else []
        self._launch("ovs-vswitchd", *extra, f"unix:{self._database}")

    def configure(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Carry out ``operations`` in one transaction, and wait until ovs-vswitchd has made the kernel agree."""
        self.await_configuration(self.submit(operations))

    def submit(self, operations: Sequence[Mapping[str, Any]]) -> int:
        """Carry out ``operations`` in one transaction; the number is for `await_configuration`.

        Interfaces that they name must be there: ovs-vswitchd begins at once.
        """
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        read = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
        number: int = self.transact([*operations, count, read])[-1]["rows"][0]["next_cfg"]
        return number

    def await_configuration(self, number: int) -> None:
        """Return once ovs-vswitchd has made the kernel agree with everything up to a submission."""
        self._check_alive()
        wait = {
            "op": "wait",
            "table": "Open_vSwitch",
            "timeout": round(_START_WITHIN * 1000),
            "where": [["cur_cfg", "<", number]],
            "columns": ["cur_cfg"],
            "until": "==",
            "rows": [],
        }
        try:
            self.transact([wait])
        except OpenVSwitchError as error:
            self._check_alive()
            raise OpenVSwitchError(
                f"ovs-vswitchd did not take its configuration within {_START_WITHIN:g} s; see {self._logs}"
            ) from error
        if self.datapath == "netdev":
            _widen_port_buffers(self._daemons[-1].pid)

    def ports(self) -> list[PortStatus]:
        """Every port but the bridges' own."""
        rows = self._select("Interface", ["name", "ofport", "error"], [["type", "!=", "internal"]])
        return [PortStatus(row["name"], _scalar(row["ofport"], -1), _scalar(row["error"], "")) for row in rows]

    def connected(self) -> dict[str, bool]:
        """Whether each bridge that has a controller is connected to it."""
        alive = {row["_uuid"][1]: row["is_connected"] for row in self._select("Controller", ["_uuid", "is_connected"])}
        return {
            row["name"]: all(alive[uuid] for uuid in wanted)
            for row in self._select("Bridge", ["name", "controller"])
            if (wanted := _uuids(row["controller"]))
        }

    def remove(self, bridge: str) -> None:
        """Take a bridge away; its interfaces stay, as veths that lead nowhere."""
        (row,) = self._select("Bridge", ["_uuid"], [["name", "==", bridge]])
        operation = {
            "op": "mutate",
            "table": "Open_vSwitch",
            "where": [],
            "mutations": [["bridges", "delete", row["_uuid"]]],
        }
        self.configure([operation])

    def transact(self, operations: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The results of ``operations`` (RFC 7047 §4.1.3), all carried out or none. Raises `OpenVSwitchError`."""
        try:
            answer = _call(self._database, "transact", ["Open_vSwitch", *operations])
        except OSError as error:
            self._check_alive()
            raise OpenVSwitchError(f"ovsdb-server does not answer: {error}") from error
        results: list[Any] = answer["result"] or []
        for result in (answer["error"], *results):
            if result and "error" in result:
                raise OpenVSwitchError(f"Open vSwitch refused: {result['error']}: {result.get('details', '')}")
        return results

    def stop(self) -> None:
        """End both daemons, and with them their datapath."""
        if self.datapath == "system" and self._daemons:
            # The kernel's datapath outlives the daemon unless it is told to clean up.
            command = [program("ovs-appctl"), "-t", "ovs-vswitchd", "exit", "--cleanup"]
            subprocess.run(command, capture_output=True, check=False, env=_environment())
        ports = _borrow_ports(self._daemons[-1].pid) if self.datapath == "netdev" and len(self._daemons) == 2 else []
        for daemon in reversed(self._daemons):
            daemon.kill()
        for daemon in self._daemons:
            daemon.wait()
        self._daemons.clear()
        _close_together(ports)

    def _launch(self, name: str, *arguments: str) -> None:
        command = [
            program(name),
            *arguments,
            "-vconsole:off",
            "-vsyslog:off",
            "--no-chdir",
            f"--pidfile={RUN_DIRECTORY / name}.pid",
            f"--log-file={self._logs / name}.log",
        ]
        environment = _environment()
        if name == "ovs-vswitchd" and (allocator := next(Path("/usr").glob(_ALLOCATOR), None)):
            environment["LD_PRELOAD"] = str(allocator)
        # A session of its own, so that an interrupt typed at a prompt does not take the switches down.
        with _high_descriptor() as high:
            daemon = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[high]
            )
        # The switches stand for hardware, which a busy host does not slow down; as ordinary processes they stood still
        # for 20 to 80 ms there. They mostly wait. Threads started later inherit both.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, daemon.pid, -10)
            os.sched_setscheduler(daemon.pid, os.SCHED_RR, os.sched_param(1))
        self._daemons.append(daemon)

    def _await_database(self) -> None:
        deadline = time.monotonic() + _START_WITHIN
        with socket.socket(socket.AF_UNIX) as connection:
            while connection.connect_ex(str(self._database)) != 0:
                self._check_alive()
                if time.monotonic() > deadline:
                    raise OpenVSwitchError(f"ovsdb-server did not start within {_START_WITHIN:g} s; see {self._logs}")
                time.sleep(0.002)

    def _check_alive(self) -> None:
        for daemon in self._daemons:
            if daemon.poll() is not None:
                name = Path(str(daemon.args[0])).name  # type: ignore[index]
                raise OpenVSwitchError(f"{name} ended with status {daemon.returncode}; see {self._logs / name}.log")

    def _select(self, table: str, columns: list[str], where: Sequence[Any] = ()) -> list[dict[str, Any]]:
        operation = {"op": "select", "table": table, "where": list(where), "columns": columns}
        rows: list[dict[str, Any]] = self.transact([operation])[0]["rows"]
        return rows


def _environment() -> dict[str, str]:
    # The C library's allocator would give memory back to the kernel and take it again with every row of the database.
    keep = {"MALLOC_TRIM_THRESHOLD_": str(_KEEP_FREE), "MALLOC_TOP_PAD_": str(_KEEP_FREE)}
    return {**os.environ, **keep, "OVS_RUNDIR": str(RUN_DIRECTORY)}


@contextlib.contextmanager
def _high_descriptor() -> Iterator[int]:
    """A descriptor whose number has a process that inherits it begin with a table for `_ROOM_FOR_FILES`.

    Whenever the table of a process with threads has to grow, it waits until no processor can be looking at the old one
    any more (an RCU grace period, some 10 ms), and a table begins with 64.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = _ROOM_FOR_FILES if soft == resource.RLIM_INFINITY else min(_ROOM_FOR_FILES, soft)
    with open(os.devnull) as nothing:
        high = fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, room - 1)
    try:
        yield high
    finally:
        os.close(high)


def _control_socket() -> Path:
    """Where ovs-vswitchd takes commands; ovs-appctl, too, looks for it by the process's number."""
    return RUN_DIRECTORY / f"ovs-vswitchd.{int((RUN_DIRECTORY / 'ovs-vswitchd.pid').read_text())}.ctl"


def _widen_port_buffers(pid: int) -> None:
    """Give each of ovs-vswitchd's packet sockets `PORT_BUFFER`, for which it has no setting of its own.

    A user who is not the machine's root gets what ``net.core.rmem_max`` allows.
    """
    for port in _borrow_ports(pid):
        with port:
            # The kernel doubles what it is asked for (socket(7)).
            try:
                port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, PORT_BUFFER // 2)
            except PermissionError:
                port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PORT_BUFFER // 2)


def _borrow_ports(pid: int) -> list[socket.socket]:
    """Our own descriptors of ovs-vswitchd's packet sockets, by which it sends and receives at its ports."""
    ports = []
    try:
        process = os.pidfd_open(pid)
        names = os.listdir(f"/proc/{pid}/fd")
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return []  # it has ended
    try:
        for name in names:
            if (fd := _libc.syscall(_SYS_PIDFD_GETFD, process, int(name), 0)) < 0:
                continue  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            borrowed = socket.socket(fileno=fd)
            if borrowed.family == socket.AF_PACKET:
                ports.append(borrowed)
            else:
                borrowed.close()
    finally:
        os.close(process)
    return ports


def _close_together(ports: Sequence[socket.socket]) -> None:
    """Close packet sockets, of which these are the last descriptors.

    Each close waits until no processor can be looking at the socket any more (an RCU grace period, some 10 ms). A
    process that ends waits for them one after another, which is seconds for a hundred ports; threads wait together.
    """
    if ports:
        with ThreadPoolExecutor(min(len(ports), _CLOSING_THREADS)) as threads:
            list(threads.map(socket.socket.close, ports))


def program(name: str) -> str:
    """The path of one of Open vSwitch's programs. Raises `OpenVSwitchError` when it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise OpenVSwitchError(f"{name} is not there; it is part of Open vSwitch: {_INSTALL}")
    return found


def _call(path: Path, method: str, parameters: Sequence[Any]) -> dict[str, Any]:
    """The answer to one JSON-RPC request; nothing marks its end but that it is whole."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps({"method": method, "params": parameters, "id": 0}).encode())
        data = b""
        while True:
            more = connection.recv(1 << 16)
            if not more:
                raise ConnectionError("it closed the connection")
            data += more
            try:
                answer: dict[str, Any] = json.loads(data)
            except ValueError:
                continue
            return answer


def _insert(table: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"op": "insert", "table": table, "uuid-name": name, "row": dict(row)}


def _uuid_name(kind: str, name: str) -> str:
    """RFC 7047's <id> has letters, digits and underscores only."""
    return f"{kind}_{name.encode().hex()}"


def _map(values: Mapping[str, str]) -> list[Any]:
    return ["map", [[key, value] for key, value in values.items()]]


def _scalar(value: Any, default: Any) -> Any:
    """An optional column's value: RFC 7047 writes an absent one as the empty set."""
    return default if value == ["set", []] else value


def _uuids(value: Any) -> list[str]:
    return [uuid for _, uuid in value[1]] if value[0] == "set" else [value[1]]
