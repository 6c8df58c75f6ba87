"""What these tests ask of a kernel: `make test-kernel` boots one. Where the machine's own has it, they run there."""

from __future__ import annotations

import os

import pytest

from topologies.machine import Network, probe_network

#: Set by `make test-kernel`, whose kernel must have everything, to the folder in which it looks for results.
LANE = "SPLITBRAIN_KERNEL_LANE"

#: The property by which a test hands over a line of the table that is shown at the end.
MEASURED = "measured"


@pytest.fixture(scope="session", autouse=True)
def _kernel_has_netem_and_openvswitch() -> None:
    network = probe_network()
    if network == Network("system", None):
        return
    lacking = network if isinstance(network, str) else network.netem_missing or "the kernel has no openvswitch module"
    if os.environ.get(LANE):
        pytest.fail(f"this kernel was booted for its netem and openvswitch: {lacking}", pytrace=False)
    pytest.skip(f"{lacking}; `make test-kernel` boots a kernel that has it")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Both backends side by side, as docs/benchmarks.md has them."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    lines = [str(line) for report in reports for name, line in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section("netem and the wire")
        for line in (
            "| asked | netem | wire | 93 % interval of the difference | margin |",
            "|---|---|---|---|---|",
            *lines,
        ):
            terminalreporter.line(line)
