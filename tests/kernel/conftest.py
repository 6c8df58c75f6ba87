"""What these tests ask of a kernel: `make test-kernel` boots one. Where the machine's own has it, they run there."""

from __future__ import annotations

import os

import pytest

from topologies.machine import Network, probe_network

#: Set by `make test-kernel`, whose kernel must have everything.
LANE = "SPLITBRAIN_KERNEL_LANE"


@pytest.fixture(scope="session", autouse=True)
def _kernel_has_netem_and_openvswitch() -> None:
    network = probe_network()
    if network == Network("system", None):
        return
    lacking = network if isinstance(network, str) else network.netem_missing or "the kernel has no openvswitch module"
    if os.environ.get(LANE):
        pytest.fail(f"this kernel was booted for its netem and openvswitch: {lacking}", pytrace=False)
    pytest.skip(f"{lacking}; `make test-kernel` boots a kernel that has it")
