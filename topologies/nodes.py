"""Mininet's hosts, switches and links, as faces of what the fabric has already built.

Constructing one of these makes nothing and starts nothing. A node's shell starts when the first command is typed into
it; programs that need no shell (`Node.popen`) start without one.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from topologies import netns, plan
from topologies.vtep import MEMBER_INTERFACE

if TYPE_CHECKING:
    from topologies.fabric import Fabric

__all__ = ["FabricHost", "FabricInterface", "FabricLink", "FabricMember", "FabricSwitch", "Mininet", "Topo"]


class _Version(tuple[int, ...]):
    def __new__(cls, text: str) -> _Version:
        return super().__new__(cls, map(int, text.split(".")))


# Mininet imports all of distutils, gone from Python 3.12, to compare Open vSwitch's version with 1.10. What setuptools
# puts in its place takes half a second to import, longer than everything else here together.
_distutils, _distutils_version = ModuleType("distutils"), ModuleType("distutils.version")
_distutils_version.StrictVersion = _Version  # type: ignore[attr-defined]
_before = {name: sys.modules.get(name) for name in ("distutils", "distutils.version")}
sys.modules.update({"distutils": _distutils, "distutils.version": _distutils_version})
try:
    from mininet.link import Intf, Link
    from mininet.net import Mininet
    from mininet.node import Host, Node, Switch
    from mininet.topo import Topo
finally:
    for _name, _module in _before.items():
        if _module is None:
            del sys.modules[_name]
        else:
            sys.modules[_name] = _module


class _LazyShell(Node):
    """A node whose ``shell`` and ``pid``, its shell's, come to be when they are first asked for."""

    isSetup = True  # noqa: N815 - Mininet's name; its set-up looks for programs this class does without
    _shell: Any = None
    _pid: int | None = None
    _may_start = False

    @property
    def shell(self) -> Any:
        if self._shell is None:
            self.startShell()
        return self._shell

    @shell.setter
    def shell(self, value: Any) -> None:
        self._shell = value

    @property
    def pid(self) -> int | None:
        if self._pid is None:
            self.startShell()
        return self._pid

    @pid.setter
    def pid(self, value: int | None) -> None:
        self._pid = value

    def startShell(self, mnopts: str | None = None) -> None:  # noqa: N802
        """Start the shell, once; Mininet's constructor calls this too, too early."""
        if not self._may_start:
            return
        self._may_start = False
        # Mininet would have mnexec make another namespace for a node that is inNamespace.
        self.inNamespace, in_namespace = False, self.inNamespace
        try:
            super().startShell(mnopts)
        finally:
            self.inNamespace = in_namespace

    def popen(self, *args: Any, **kwargs: Any) -> Any:
        """Mininet's ``popen``: a program in this node's namespace, without its shell."""
        kwargs.setdefault("mncmd", ["mnexec", "-d"])
        # Mininet looks at self.pid here, for a default that is then not used.
        self._may_start, may_start = False, self._may_start
        try:
            return super().popen(*args, **kwargs)
        finally:
            self._may_start = may_start

    def terminate(self) -> None:
        self._may_start = False
        if self._shell is not None:
            super().terminate()

    def __repr__(self) -> str:
        interfaces = ",".join(f"{interface.name}:{interface.IP()}" for interface in self.intfList())
        return f"<{type(self).__name__} {self.name}: {interfaces} pid={self._pid}>"


class FabricHost(_LazyShell, Host):
    """A host of the plan: ``h.cmd("ip a")``, ``h.popen([...])``, ``h.IP()``."""

    def __init__(self, host: plan.Host) -> None:
        super().__init__(host.name, ip=host.address, mac=host.mac, defaultRoute=f"via {host.gateway}")
        self._may_start = True

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        with netns.inside(self.name):
            return super()._popen(cmd, **params)


class FabricMember(_LazyShell, Host):
    """A tenant's member: a host of its own to whoever types commands into it, ``net["h1_blue"].cmd("ip a")``."""

    def __init__(self, member: plan.Member) -> None:
        super().__init__(member.name, ip=member.address, mac=member.mac)
        FabricInterface(MEMBER_INTERFACE, self, 0, host=member)
        self._may_start = True

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        with netns.inside(self.name):
            return super()._popen(cmd, **params)


class FabricSwitch(_LazyShell, Switch):
    """A switch of the plan, a bridge of the sandbox's Open vSwitch; its shell is in the sandbox's own namespace."""

    def __init__(self, switch: plan.Switch, fabric: Fabric) -> None:
        # Said to be in a namespace while Mininet constructs it, so that it does not configure `lo` by a shell.
        super().__init__(switch.name, dpid=f"{switch.datapath_id:x}", inNamespace=True)
        self.inNamespace = False
        self.controlIntf = FabricInterface("lo", self, 0)
        self._fabric = fabric
        self._may_start = True

    def start(self, controllers: Any) -> None:
        """Bring back a switch that was stopped. Its controller is the fabric's; ``controllers`` is not looked at."""
        self._fabric.start_switch(self.name)

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: N803
        """Take the switch out of the fabric; its interfaces stay, and lead nowhere."""
        self._fabric.stop_switch(self.name)

    def connected(self) -> bool:
        """Whether it is connected to its controller."""
        return self._fabric.connected().get(self.name, False)

    def dpctl(self, *args: str) -> Any:
        """``ovs-ofctl``'s answer: ``net["leaf1"].dpctl("dump-flows")``."""
        return self.cmd("ovs-ofctl -O OpenFlow15", args[0], self.name, *args[1:])


class FabricInterface(Intf):
    """An interface that the fabric has configured."""

    def __init__(
        self, name: str, node: Any, port: int, *, link: Any = None, host: plan.Host | plan.Member | None = None
    ) -> None:
        # Mininet would move the interface to where it already is.
        super().__init__(name, node, port, link, mac=host and host.mac, moveIntfFn=lambda *_: None)
        if host is not None:
            self.ip, self.prefixLen = host.address.split("/")

    def config(self, **params: Any) -> dict[str, Any]:
        """Nothing is left to configure."""
        return {}


class FabricLink(Link):
    """A link of the plan; ``name`` is its name there."""

    def __init__(self, link: plan.Link, fabric: Fabric) -> None:
        self.name = link.name
        self.intf1, self.intf2 = (
            FabricInterface(
                end.interface,
                fabric.nameToNode[end.node],
                end.port,
                link=self,
                host=fabric.plan.host(end.node) if end.node in fabric.host_names else None,
            )
            for end in (link.a, link.b)
        )
