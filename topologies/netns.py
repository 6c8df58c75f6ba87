"""Network namespaces by name, without a process in them.

A namespace is kept by a bind mount of its file under `DIRECTORY`, where iproute2 looks for names too, so
``ip netns exec h1 …`` works. ``setns`` and ``unshare`` move the calling thread and no other: everything here leaves the
thread where it was, and nothing may be awaited in between.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DIRECTORY = Path("/run/netns")

_OF_THIS_THREAD = "/proc/thread-self/ns/net"
_CLONE_NEWNET, _MS_BIND, _MNT_DETACH = 0x40000000, 0x1000, 0x2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def created(name: str) -> Iterator[None]:
    """Make the namespace ``name`` and be in it for the block. It stays until `remove`. Raises OSError."""
    path = _path(name)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    with _back_afterwards():
        _check(_libc.unshare(_CLONE_NEWNET), f"unshare for {name}")
        _check(_libc.mount(_OF_THIS_THREAD.encode(), os.fsencode(path), b"none", ctypes.c_ulong(_MS_BIND), None), path)
        yield


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Be in the namespace ``name`` for the block: sockets opened, programs started there stay in it. Raises OSError."""
    with opened(name) as there, _back_afterwards():
        _check(_libc.setns(there, _CLONE_NEWNET), name)
        yield


@contextmanager
def opened(name: str) -> Iterator[int]:
    """An open file of the namespace ``name``, by which netlink puts an interface there. Raises OSError."""
    there = os.open(_path(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield there
    finally:
        os.close(there)


def remove(name: str) -> None:
    """Forget the name; the namespace goes with its last process and socket. Raises OSError for what is no name."""
    path = _path(name)
    _libc.umount2(os.fsencode(path), _MNT_DETACH)
    with suppress(FileNotFoundError):
        path.unlink()


def _path(name: str) -> Path:
    """Names come from plans, and plans from files: none may lead elsewhere."""
    if "/" in name or name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "no name of a network namespace", name)
    return DIRECTORY / name


@contextmanager
def _back_afterwards() -> Iterator[None]:
    here = os.open(_OF_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _check(_libc.setns(here, _CLONE_NEWNET), "setns back")
        os.close(here)


def _check(result: int, about: str | Path) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(about))
