"""What every world is to those who play a scenario in it, and how its processes are configured.

`experiments.emulation.world` is one on a real fabric, `experiments.simulation` one in virtual time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, TypedDict

from experiments.scenario import Scenario
from experiments.strikes import World

#: Where nodes listen, each in a host of its own.
PORT = 7000


class WorldError(RuntimeError):
    """The world could not be built, or something in it died that nobody killed; the message says what and where.

    ``status`` is what the process that died ended with, None where none did.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Death(TypedDict):
    """A node that ended by itself while the workload ran: a finding. ``t``: nanoseconds of the world's clock."""

    node: str
    t: int
    status: int
    said: str


class Stage(World, Protocol):
    """A world that can be played in. Entered, it has everything running and gives what belongs into the manifest.

    ``clock()`` is its monotonic time in nanoseconds; asyncio's sleep passes the same time. ``settle`` waits for a
    leader, and returns what was measured of the impairments to come. ``check`` raises `WorldError` if something died
    that nobody killed.
    """

    async def __aenter__(self) -> dict[str, Any]: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def clock(self) -> int: ...
    def check(self) -> None: ...
    async def settle(self) -> dict[str, Any]: ...
    async def start_workload(self, epoch: int) -> None: ...
    async def stop_workload(self) -> None: ...
    def fidelity(self) -> dict[str, Any]: ...
    def deaths(self) -> list[Death]: ...


def configuration(
    scenario: Scenario,
    placement: Mapping[str, str],
    name: str,
    incarnation: int,
    cluster: str,
    process: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `apps.runtime.config` reads, for a node or client; all but the folders it may write to.

    ``process``: what runs under a name that the scenario does not know.
    """
    system, workload = scenario.system, scenario.workload

    def address(node: str) -> str:
        return f"{scenario.endpoint(placement[node]).ip}:{PORT}"

    is_node = name in system.names
    return {
        "node": name,
        "cluster": cluster,
        "incarnation": incarnation,
        "listen": address(name) if is_node else None,
        "peers": {node: address(node) for node in system.names},
        "seed": scenario.seed,
        "silence": system.silence,
        "process": process or (system.process() if is_node else workload.process(name, system)),
    }
