"""The first process of a sandbox: ``python -m topologies.supervisor FD``, started by `topologies.sandbox`.

Three processes, each as small as its duty:

- *outside*: this program. It makes the pid namespace (and a user namespace where it needs one), forks pid 1 into it,
  waits for it and goes. It stays out of the other namespaces, so that it can never be what keeps them alive.
- *pid 1*: makes the other namespaces and mounts, forks the worker, and then only watches: when the client's end of the
  socket closes, however the client died, or the worker ends, or *outside* is killed, it exits, and the kernel kills
  every process of the pid namespace, and with the last of them go its network, mounts and devices
  (pid_namespaces(7)). It does nothing that can block, since everything hangs on it.
- *the worker* (`topologies.worker`): an asyncio program that does what the client asks.

A socket pair is what tells of the client's death, since a parent-death signal follows the thread that forked, not the
program, and since a socket's end is closed by the kernel under every kind of death. This file is imported three times a
sandbox, before anything else happens: it imports little.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from topologies.privileges import Privileges, explain_refusal, obstacles, probe
from topologies.rpc import PrivilegeError, SandboxError, encode_error

# linux/sched.h, linux/mount.h, linux/sockios.h, linux/if.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x2000, 0x4000, 0x40000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

#: Where a sandbox's own programs put temporary files: on a tmpfs that goes with it. /tmp stays the user's.
TEMPORARY = "/run/tmp"

#: How much a sandbox goes before other sessions: about three times their share (sched(7), as nice values).
AUTOGROUP_NICE = -5

_libc = ctypes.CDLL(None, use_errno=True)


def main(channel: socket.socket) -> int:
    """Fork pid 1 and return its exit status; 128 + the number of a signal that killed it or its worker."""
    privileges = probe()  # before any namespace is entered: in a user namespace of our own we may do everything
    _go_before_other_sessions()
    try:
        _enter_pid_namespace(privileges)
    except OSError as error:
        _report(channel, error, privileges)
        return 1
    alive, alive_here = os.pipe()
    pid1 = os.fork()
    if pid1 == 0:
        os.close(alive_here)
        _never_return(lambda: _pid1(channel, alive, privileges))
    os.close(alive)
    channel.close()
    return _exit_status(os.waitpid(pid1, 0)[1])


def _go_before_other_sessions() -> None:
    """Have the scheduler favour this session, which is the sandbox's own, over the machine's others.

    Where autogroups are on (sched(7)) all our processes together get no more than one session's share, whatever their
    own nice values; a network and its hosts would then be as slow as what happens to run beside them is busy.
    """
    with suppress(OSError), open("/proc/self/autogroup", "w") as autogroup:  # not there, or not ours to raise
        autogroup.write(str(AUTOGROUP_NICE))


def _enter_pid_namespace(privileges: Privileges) -> None:
    if privileges.capable:
        _unshare(CLONE_NEWPID)
        return
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | CLONE_NEWPID)
    # The one mapping that an ordinary user may write, its groups given up first (user_namespaces(7)).
    for path, text in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"0 {uid} 1"),
        ("/proc/self/gid_map", f"0 {gid} 1"),
    ):
        try:
            with open(path, "w") as file:
                file.write(text)
        except OSError as error:
            error.filename = path  # a failed write does not name its file
            raise


def _pid1(channel: socket.socket, alive: int, privileges: Privileges) -> int:
    try:
        _unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        _mount_own()
        _bring_up_loopback()
        socket.sethostname("splitbrain")
    except OSError as error:
        _report(channel, error, privileges)
        return 1
    worker = os.fork()
    if worker == 0:
        os.close(alive)
        _never_return(lambda: _work(channel))

    child_changed, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poller = select.poll()
    poller.register(child_changed, select.POLLIN)
    # Hang-ups are reported unasked; what can be read on the channel is for the worker.
    poller.register(channel, 0)
    poller.register(alive, 0)
    while True:
        ended = _reap(worker)
        if ended is not None:
            return ended
        for fd, _ in poller.poll():
            if fd != child_changed:
                return 0
            os.read(child_changed, 4096)


def _work(channel: socket.socket) -> int:
    os.environ["TMPDIR"] = TEMPORARY
    # An ordinary user's PATH has no place for ip, tc and ovs-vswitchd on Debian.
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    from topologies.worker import serve

    serve(channel)
    return 0


def _reap(worker: int) -> int | None:
    """Collect every child that ended, orphans of the sandbox too; the worker's exit status when it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == worker:
            return _exit_status(status)


def _mount_own() -> None:
    """Mounts of our own: nothing that is mounted from here on is seen outside."""
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    os.mkdir(TEMPORARY)
    os.chmod(TEMPORARY, 0o1777)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # /sys/class/net shows the network of whoever mounted it: mount it anew, and put the cgroups back into it.
    os.mkdir("/run/cgroup")
    _mount("/sys/fs/cgroup", "/run/cgroup", "", MS_BIND | MS_REC)
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount("/run/cgroup", "/sys/fs/cgroup", "", MS_MOVE)
    os.rmdir("/run/cgroup")


def _bring_up_loopback() -> None:
    request = struct.Struct("16sh14x")  # struct ifreq: a name and, here, its flags (netdevice(7))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _, flags = request.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, request.pack(b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, request.pack(b"lo", flags | IFF_UP))


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise _errno("unshare")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()) != 0:
        raise _errno(f"mount of {source} on {target}")


def _errno(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), call)


def _report(channel: socket.socket, error: OSError, privileges: Privileges) -> None:
    """Answer the client's request 0, its start, with why it cannot be."""
    reason = f"{error.filename}: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES) or obstacles(privileges, tun=False):
        answer: SandboxError = PrivilegeError(f"{explain_refusal(privileges)} ({reason})")
    else:
        answer = SandboxError(f"the kernel does not make a sandbox: {reason}")
    with suppress(OSError):  # the client may be gone by now
        channel.sendall(encode_error(0, answer))


def _never_return(body: Callable[[], int]) -> NoReturn:
    """Run a forked child's part and exit with what it returns; its parent's frames below it are never unwound."""
    status = os.EX_SOFTWARE
    try:
        status = body()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _exit_status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    inherited = int(sys.argv[1])
    os.set_inheritable(inherited, False)
    sys.exit(main(socket.socket(fileno=inherited)))
