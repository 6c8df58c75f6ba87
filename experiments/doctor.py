"""``splitbrain doctor``: what this machine has, which backend each feature will use, and what to install."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import msgspec
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from topologies.machine import TOOLS, Hardware, Machine, Network, Problem, choices, probe, problems


def doctor(as_json: bool) -> int:
    """Print what `topologies.machine` finds; 0 when a scenario can run here, else 69 (EX_UNAVAILABLE, sysexits(3))."""
    machine = probe()
    missing = problems(machine)
    healthy = not any(problem.fatal for problem in missing)
    if as_json:
        said = {
            "healthy": healthy,
            "machine": {**msgspec.to_builtins(machine), "privileges": machine.privileges._asdict()},
            "choices": choices(machine),
            "problems": missing,
        }
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
    else:
        # A pipe has no width; nothing is gained by wrapping for a terminal's.
        Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(render(machine))
    return os.EX_OK if healthy else os.EX_UNAVAILABLE


def render(machine: Machine) -> Group:
    """The page a person reads: the machine, what is used, what is installed, and last what is to be done."""
    missing = problems(machine)
    sections: list[tuple[str, Table]] = [("This machine", _machine(machine))]
    if choices(machine):
        sections.append(("Will use", _table((c.feature, c.backend, c.why) for c in choices(machine))))
    sections.append(("Installed", _installed(machine)))
    if missing:
        sections.append(("To do", _to_do(missing)))
    if any(problem.fatal for problem in missing):
        verdict = Text("✘ no scenario can run here before what is marked ✘ is done", "red")
    else:
        verdict = Text("✔ scenarios can run here", "green")
    lines = [
        part for title, table in sections for part in (Text(title, "bold"), Padding(table, (0, 0, 1, 2), expand=False))
    ]
    return Group(*lines, verdict)


def _machine(machine: Machine) -> Table:
    hardware, rights = machine.hardware, machine.privileges
    network = machine.network if isinstance(machine.network, Network) else None
    rows = [
        ("kernel", hardware.kernel, hardware.distribution),
        ("virtual", hardware.virtual, what_machine(hardware)),
        ("cores", str(hardware.cores), hardware.cpu),
        ("memory", f"{hardware.memory_bytes / 2**30:.1f} GiB", ""),
        ("user", "root" if rights.root else "ordinary", _user_namespaces(machine)),
        ("/dev/net/tun", _yes(rights.tun), "" if rights.tun_exists else "it does not exist"),
        ("cgroups", machine.cgroups, ""),
    ]
    if network is not None:
        rows += [
            ("openvswitch", _yes(network.datapath == "system"), "the kernel's module"),
            ("netem", _yes(network.netem_missing is None), network.netem_missing or "tried on a device"),
        ]
    return _table(rows)


def what_machine(hardware: Hardware) -> str:
    """Bare metal, a container or a virtual machine, and what follows from that."""
    if hardware.virtual == "none":
        return "bare metal"
    if hardware.virtual == "container":
        return "a container, with the kernel of the machine it is on"
    if "TCG" in hardware.cpu:  # what QEMU calls a processor that it emulates
        return "a virtual machine whose processor is emulated, some twenty times slower: play with --time-scale 5"
    return "a virtual machine: late when its host is busy"


def _user_namespaces(machine: Machine) -> str:
    rights = machine.privileges
    closed = rights.user_namespaces_max == 0 or rights.userns_clone == 0 or bool(rights.apparmor_restricts)
    return f"user namespaces are {'closed' if closed else 'open'} to ordinary users"


def _installed(machine: Machine) -> Table:
    rows = [(name, version, "Python") for name, version in machine.libraries.items()]
    for tool in TOOLS:
        found = machine.tools.get(tool.name)
        rows.append((tool.name, (found.version or "yes") if found else "no", tool.purpose))
    rows.append(("splitbrain-wire", _yes(machine.wire is not None), "exact impairments"))
    return _table(rows)


def _to_do(missing: tuple[Problem, ...]) -> Table:
    return _table(("✘" if problem.fatal else "·", problem.what, problem.remedy) for problem in missing)


def _table(rows: Iterable[tuple[str, str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value, remark in rows:
        table.add_row(Text(name), Text(value, _style(value)), Text(remark, "dim"))
    return table


def _style(value: str) -> str:
    return {"yes": "green", "no": "yellow"}.get(value, "")


def _yes(there: bool) -> str:
    return "yes" if there else "no"
