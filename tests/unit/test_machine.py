"""From what a machine has follows what is used and what is missing."""

from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from experiments.doctor import render, what_machine
from topologies.machine import (
    TOOLS,
    Found,
    Hardware,
    Machine,
    MissingTool,
    Network,
    cgroup_version,
    choices,
    cpu_model,
    kernel_lacks,
    problems,
    require,
    version_in,
    virtualization,
)
from topologies.privileges import Privileges, explain_refusal, obstacles

ROOT = Privileges(
    root=True,
    capable=True,
    user_namespaces_max=1000,
    userns_clone=None,
    apparmor_restricts=None,
    tun=True,
    tun_exists=True,
)
USER = ROOT._replace(root=False, capable=False)

COMPLETE = Machine(
    hardware=Hardware(2, 8 << 30, "A processor", "6.8.0", "Debian", "kvm"),
    privileges=ROOT,
    network=Network("system", None),
    cgroups="v2",
    tools={tool.name: Found(f"/usr/bin/{tool.name}", "1.0") for tool in TOOLS},
    libraries={"python": "3.11.2", "ryu": "4.34", "os-ken": "4.2.2"},
    wire="/here/splitbrain-wire",
)

privileges = st.builds(
    Privileges,
    root=st.booleans(),
    capable=st.booleans(),
    user_namespaces_max=st.sampled_from([None, 0, 1000]),
    userns_clone=st.sampled_from([None, 0, 1]),
    apparmor_restricts=st.sampled_from([None, 0, 1]),
    tun=st.booleans(),
    tun_exists=st.booleans(),
)
machines = st.builds(
    Machine,
    hardware=st.just(COMPLETE.hardware),
    privileges=privileges,
    network=st.sampled_from([Network("system", None), Network("netdev", None), Network("netdev", "none"), "refused"]),
    cgroups=st.just("v2"),
    tools=st.sets(st.sampled_from(sorted(COMPLETE.tools))).map(lambda some: {n: Found(f"/{n}") for n in some}),
    libraries=st.sets(st.sampled_from(["ryu", "os-ken"])).map(lambda some: dict.fromkeys(sorted(some), "1")),
    wire=st.sampled_from([None, "/here/splitbrain-wire"]),
)


def chosen(machine: Machine) -> dict[str, str]:
    return {choice.feature: choice.backend for choice in choices(machine)}


def test_a_kernel_without_tunnels_can_have_no_tenants_and_all_else() -> None:
    refused = "the kernel refused VXLAN device vxlan1: Operation not supported"
    (problem,) = problems(msgspec.structs.replace(COMPLETE, tunnels_missing=refused))
    assert (problem.what, problem.fatal) == ("there can be no tenants", False)
    assert refused in problem.remedy
    assert "modprobe" in problem.remedy


def test_a_machine_with_everything_has_no_problem_and_uses_the_kernel() -> None:
    assert problems(COMPLETE) == ()
    assert chosen(COMPLETE) == {"sandbox": "root", "datapath": "system", "impairment": "netem", "controller": "ryu"}


def test_without_the_openvswitch_module_switches_and_impairments_are_in_user_space() -> None:
    machine = msgspec.structs.replace(COMPLETE, network=Network("netdev", None))
    assert chosen(machine)["datapath"] == "netdev"
    assert chosen(machine)["impairment"] == "wire"


def test_without_netem_the_wire_stands_in_and_python_for_the_wire() -> None:
    machine = msgspec.structs.replace(COMPLETE, network=Network("system", "no netem"))
    assert chosen(machine)["impairment"] == "wire"
    assert chosen(msgspec.structs.replace(machine, wire=None))["impairment"] == "wire, in Python"


def test_tun_matters_only_where_something_runs_in_user_space() -> None:
    machine = msgspec.structs.replace(COMPLETE, privileges=ROOT._replace(tun=False))
    assert problems(machine) == ()
    [problem] = problems(msgspec.structs.replace(machine, network=Network("netdev", None)))
    assert problem.fatal
    assert "chmod 0666 /dev/net/tun" in problem.remedy


@given(machines)
def test_every_problem_names_a_remedy_and_the_fatal_ones_come_first(machine: Machine) -> None:
    found = problems(machine)
    assert all(problem.what and problem.remedy for problem in found)
    assert [problem.fatal for problem in found] == sorted((problem.fatal for problem in found), reverse=True)


@given(machines)
def test_a_machine_is_unfit_exactly_when_a_scenario_could_not_run(machine: Machine) -> None:
    network = machine.network
    runs = (
        isinstance(network, Network)
        and "ryu" in machine.libraries
        and {"ovs-vswitchd", "ovsdb-server", "ip", "tc"} <= machine.tools.keys()
        and (network == Network("system", None) or (machine.privileges.tun and machine.privileges.tun_exists))
    )
    assert runs != any(problem.fatal for problem in problems(machine))


@settings(deadline=None)
@given(machines)
def test_the_page_says_every_problem_and_every_choice(machine: Machine) -> None:
    page = io.StringIO()
    Console(file=page, width=400).print(render(machine))
    for problem in problems(machine):
        assert problem.what in page.getvalue()
        assert problem.remedy in page.getvalue()
    for choice in choices(machine):
        assert f"{choice.feature} " in page.getvalue()
        assert choice.why in page.getvalue()
    assert ("✘" in page.getvalue()) == any(problem.fatal for problem in problems(machine))


@given(privileges)
def test_who_has_the_capabilities_has_no_obstacle_to_namespaces(rights: Privileges) -> None:
    assert obstacles(rights._replace(capable=True), tun=False) == ()


@pytest.mark.parametrize(
    ("rights", "remedy"),
    [
        (USER._replace(user_namespaces_max=0), "sysctl user.max_user_namespaces"),
        (USER._replace(userns_clone=0), "sysctl kernel.unprivileged_userns_clone=1"),
        (USER._replace(apparmor_restricts=1), "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        (USER, "sudo"),
        (ROOT._replace(capable=False), "--privileged"),
    ],
)
def test_a_refusal_names_the_switch_that_is_off(rights: Privileges, remedy: str) -> None:
    assert remedy in explain_refusal(rights)


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topologies.machine.find", lambda name: None if name in ("tc", "iperf3") else f"/{name}")
    with pytest.raises(MissingTool, match=r"iperf3, tc; .*apt install iperf3 iproute2"):
        require("ip", "iperf3", "tc")
    require("ip")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("ovs-vswitchd (Open vSwitch) 3.1.0\n", "3.1.0"),
        ("tc utility, iproute2-6.1.0, libbpf 1.1.2\n", "6.1.0"),
        ("nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
        ("ping from iputils 20221126\n", "20221126"),
        ("iperf 3.12 (cJSON 1.7.15)\nLinux", "3.12"),
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"),
        ("", None),
    ],
)
def test_versions_are_found_in_what_programs_say(said: str, version: str | None) -> None:
    assert version_in(said) == version


@pytest.mark.parametrize(
    ("vendor", "product", "flags", "namespace", "kind"),
    [
        ("Dell Inc.", "PowerEdge", "fpu vme", "pid:[4026531836]", "none"),
        ("Amazon EC2", "m5.metal", "fpu vme", "pid:[4026531836]", "none"),
        ("Amazon EC2", "m5.large", "fpu hypervisor", "pid:[4026531836]", "amazon ec2"),
        ("QEMU", "Standard PC", "hypervisor", "pid:[4026531836]", "qemu"),
        ("innotek GmbH", "VirtualBox", "hypervisor", "pid:[4026531836]", "virtualbox"),
        ("Microsoft Corporation", "Virtual Machine", "hypervisor", "pid:[4026531836]", "hyper-v"),
        ("", "", "hypervisor", "pid:[4026531836]", "virtual machine"),
        ("QEMU", "Standard PC", "hypervisor", "pid:[4026532000]", "container"),
    ],
)
def test_what_a_machine_runs_on(vendor: str, product: str, flags: str, namespace: str, kind: str) -> None:
    cpuinfo = f"processor\t: 0\nmodel name\t: A processor\nflags\t\t: {flags}\n"
    assert virtualization(vendor=vendor, product=product, cpuinfo=cpuinfo, pid_namespace=namespace) == kind
    assert cpu_model(cpuinfo) == "A processor"


def test_a_machine_without_x86_flags_is_told_by_its_vendor_alone() -> None:
    arm = {"cpuinfo": "processor\t: 0\n", "pid_namespace": "pid:[4026531836]"}
    assert virtualization(vendor="QEMU", product="", **arm) == "qemu"
    assert virtualization(vendor="", product="", **arm) == "none"


@pytest.mark.parametrize(
    ("kinds", "version"),
    [(["ext4"], "none"), (["cgroup2"], "v2"), (["cgroup"], "v1"), (["cgroup", "cgroup2", "proc"], "hybrid")],
)
def test_which_cgroups_are_mounted(kinds: list[str], version: str) -> None:
    mountinfo = "".join(f"36 35 98:0 / /mnt rw,noatime shared:1 - {kind} source rw\n" for kind in kinds)
    assert cgroup_version(mountinfo) == version


@given(machines)
def test_a_kernel_lacks_nothing_exactly_where_nothing_stands_in_for_it(machine: Machine) -> None:
    if isinstance(machine.network, str):
        return
    used = {choice.feature: choice.backend for choice in choices(machine)}
    assert (kernel_lacks(machine.network) == ()) == (used["datapath"] == "system" and used["impairment"] == "netem")


@pytest.mark.parametrize(
    ("virtual", "cpu", "told"),
    [
        ("none", "A processor", "bare metal"),
        ("container", "A processor", "a container"),
        ("kvm", "A processor", "a virtual machine: late when its host is busy"),
        ("qemu", "QEMU TCG CPU version 2.5+", "processor is emulated"),
    ],
)
def test_the_doctor_tells_a_virtual_machine_from_a_bare_one_and_what_follows(virtual: str, cpu: str, told: str) -> None:
    hardware = msgspec.structs.replace(COMPLETE.hardware, virtual=virtual, cpu=cpu)
    assert told in what_machine(hardware)
    page = io.StringIO()
    Console(file=page, width=400).print(render(msgspec.structs.replace(COMPLETE, hardware=hardware)))
    assert what_machine(hardware) in page.getvalue()
