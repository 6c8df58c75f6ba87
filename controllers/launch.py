"""Start the controller in a process of its own: ``python -m controllers.launch --plan plan.json``.

It prints `controllers.status` events, or appends them to ``--status FILE``, and runs until it is killed; the switches
go on without it. A manager of Ryu's kind can load the application too, by its path ``controllers/fabric.py``, with
``SPLITBRAIN_PLAN`` in the environment. Ryu 4.34's own manager does not start beside a current eventlet unless
`controllers.framework` is imported first:

    python -c "import controllers.framework; from ryu.cmd.manager import main; main()" controllers/fabric.py
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from topologies.plan import FabricPlan, PlanError

# sysexits.h
EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_CANTCREAT = 64, 65, 66, 69, 73


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(EX_USAGE, f"{message}; see --help")


def _fail(status: int, message: str) -> NoReturn:
    print(f"controllers.launch: {message}", file=sys.stderr)
    raise SystemExit(status)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address and a port such as 127.0.0.1:6653")
    return host, int(port)


def _bind_error(address: tuple[str, int]) -> OSError | None:
    """Why nobody can listen on ``address`` now: EADDRINUSE once somebody does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error
    return None


def main(argv: list[str] | None = None) -> None:
    parser = _Parser(prog="python -m controllers.launch", description="Program a fabric's switches from its plan.")
    parser.add_argument("--plan", required=True, type=Path, help="the plan, as JSON")
    parser.add_argument(
        "--listen", default="127.0.0.1:6653", type=_address, help="where switches connect [%(default)s]"
    )
    parser.add_argument("--status", type=Path, help="append status events to this file [standard output]")
    parser.add_argument(
        "--northbound", type=_address, help="where to answer HTTP, such as 127.0.0.1:8080 (controllers.northbound)"
    )
    parser.add_argument(
        "--hash",
        choices=("datapath", "fields"),
        default="datapath",
        help="by what flows are spread; on Open vSwitch's kernel datapath fields (controllers.openflow) [%(default)s]",
    )
    parser.add_argument("--framework", choices=("ryu", "os_ken"), default="ryu", help="[%(default)s]")
    arguments = parser.parse_args(argv)

    try:
        FabricPlan.from_json(arguments.plan.read_bytes())
    except OSError as error:
        _fail(EX_NOINPUT, f"cannot read the plan {arguments.plan}: {error.strerror}")
    except PlanError as error:
        _fail(EX_DATAERR, f"{arguments.plan}: {error}")
    if arguments.status:
        try:
            arguments.status.open("a").close()
        except OSError as error:
            _fail(EX_CANTCREAT, f"cannot write the status file {arguments.status}: {error.strerror}")
    for host, port in filter(None, (arguments.listen, arguments.northbound)):
        if refusal := _bind_error((host, port)):
            _fail(EX_UNAVAILABLE, f"cannot listen on {host}:{port}: {refusal.strerror}")
    if arguments.northbound:
        host, port = arguments.northbound
        os.environ["SPLITBRAIN_NORTHBOUND"] = f"{host}:{port}"
    os.environ["SPLITBRAIN_HASH"] = arguments.hash
    run(arguments.plan, arguments.listen, arguments.status, arguments.framework)


def run(plan: Path, listen: tuple[str, int], status: Path | None, framework_name: str) -> None:
    """Load the application and serve switches until the process is ended."""
    os.environ["SPLITBRAIN_PLAN"] = str(plan)
    os.environ["SPLITBRAIN_OPENFLOW"] = framework_name
    if status:
        os.environ["SPLITBRAIN_STATUS"] = str(status)
    gc.disable()  # what is imported stays, so looking through it for garbage, now or later, is time lost
    try:
        from controllers import framework
    except ImportError as error:
        _fail(EX_UNAVAILABLE, str(error))
    from controllers import fabric
    from controllers.status import Listening

    gc.freeze()
    gc.enable()

    host, port = listen
    framework.cfg.CONF(
        args=["--ofp-listen-host", host, "--ofp-tcp-listen-port", str(port)],
        project=framework.NAME,
        default_config_files=[],
    )
    manager = framework.app_manager.AppManager.get_instance()
    manager.load_apps(["controllers.fabric"])  # which brings ofp_handler with it, by the events it asks for
    services = manager.instantiate_apps(**manager.create_contexts())
    while not _bind_error(listen):  # the framework binds in a thread of its own, and does not tell
        framework.hub.sleep(0.001)
    fabric.reporter(os.environ.get(fabric.STATUS))(Listening(time.monotonic_ns(), f"{host}:{port}", framework.NAME))
    with contextlib.suppress(PermissionError):
        # It stands for a machine of its own, which a busy host does not slow down; it mostly waits.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    framework.hub.joinall(services)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
