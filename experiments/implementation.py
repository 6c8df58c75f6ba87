"""A system's own ``implementation``: where its module is looked for, and whether it can be had at all.

It is named in a scenario, ``module:function`` (`apps.runtime.kinds`), and runs in processes that are made long after
the scenario was read. So it is tried once in here, before anything is built.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

import msgspec

from apps.runtime.config import Config, ConfigError
from apps.runtime.kinds import Kind, kind_of
from experiments.scenario import Scenario, ScenarioError, place
from experiments.scenario.reading import line_of
from experiments.stage import configuration

_KEY = "system.implementation"


def _look_in(folders: Iterable[Path]) -> None:
    """Let modules be found in ``folders`` too, in this order: after the standard library's, before installed ones.

    The workers and nodes that this process makes look where it does.
    """
    installed = sysconfig.get_path("purelib")
    place = sys.path.index(installed) if installed in sys.path else len(sys.path)
    sys.path[place:place] = [str(folder) for folder in folders if str(folder) not in sys.path[:place]]


def require_implementation(scenario: Scenario, file: Path | None = None, folders: Iterable[Path] = ()) -> Path | None:
    """Make the process of every node once, if they are not ours; returns the folder in which the module was found.

    It is looked for where the command is run, beside the scenario's ``file`` and in ``folders``. Raises
    `ScenarioError`, naming the file, for a module or function that is not there, or that raises.
    """
    name = scenario.system.implementation
    if not name:
        return None
    beside = dict.fromkeys([Path.cwd(), *([file.parent.resolve()] if file is not None else []), *folders])
    _look_in(beside)
    placement = place(scenario.plan, scenario.system, scenario.workload, scenario.tenant)
    for node in scenario.system.names:
        settings = configuration(scenario, placement, node, 0, scenario.name)
        try:
            kind = kind_of(msgspec.convert({**settings, "data_dir": "", "trace_dir": ""}, Config))
            if not isinstance(kind, Kind):
                raise ConfigError(f"it returned {kind!r}, and not a Kind of apps.runtime.kinds")
            kind.make()
        except (Exception, SystemExit) as error:  # whatever somebody's own module raises
            line = line_of(scenario.toml, _KEY)
            where = f"{file}:{line or 1}: " if file is not None else ""
            raise ScenarioError(f"{where}{_KEY}: {_why(name, error, beside)}") from error
    return _home(name.partition(":")[0])


def _home(module: str) -> Path | None:
    """The folder in which ``module``, or the package around it, lies; None for one without a file."""
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return None
    is_package = Path(file).stem == "__init__"
    return Path(file).resolve().parents[module.count(".") + is_package]


def _why(name: str, error: BaseException, beside: Iterable[Path]) -> str:
    module, _, attribute = name.partition(":")
    cause = error.__cause__ if isinstance(error, ConfigError) and error.__cause__ is not None else error
    if isinstance(cause, ModuleNotFoundError) and cause.name and f"{module}.".startswith(f"{cause.name}."):
        where = " or ".join(map(str, beside))
        return (
            f"there is no module {cause.name!r} for {name!r}, neither installed nor in {where}; put it there, or name "
            "its folder in PYTHONPATH"
        )
    if isinstance(cause, AttributeError) and attribute in str(cause) and module in sys.modules:
        return f"module {module!r} ({_file(module)}) has no function {attribute!r}"
    if isinstance(error, ConfigError) and error.__cause__ is None:
        return f"{name!r} cannot be used: {error}"
    place = traceback.extract_tb(cause.__traceback__)[-1]
    said = f"{type(cause).__name__}: {cause}"
    return f"{name!r} raised {said}, in {place.name} ({place.filename}, line {place.lineno}); correct it there"


def _file(module: str) -> str:
    return getattr(sys.modules[module], "__file__", None) or "without a file"
