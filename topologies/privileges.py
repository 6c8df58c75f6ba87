"""What this user may do here that a sandbox needs, and what to do about what is missing.

A sandbox needs CAP_SYS_ADMIN and CAP_NET_ADMIN, or else a user namespace in which it has them. Linux has several
switches that forbid the latter; each is looked at by name, so that the message can name it too.
"""

from __future__ import annotations

import os
from typing import NamedTuple

#: Bits of the effective capability set (capabilities(7), linux/capability.h).
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21

TUN = "/dev/net/tun"


class Privileges(NamedTuple):
    """What decides it; a tuple, not a msgspec struct, because every start of a sandbox waits for this import.

    ``user_namespaces_max`` is ``user.max_user_namespaces``; the next two are sysctls some distributions add
    (``None``: not there): Debian's former ``kernel.unprivileged_userns_clone`` and Ubuntu's
    ``kernel.apparmor_restrict_unprivileged_userns``. ``tun`` is whether this user may open `TUN` to read and write.
    """

    root: bool
    capable: bool
    user_namespaces_max: int | None
    userns_clone: int | None
    apparmor_restricts: int | None
    tun: bool
    tun_exists: bool


def probe() -> Privileges:
    """Read it all from this process and the kernel's switches."""
    effective = 0
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                effective = int(line.split()[1], 16)
    needed = 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN
    return Privileges(
        root=os.geteuid() == 0,
        capable=effective & needed == needed,
        user_namespaces_max=_switch("user/max_user_namespaces"),
        userns_clone=_switch("kernel/unprivileged_userns_clone"),
        apparmor_restricts=_switch("kernel/apparmor_restrict_unprivileged_userns"),
        tun=os.access(TUN, os.R_OK | os.W_OK),
        tun_exists=os.path.exists(TUN),
    )


def obstacles(privileges: Privileges, *, tun: bool) -> tuple[str, ...]:
    """Every reason why a sandbox cannot be made, each with its remedy; with ``tun``, one that needs TAP devices too."""
    return _namespaces(privileges) + (tun_obstacles(privileges) if tun else ())


def explain_refusal(privileges: Privileges) -> str:
    """What to tell a user to whom the kernel refused a namespace, whatever `obstacles` could foresee."""
    known = _namespaces(privileges)
    if known:
        return "; ".join(known)
    if privileges.root:
        return (
            "root is not allowed to make namespaces here (a container without CAP_SYS_ADMIN?): "
            "start the container with --privileged"
        )
    return "this user is not allowed to make namespaces here: run as root (sudo)"


def _namespaces(privileges: Privileges) -> tuple[str, ...]:
    if privileges.capable:
        return ()
    found = []
    if privileges.user_namespaces_max == 0:
        found.append("user namespaces are off: run as root, or `sudo sysctl user.max_user_namespaces=10000`")
    if privileges.userns_clone == 0:
        found.append(
            "user namespaces are root's alone: run as root, or `sudo sysctl kernel.unprivileged_userns_clone=1`"
        )
    if privileges.apparmor_restricts:
        found.append(
            "AppArmor takes the rights from user namespaces: run as root, or "
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    return tuple(found)


def tun_obstacles(privileges: Privileges) -> tuple[str, ...]:
    """Why no TAP device can be had, which switches and impairments in user space need; with the remedy."""
    if not privileges.tun_exists:
        return (f"{TUN} is not there: `sudo modprobe tun`",)
    if not privileges.tun:
        return (f"{TUN} may not be opened by this user: run as root, or `sudo chmod 0666 {TUN}`",)
    return ()


def _switch(path: str) -> int | None:
    try:
        with open(f"/proc/sys/{path}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
