"""The simulator's inner modules as machine code, where they were built: the same source, a third faster.

Set-up builds them with mypyc (`build`), into a folder that is named by what they were made of: a source that has
changed since is not found there, and runs as it is. Both ways give the same bytes; ``SPLITBRAIN_PURE=1`` asks for the
sources.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PACKAGE = "experiments/simulation"

#: What is compiled: the modules that most of the simulator's own time is spent in.
MODULES = tuple(f"{_PACKAGE}/{name}.py" for name in ("disk", "driver", "kernel", "lane", "network", "recording"))


def sources() -> list[str]:
    """What machine code depends on: the modules, the types that are built into them, and how they are built."""
    return [*MODULES, "apps/process.py", f"{_PACKAGE}/compiled.py"]


def folder() -> Path:
    """Where the present sources are, compiled for the running interpreter, if they are."""
    digest = hashlib.sha256(str(sysconfig.get_config_var("SOABI")).encode())
    for name in sources():
        digest.update((ROOT / name).read_bytes())
    return Path(sys.prefix) / "splitbrain-compiled" / digest.hexdigest()[:16]


def path() -> list[str]:
    """Where the package is to look for its modules before it looks at the sources."""
    built = folder()
    if os.environ.get("SPLITBRAIN_PURE") or not built.is_dir():
        return []
    sys.path.append(str(built))  # what the modules share lies there
    return [str(built / _PACKAGE)]


def build() -> None:
    """Compile into `folder`, and remove what was compiled before. Raises what mypyc and the compiler raise."""
    import shutil
    import tempfile

    from mypyc.build import mypycify
    from setuptools import Distribution  # type: ignore[import-untyped]

    target = folder()
    target.parent.mkdir(exist_ok=True)
    stale = list(target.parent.iterdir())
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        extensions = mypycify(
            [f"--cache-dir={scratch}/cache", *MODULES],
            opt_level="2",
            debug_level="0",
            target_dir=f"{scratch}/c",
            group_name="splitbrain_simulation",
        )
        command = Distribution({"name": "splitbrain", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = f"{scratch}/lib", f"{scratch}/temp"
        command.ensure_finalized()
        command.run()
        Path(scratch, "lib").rename(target)  # whole, or not at all
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
