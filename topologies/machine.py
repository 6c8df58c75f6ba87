"""What this machine has, what of it each feature will use, and what is missing: everything `splitbrain doctor` says.

`probe` looks, by trying rather than by guessing from files; what follows from what it found (`choices`, `problems`) is
decided by functions of that value alone, so that every machine can be put into a test.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from topologies.privileges import Privileges, tun_obstacles
from topologies.privileges import probe as probe_privileges
from topologies.sandbox import Sandbox, SandboxError

#: Where Debian keeps programs that an ordinary user's PATH leaves out.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


class MissingTool(RuntimeError):  # noqa: N818 - it names what is missing
    """Programs that are not installed; the message names them, their Debian packages and what to do."""


class StandInError(RuntimeError):
    """The kernel's own backends are required and it lacks some; the message names them and what to do."""


class Tool(msgspec.Struct, frozen=True):
    """A program: the Debian package that brings it, what for, and whether no scenario runs without."""

    name: str
    package: str
    purpose: str
    required: bool = False
    version_flag: str | None = "--version"


TOOLS = (
    Tool("ovs-vswitchd", "openvswitch-switch", "the fabric's switches", required=True),
    Tool("ovsdb-server", "openvswitch-switch", "the fabric's switches", required=True),
    Tool("ip", "iproute2", "network devices", required=True, version_flag="-V"),
    Tool("tc", "iproute2", "impairments", required=True, version_flag="-V"),
    Tool("mnexec", "mininet", "commands typed in hosts", version_flag=None),
    Tool("ping", "iputils-ping", "pingAll", version_flag="-V"),
    Tool("iperf3", "iperf3", "throughput in `splitbrain bench`"),
    Tool("tcpdump", "tcpdump", "captures"),
    Tool("ethtool", "ethtool", "looking at offloads"),
    Tool("nft", "nftables", "looking at partitions of tenants"),
    Tool("gcc", "gcc", "compiling the wire"),
)


class Hardware(msgspec.Struct, frozen=True):
    """The machine as a manifest records it. ``virtual``: ``none``, ``container`` or the kind of virtual machine."""

    cores: int
    memory_bytes: int
    cpu: str
    kernel: str
    distribution: str
    virtual: str


class Found(msgspec.Struct, frozen=True):
    """An installed program. ``version`` is ``None`` where it does not tell."""

    path: str
    version: str | None = None


class Network(msgspec.Struct, frozen=True):
    """What the kernel could do in a sandbox. ``netem_missing`` is why netem does not work, ``None`` where it does."""

    datapath: Literal["system", "netdev"]
    netem_missing: str | None


class Machine(msgspec.Struct, frozen=True):
    """``network`` is what the kernel did in a sandbox, or the reason why there could be none.

    ``tunnels_missing`` is why tenants cannot be built, ``None`` where they can.
    """

    hardware: Hardware
    privileges: Privileges
    network: Network | str
    cgroups: str
    tools: dict[str, Found]
    libraries: dict[str, str]
    wire: str | None
    tunnels_missing: str | None = None


class Choice(msgspec.Struct, frozen=True):
    """Which of its backends a feature uses here, and why."""

    feature: str
    backend: str
    why: str


class Problem(msgspec.Struct, frozen=True):
    """Something missing. Without what is ``fatal`` no scenario runs; otherwise ``what`` says what does not work."""

    what: str
    remedy: str
    fatal: bool


def probe() -> Machine:
    """Look at everything; about half a second, nearly all of it waiting for other programs."""
    with ThreadPoolExecutor() as pool:
        network, tunnels = pool.submit(probe_network), pool.submit(probe_tunnels)
        found = zip(TOOLS, pool.map(_find, TOOLS), strict=True)
        from topologies.wire import find_binary

        return Machine(
            hardware=probe_hardware(),
            privileges=probe_privileges(),
            cgroups=cgroup_version(Path("/proc/self/mountinfo").read_text()),
            libraries=_libraries("mininet", "ryu", "os-ken", "pyroute2", "uvloop"),
            wire=find_binary(),
            tools={tool.name: at for tool, at in found if at is not None},
            network=network.result(),
            tunnels_missing=tunnels.result(),
        )


def probe_hardware() -> Hardware:
    """The part that reads some files and starts nothing."""
    release = platform.freedesktop_os_release()
    return Hardware(
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        cpu=cpu_model(_read("/proc/cpuinfo")) or platform.machine(),
        kernel=platform.release(),
        distribution=release.get("PRETTY_NAME", release["NAME"]),
        virtual=virtualization(
            vendor=_read("/sys/class/dmi/id/sys_vendor"),
            product=_read("/sys/class/dmi/id/product_name"),
            cpuinfo=_read("/proc/cpuinfo"),
            pid_namespace=os.readlink("/proc/self/ns/pid"),
        ),
    )


def probe_network() -> Network | str:
    """What the kernel can do, tried in a sandbox made for that; in words why there can be none."""
    try:
        with Sandbox(_Inside) as sandbox:
            network: Network = sandbox.call_sync("try_everything")
            return network
    except SandboxError as error:
        return str(error)


def probe_tunnels() -> str | None:
    """Why no tenant can be built, tried in a sandbox made for that; ``None`` where one can."""
    try:
        with Sandbox(_Inside) as sandbox:
            missing: str | None = sandbox.call_sync("try_tunnels")
            return missing
    except SandboxError as error:
        return str(error)


class _Inside:
    """Tries, inside a sandbox, what the fabric will ask for there, by the functions with which the fabric asks."""

    def try_everything(self) -> Network:
        from topologies.netem import netem_missing
        from topologies.openvswitch import choose_datapath

        return Network(choose_datapath(), netem_missing())

    def try_tunnels(self) -> str | None:
        from topologies.vtep import tunnels_missing

        return tunnels_missing()


def require(*names: str) -> None:
    """Raise `MissingTool` for those of `TOOLS` that are not installed."""
    missing = [name for name in names if find(name) is None]
    if missing:
        packages = sorted({tool.package for tool in TOOLS if tool.name in missing})
        raise MissingTool(
            f"not installed: {', '.join(missing)}; `make setup` brings it, or: apt install {' '.join(packages)}"
        )


def require_kernel() -> None:
    """Raise `StandInError` where something in user space would stand in for the kernel's datapath or netem.

    Raises `SandboxError` where no sandbox can be made to find out.
    """
    network = probe_network()
    if isinstance(network, str):
        raise SandboxError(network)
    lacking = kernel_lacks(network)
    if lacking:
        raise StandInError(
            f"the kernel's own backends are required: {'; '.join(lacking)}; boot a kernel that has them "
            "(vagrant/README.md, or Debian's linux-image-amd64), or do not require it"
        )


def kernel_lacks(network: Network) -> tuple[str, ...]:
    """What the kernel has no backend of its own for, each in words."""
    lacking = () if network.datapath == "system" else ("the kernel has no openvswitch module",)
    return lacking if network.netem_missing is None else (*lacking, network.netem_missing)


def find(name: str) -> str | None:
    """The path of a program, looked for where the system's own are too."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def choices(machine: Machine) -> tuple[Choice, ...]:
    """What every feature will use, in the order in which a run needs them. Empty where there can be no sandbox."""
    if isinstance(machine.network, str):
        return ()
    user = "root" if machine.privileges.capable else "a user namespace"
    made = [Choice("sandbox", user, "this user may make namespaces" if machine.privileges.capable else "not root")]
    if machine.network.datapath == "system":
        made.append(Choice("datapath", "system", "the kernel has the openvswitch module"))
    else:
        made.append(Choice("datapath", "netdev", "the kernel has no openvswitch module: switches run in user space"))
    made.append(_impairment(machine, machine.network))
    for name in ("ryu", "os-ken"):
        if name in machine.libraries:
            made.append(Choice("controller", name, f"version {machine.libraries[name]}"))
            break
    return tuple(made)


def _impairment(machine: Machine, network: Network) -> Choice:
    if network.netem_missing is None and network.datapath == "system":
        return Choice("impairment", "netem", "the kernel has it")
    why = network.netem_missing or "netem cannot stand behind a switch in user space"
    if machine.wire is None:
        return Choice("impairment", "wire, in Python", f"{why}; it is not compiled, so it is slower and less exact")
    return Choice("impairment", "wire", why)


def problems(machine: Machine) -> tuple[Problem, ...]:
    """Everything missing, the fatal first."""
    chosen = {choice.feature: choice.backend for choice in choices(machine)}
    found = []
    if isinstance(machine.network, str):
        found.append(Problem("no sandbox can be made", machine.network, fatal=True))
    elif chosen["datapath"] == "netdev" or chosen["impairment"] != "netem":
        found += [
            Problem("switches and impairments in user space cannot run", reason, fatal=True)
            for reason in tun_obstacles(machine.privileges)
        ]
    if "ryu" not in machine.libraries:
        found.append(Problem("ryu is not there", "`make setup` installs the Python environment", fatal=True))
    found += [
        Problem(
            f"{tool.name} is not there: {tool.purpose}", f"`make setup`, or apt install {tool.package}", tool.required
        )
        for tool in TOOLS
        if tool.name not in machine.tools
    ]
    if machine.tunnels_missing is not None and not isinstance(machine.network, str):
        remedy = f"{machine.tunnels_missing}; try `modprobe -a vxlan bridge nf_tables`, or another kernel"
        found.append(Problem("there can be no tenants", remedy, fatal=False))
    if machine.wire is None:
        found.append(Problem("splitbrain-wire is not compiled: exact impairments", "`make setup`", fatal=False))
    return tuple(sorted(found, key=lambda problem: not problem.fatal))


def cgroup_version(mountinfo: str) -> str:
    """``v2``, ``v1``, ``hybrid`` (v1, and v2 without controllers) or ``none``, from /proc/self/mountinfo (proc(5))."""
    kinds = {line.partition(" - ")[2].split(" ")[0] for line in mountinfo.splitlines()}
    if {"cgroup", "cgroup2"} <= kinds:
        return "hybrid"
    return "v2" if "cgroup2" in kinds else "v1" if "cgroup" in kinds else "none"


#: What DMI says of a virtual machine, and what people call it. Whoever is not here has a hypervisor flag at best.
_VIRTUAL = {
    "qemu": "qemu",
    "kvm": "kvm",
    "innotek": "virtualbox",
    "virtualbox": "virtualbox",
    "vmware": "vmware",
    "parallels": "parallels",
    "xen": "xen",
    "amazon ec2": "amazon ec2",
    "google compute engine": "google compute engine",
    "microsoft corporation virtual machine": "hyper-v",
}


#: The pid namespace in which a machine boots (linux/proc_ns.h). Whoever is in another is in a container.
_FIRST_PID_NAMESPACE = "pid:[4026531836]"


def virtualization(*, vendor: str, product: str, cpuinfo: str, pid_namespace: str) -> str:
    """What the machine is: ``none`` for bare metal, ``container``, a kind of virtual machine, or just that.

    ``vendor`` and ``product`` are DMI's, ``cpuinfo`` is /proc/cpuinfo, whose flag ``hypervisor`` (x86 only) says that
    there is one and not which. A bare-metal machine of a cloud has its vendor's name and no such flag.
    """
    if pid_namespace != _FIRST_PID_NAMESPACE:
        return "container"
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if flags is not None and "hypervisor" not in flags[1].split():
        return "none"
    named = f"{vendor.strip()} {product.strip()}".lower()
    for words, kind in _VIRTUAL.items():
        if words in named:
            return kind
    return "virtual machine" if flags is not None else "none"


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name; ``None`` where the kernel does not give it (ARM)."""
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return model[1].strip() if model else None


def version_in(text: str) -> str | None:
    """The first thing in a program's greeting that is a version: ``6.1.0`` of ``tc utility, iproute2-6.1.0``."""
    found = re.search(r"(?<![a-z\d.])v?(\d+(?:\.\d+)*)", text, re.IGNORECASE)
    return found[1] if found else None


def _find(tool: Tool) -> Found | None:
    path = find(tool.name)
    if path is None or tool.version_flag is None:
        return Found(path) if path else None
    try:
        said = subprocess.run(
            [path, tool.version_flag], stdout=-1, stderr=subprocess.DEVNULL, text=True, timeout=1, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    return Found(path, version_in(said))


def _libraries(*names: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
