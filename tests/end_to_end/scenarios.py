"""Short scenarios for tests: the shipped ones in small, so that a suite of them fits into minutes."""

from __future__ import annotations

from pathlib import Path

HEAD = """\
# A short run for a test.
name = "{name}"
seed = {seed}
duration = "{duration}"

[topology]
spines = 2
leaves = 3
hosts_per_leaf = 4

[system]
kind = "raft"
nodes = 5
{system}

[workload]
clients = 3
rate = 100
keys = {keys}
timeout = "1s"
{workload}
"""

PARTITION = '[[fault]]\nkind = "partition"\nat = "1s"\nfor = "2s"\ngroups = [["leader"], ["others"]]\n'


def write(
    folder: Path,
    name: str,
    *parts: str,
    seed: int = 1,
    duration: str = "5s",
    system: str = "",
    workload: str = "",
    keys: int = 3,
) -> Path:
    """A scenario file in ``folder`` whose faults and expectations are ``parts``."""
    path = folder / f"{name}.toml"
    head = HEAD.format(name=name, seed=seed, duration=duration, system=system, workload=workload, keys=keys)
    path.write_text("\n".join([head, *parts]))
    return path
