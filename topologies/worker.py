"""The worker of a sandbox: constructs a service and calls its methods as the client asks, several at once.

It runs asyncio in one thread: ``setns`` and ``unshare`` move one thread only, so a service that enters namespaces can
rely on there being no other. A plain method holds everything else up while it runs; an ``async def`` one does not.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from topologies.rpc import HEADER, Kind, SandboxError, encode, encode_error


def serve(channel: socket.socket) -> None:
    """Answer requests on ``channel`` until its other end is closed."""
    if sys.version_info < (3, 12):
        # The default of 3.11 starts a thread for every child process.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(_serve(channel))


async def _serve(channel: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=channel)
    service: Any = None
    running: dict[int, asyncio.Task[None]] = {}

    def emit(event: Any) -> None:
        writer.write(encode(Kind.EVENT, 0, event))

    async def finish(number: int, outcome: Any) -> None:
        try:
            writer.write(_result(number, await outcome))
        except asyncio.CancelledError:
            writer.write(encode_error(number, SandboxError("it was cancelled inside the sandbox")))
        except Exception as error:
            writer.write(_error(number, error))
        finally:
            del running[number]

    while True:
        try:
            length, kind, number = HEADER.unpack(await reader.readexactly(HEADER.size))
            payload = await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        if kind == Kind.CANCEL:
            if number in running:
                running[number].cancel()
            continue
        try:
            if kind == Kind.START:
                service = _construct(payload, emit)
                outcome = None
            else:
                outcome = _begin(service, kind, payload)
            if inspect.isawaitable(outcome):
                running[number] = asyncio.ensure_future(finish(number, outcome))
            else:
                writer.write(_result(number, outcome))
        except Exception as error:
            writer.write(_error(number, error))


def _construct(payload: bytes, emit: Callable[[Any], None]) -> Any:
    # Where the client finds its modules, so that what it names by reference is found here too.
    sys.path[:], pickled = pickle.loads(payload)
    service, args, wants_events = pickle.loads(pickled)
    return service(*args, emit=emit) if wants_events else service(*args)


def _begin(service: Any, kind: int, payload: bytes) -> Any:
    what, args, kwargs = pickle.loads(payload)
    return what(service, *args, **kwargs) if kind == Kind.RUN else getattr(service, what)(*args, **kwargs)


def _result(number: int, value: Any) -> bytes:
    try:
        return encode(Kind.RESULT, number, value)
    except Exception as error:
        raise SandboxError(f"a result of type {type(value).__name__} cannot leave the sandbox: {error}") from error


def _error(number: int, error: Exception) -> bytes:
    """The answer for the user; the traceback is for the log."""
    with suppress(OSError):  # a full disk must not keep the answer from the client
        traceback.print_exception(error)
        sys.stderr.flush()
    return encode_error(number, error)
