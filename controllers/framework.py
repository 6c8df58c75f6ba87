"""Picks the OpenFlow framework, Ryu or its maintained fork os-ken, and makes it fit to import; no other imports them.

The framework is the one whose manager is loading us, else what ``SPLITBRAIN_OPENFLOW`` names, ``ryu`` or ``os_ken``,
else Ryu.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

NAMES = ("ryu", "os_ken")
VARIABLE = "SPLITBRAIN_OPENFLOW"

Handler = TypeVar("Handler", bound=Callable[..., None])


class LibraryError(ImportError):
    """No such framework, or it is not installed; the message says what to do."""


def _pick() -> str:
    for name in NAMES:
        if f"{name}.base.app_manager" in sys.modules:
            return name
    name = os.environ.get(VARIABLE, NAMES[0])
    if name not in NAMES:
        raise LibraryError(f"{VARIABLE} is {name!r}; it can be {' or '.join(NAMES)}")
    return name


def _make_importable() -> None:
    """What Ryu 4.34 needs of a present-day Python environment, and what halves the time its import takes."""
    # Ryu never resolves names; eventlet's own resolver imports all of dnspython (eventlet, "Environment Variables").
    os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")
    if sys.version_info < (3, 12):
        # Ryu compares one version with distutils, and setuptools' copy of that takes longer than all of Ryu's own
        # modules for OpenFlow. Up to Python 3.11 there is the standard library's.
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "_distutils_hack"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventlet announces its retirement on every import
        import eventlet.wsgi
    if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
        eventlet.wsgi.ALREADY_HANDLED = object()  # gone since eventlet 0.30.3; ryu.app.wsgi imports it by name


def _import(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ryu's own sources make newer Pythons warn
            return importlib.import_module(f"{NAME}.{module}")
    except ModuleNotFoundError as error:
        if error.name != NAME:
            raise
        raise LibraryError(
            f"{NAME} is not installed; pip install {NAME.replace('_', '-')}, or set {VARIABLE}"
        ) from None


NAME = _pick()
if NAME == "ryu":
    _make_importable()

hub = _import("lib.hub")
app_manager = _import("base.app_manager")  # before anything of controller/, which imports it in a circle
cfg = _import("cfg")
event = _import("controller.event")
handler = _import("controller.handler")
ofp_event = _import("controller.ofp_event")
ofproto = _import("ofproto.ofproto_v1_5")
parser = _import("ofproto.ofproto_v1_5_parser")

#: The class an application derives from.
App = getattr(app_manager, "RyuApp", None) or app_manager.OSKenApp


def on(event_class: Any, *states: str) -> Callable[[Handler], Handler]:
    """Register a method for an event in these connection states, as `set_ev_cls` does, keeping its type."""
    return cast(Callable[[Handler], Handler], handler.set_ev_cls(event_class, list(states)))


def _bounded(cls: Any, length_at: int, most: int = 0xFFFF) -> None:
    """Hand ``cls.parser`` one structure (its length is the 16-bit number at ``length_at``), at most ``most`` bytes.

    Both libraries' OpenFlow 1.5 parsers take what follows a group, a bucket or a copy-field action for a part of it,
    so that a group of two buckets cannot be read; and a copy-field action forgets the length it was read with.
    """
    parse = cls.parser

    def parse_bounded(buf: bytes, offset: int) -> Any:
        (length,) = struct.unpack_from("!H", buf, offset + length_at)
        parsed = parse(buf[offset : offset + min(length, most)], 0)
        parsed.len = length
        return parsed

    cls.parser = staticmethod(parse_bounded)


_bounded(parser.OFPGroupDescStats, 0)
_bounded(parser.OFPBucket, 0)
_bounded(parser.OFPActionCopyField, 2, 20)  # a head of 12 bytes and two OXM headers; padding follows
