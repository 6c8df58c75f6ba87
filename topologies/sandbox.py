"""A sandbox: a service that runs in network, mount, pid, ipc and uts namespaces of its own, and leaves nothing behind.

    async with Sandbox(Service, "argument", out=folder) as sandbox:
        answer = await sandbox.call("method", 1, keyword=2)

`Sandbox` is the client. It may live in any program, threaded, asyncio's or a notebook, since it makes no namespace
itself: it starts `topologies.supervisor` and talks to it over a socket pair. Whatever ends this program closes its end
of that pair, upon which the kernel removes the whole sandbox (see there how).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from topologies.rpc import Kind, PrivilegeError, SandboxError, encode, receive

__all__ = ["PrivilegeError", "Sandbox", "SandboxError"]

logger = logging.getLogger("splitbrain.sandbox")


class Sandbox:
    """Starts ``service(*args)`` inside a sandbox, and calls it from outside.

    ``service`` is a class that can be imported by its name, and so is every function given to `run`: they cross by
    reference. Arguments, results and exceptions cross pickled. What the service and its programs print goes to
    ``out/sandbox.log``, or nowhere without ``out``. With ``on_event``, the service is constructed with one more keyword
    argument, ``emit``, a function of one value which makes ``on_event(value)`` happen here: in the event loop that
    entered ``async with``, else in a thread of the sandbox's own. ``keep_open`` are file descriptors that are
    open inside too, under the same numbers.

    Use it by ``async with`` or ``with``. Entering raises `PrivilegeError` when this user may not make namespaces,
    whatever the service's constructor raised, or `SandboxError`. The sandbox ends when the block does, or the program.
    """

    def __init__(
        self,
        service: type,
        *args: Any,
        out: Path | None = None,
        on_event: Callable[[Any], None] | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self._start_payload = (list(sys.path), _pickled((_importable(service), args, on_event is not None)))
        self._log = None if out is None else out / "sandbox.log"
        self._on_event = on_event
        self._keep_open = tuple(keep_open)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[int, Future[Any]] = {}
        self._ended: str | None = "it was not started"

    def __enter__(self) -> Sandbox:
        try:
            self._start().result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Sandbox:
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.wrap_future(self._start())
        except BaseException:
            await asyncio.to_thread(self.close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """What ``service.method(*args, **kwargs)`` returns, or raises, inside. Cancelling cancels it there too."""
        return await asyncio.wrap_future(self._request(Kind.CALL, (method, args, kwargs)))

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The same for ``function(service, *args, **kwargs)``: any importable function, plain or ``async def``."""
        return await asyncio.wrap_future(self._request(Kind.RUN, (_importable(function), args, kwargs)))

    def call_sync(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """`call` for programs without an event loop; blocks the thread that calls."""
        return self._wait(self._request(Kind.CALL, (method, args, kwargs)))

    def run_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """`run` for programs without an event loop; blocks the thread that calls."""
        return self._wait(self._request(Kind.RUN, (_importable(function), args, kwargs)))

    def close(self) -> None:
        """End the sandbox and wait until its processes are gone. Closing twice is the same as once."""
        with self._lock:
            if self._ended is None:
                self._ended = "it was closed"
        if self._process is None:
            return
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._channel.close()
        self._process.wait()

    def _start(self) -> Future[Any]:
        ours, theirs = socket.socketpair()
        self._channel = ours
        try:
            with theirs, _writable(self._log) as log:
                process = subprocess.Popen(
                    # -P: a random.py in the current directory is not what the supervisor means to import.
                    [sys.executable, "-P", "-m", "topologies.supervisor", str(theirs.fileno())],
                    pass_fds=[theirs.fileno(), *self._keep_open],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        self._process = process
        _started.add(self)
        self._ended = None
        self._numbers = itertools.count()
        answer = self._request(Kind.START, self._start_payload)
        self._reader = threading.Thread(target=self._read, args=(process,), name="sandbox", daemon=True)
        self._reader.start()
        return answer

    def _request(self, kind: Kind, payload: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            frame = encode(kind, number, payload)
            if self._ended is not None:
                raise SandboxError(f"the sandbox does not run: {self._ended}")
            self._pending[number] = future
            with suppress(OSError):  # it has just ended: the reader, who will know why, fails the future
                self._channel.sendall(frame)
        future.add_done_callback(lambda done: self._cancel(number) if done.cancelled() else None)
        return future

    def _cancel(self, number: int) -> None:
        with self._lock, suppress(OSError):
            if self._pending.pop(number, None) is not None:
                self._channel.sendall(encode(Kind.CANCEL, number, None))

    def _wait(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """The reader thread: hand out results, errors and events until the other end is gone."""
        while (frame := receive(self._channel)) is not None:
            kind, number, payload = frame
            try:
                value = pickle.loads(payload)
            except Exception as error:
                kind, value = Kind.ERROR, SandboxError(f"an answer of the sandbox cannot be read: {error}")
            if kind == Kind.EVENT:
                self._deliver(value)
                continue
            future = self._pending.pop(number, None)
            if future is None or not future.set_running_or_notify_cancel():
                continue  # cancelled meanwhile
            if kind == Kind.RESULT:
                future.set_result(value)
            else:
                future.set_exception(value)
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        status = process.wait()
        with self._lock:
            if self._ended is None:
                self._ended = f"its worker {_describe(status)}" + (f"; see {self._log}" if self._log else "")
            left, self._pending = self._pending, {}
        for future in left.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(SandboxError(f"the sandbox has ended: {self._ended}"))

    def _deliver(self, event: Any) -> None:
        assert self._on_event is not None
        try:
            if self._loop is None:
                self._on_event(event)
            else:
                self._loop.call_soon_threadsafe(self._on_event, event)
        except Exception:  # a listener's mistake must not keep the answers from everybody else
            logger.exception("an event of the sandbox could not be delivered")


_started: weakref.WeakSet[Sandbox] = weakref.WeakSet()


def _disown_in_fork() -> None:
    """In a child forked without exec (multiprocessing's): its copy of our end must not outlive us."""
    for sandbox in _started:
        fd = sandbox._channel.detach()
        if fd >= 0:
            os.close(fd)


os.register_at_fork(after_in_child=_disown_in_fork)


def _importable(what: Any) -> Any:
    if getattr(what, "__module__", None) == "__main__" or "<" in getattr(what, "__qualname__", ""):
        name = getattr(what, "__qualname__", what)
        raise SandboxError(
            f"{name} cannot be sent into a sandbox: it must be at the top level of a module, not __main__"
        )
    return what


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _writable(log: Path | None) -> Any:
    try:
        return open(os.devnull if log is None else log, "ab")
    except OSError as error:
        raise SandboxError(f"{log} cannot be written: {error.strerror}") from error


def _describe(status: int) -> str:
    """An exit status of the supervisor (`topologies.supervisor.main`, or ``Popen.returncode``) in words."""
    number = -status if status < 0 else status - 128
    if number > 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(number).name}"
    return f"exited with status {status}"
