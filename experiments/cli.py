"""The ``splitbrain`` command: reads what a person typed, calls the rooms, and turns every error into one clear message.

Exit status: 0 valid, 1 a promise was broken, 2 unknown or not to be believed; 64 and above as in sysexits(3).
"""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from experiments.scenario import Scenario
    from topologies.plan import FabricPlan

USAGE, DATA, NO_INPUT, UNAVAILABLE, SOFTWARE, OS_ERROR, CANNOT_CREATE, IO_ERROR, NO_PERMISSION = (
    64, 65, 66, 69, 70, 71, 73, 74, 77,
)  # fmt: skip

#: Typer carries a click of its own and does not export this class, the base of all that a wrong command line raises.
UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Break the network under a distributed system, and see what its clients saw.",
)

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

#: As in `experiments.run`, which is too heavy to import before it is needed.
WorldName = Literal["emulated", "simulated"]

#: As in `experiments.scenario`, likewise.
DataplaneName = Literal["ovs", "routed"]
RequirementName = Literal["kernel"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
RandomFaults = Annotated[
    bool, typer.Option("--random-faults", help="Break what each seed draws, instead of the scenario's own faults.")
]


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, which backend each feature will use, and what to install."""
    from experiments.doctor import doctor as diagnose

    raise typer.Exit(diagnose(as_json))


@app.command("list")
def list_scenarios(as_json: AsJson = False) -> None:
    """List the scenarios that come with splitbrain."""
    from rich.table import Table

    from experiments.plans import SCENARIOS
    from experiments.scenario import load

    scenarios = [load(path) for path in sorted(SCENARIOS.glob("*.toml"))]
    if as_json:
        _print_json([{"name": scenario.name, "description": scenario.description} for scenario in scenarios])
        return
    table = Table.grid(padding=(0, 2))
    for scenario in scenarios:
        question = scenario.description.partition("?")[0] + "?"
        table.add_row(f"[bold]{scenario.name}[/]", f"{scenario.duration / 1e9:.0f} s", question)
    console.print(table)


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="The name of a shipped scenario, or a TOML file.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Play it this many times, each with the next seed.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Use this seed instead of the scenario's.")] = None,
    out: Annotated[Path, typer.Option(help="The folder that runs are put into.")] = Path("runs"),
    world: Annotated[
        WorldName, typer.Option(help="Where it plays: on the real fabric, or simulated, in virtual time.")
    ] = "emulated",
    dataplane: Annotated[
        DataplaneName | None, typer.Option(help="What forwards, whatever the scenario says: to compare the two.")
    ] = None,
    require: Annotated[
        RequirementName | None, typer.Option(help="Refuse to run where something would stand in for the kernel's own.")
    ] = None,
    time_scale: Annotated[
        float | None, typer.Option(min=0.01, help="Stretch every duration and timeout this many times: a slow machine.")
    ] = None,
    random_faults: RandomFaults = False,
    pcap: Annotated[
        list[str] | None, typer.Option(metavar="LINK", help="Capture this link or direction; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a scenario, on the real fabric unless told otherwise, check what its clients saw, and write a report."""
    from experiments.plans import on_dataplane
    from experiments.run import strikes_of
    from experiments.scenario import stretched
    from experiments.simulation.random_faults import with_random_faults

    asked = _loaded(scenario)
    if time_scale is not None:
        asked = stretched(asked, time_scale)
    if dataplane is not None:
        asked = msgspec.structs.replace(asked, plan=on_dataplane(asked.plan, dataplane))
    if require is not None:
        asked = msgspec.structs.replace(asked, requires=(require,))
    if pcap:
        asked = _capturing(asked, pcap, world)
    seeded = _seeded(asked if seed is None else asked.with_seed(seed), count)
    if random_faults:
        seeded = [with_random_faults(one, possible=strikes_of(world)) for one in seeded]
    _play(seeded, out, world, as_json)


@app.command()
def rerun(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Play it this many times, each with the next seed.")] = 1,
    out: Annotated[Path, typer.Option(help="The folder that runs are put into.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Play an earlier run again, from its manifest: the same fabric, system, workload, faults and seed."""
    from experiments.run import recorded

    asked, world = recorded(folder)
    _play(_seeded(asked, count), out, world, as_json)


def _seeded(scenario: Scenario, count: int) -> list[Scenario]:
    """The scenario with its seed and those that follow, ``count`` in all."""
    return [scenario.with_seed(scenario.seed + number) for number in range(count)]


def _play(scenarios: Sequence[Scenario], out: Path, world: WorldName, as_json: bool) -> None:
    """Play one after another, tell of each, and exit as the worst of them says."""
    from experiments.narrator import Narrator, show_verdict
    from experiments.run import play

    command = shlex.join(["splitbrain", *sys.argv[1:]])
    outcomes: list[dict[str, Any]] = []
    for asked in scenarios:
        title = f"{asked.name}  seed {asked.seed}"
        said = errors if as_json else console
        with Narrator(said, title, asked.duration, virtual=world == "simulated") as narrator:
            played = play(asked, out, command, narrator, world)
        outcomes.append({"run": str(played.path), "seed": asked.seed, **msgspec.to_builtins(played.results)})
        if not as_json:
            if len(scenarios) > 1:
                console.print(f"[bold]{title}[/]")
            show_verdict(console, played.results, _relative(played.report))
    if as_json:
        _print_json(outcomes[0] if len(scenarios) == 1 else outcomes)
    raise typer.Exit(_worst(outcome["exit_status"] for outcome in outcomes))


@app.command()
def simulate(
    scenario: Annotated[str, typer.Argument(help="The name of a shipped scenario, or a TOML file.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to play, over all cores.")] = 100,
    first: Annotated[
        int | None, typer.Option("--from", min=0, help="The first seed; the scenario's own if not given.")
    ] = None,
    random_faults: RandomFaults = False,
    small: Annotated[
        Path | None, typer.Option("--shrink", metavar="FILE", help="Write the first failing seed there, made small.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Play the first seed only, and show all evidence of it.")
    ] = False,
    until: Annotated[
        str | None, typer.Option(help="Play the first seed only, up to this time of the scenario, such as 6.5s.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the outcomes there; what is there already is not played again."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a scenario in virtual time with very many seeds, and tell which fail and how long things take."""
    from experiments.simulation.command import replay
    from experiments.simulation.command import simulate as play_all
    from topologies.units import UnitError, parse_duration

    asked = _loaded(scenario)
    start = asked.seed if first is None else first
    if trace or until is not None:
        try:
            moment = None if until is None else parse_duration(until)
        except UnitError as error:
            raise typer.BadParameter(str(error), param_hint="--until") from None
        raise typer.Exit(replay(console, asked, start, random_faults, moment, trace, as_json))
    said = errors if as_json else console
    raise typer.Exit(play_all(said, asked, start, seeds, random_faults, as_json, small, out))


@app.command()
def check(
    history: Annotated[Path, typer.Argument(help="A history (.jsonl or .edn, Jepsen's format) or a run's folder.")],
    ignore_torn_tail: Annotated[
        bool, typer.Option("--ignore-torn-tail", help="Leave out a last line that is cut off, as after a crash.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a recorded history, or judge the folder of an earlier run again."""
    from experiments.checking.check import check_path
    from experiments.narrator import show_verdict

    results = check_path(history, ignore_torn_tail)
    if as_json:
        _print_json(msgspec.to_builtins(results))
    else:
        show_verdict(console, results, None)
    raise typer.Exit(results.exit_status)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    as_json: AsJson = False,
) -> None:
    """Write the report of a run anew, from what its folder holds."""
    from experiments.report import write_report

    written = write_report(folder)
    _print_json({"report": str(written)}) if as_json else console.print(_relative(written), soft_wrap=True)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The folder of a run.")],
    b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The folder of another.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page into this file, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put two runs side by side: whether they came to the same verdict, where they differ, and what explains it."""
    from experiments.compare import compare as contrast
    from experiments.compare import page, show

    found = contrast(a, b)
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
    _print_json(msgspec.to_builtins(found)) if as_json else show(console, found)
    raise typer.Exit(found.exit_status)


@app.command()
def topo(
    fabric: Annotated[str, typer.Argument(help="leaf-spine,2,3,4, a scenario's name or file, or a plan's .json.")],
    svg: Annotated[Path | None, typer.Option(metavar="OUT", help="Draw it into this file; - is the output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a fabric as planned, without building it: as a table of its links, as a drawing, or as its plan in JSON."""
    from experiments.plans import named_fabric
    from experiments.report.picture import picture

    plan, placement = named_fabric(fabric)
    if as_json:
        _print_json(msgspec.to_builtins(plan))
    if svg == Path("-"):
        sys.stdout.write(picture(plan, placement))
    elif svg is not None:
        svg.write_text(picture(plan, placement), encoding="utf-8")
    if svg is None and not as_json:
        _print_plan(plan)


@app.command()
def calibrate(
    fabric: Annotated[
        str | None, typer.Argument(metavar="[FABRIC]", help="leaf-spine,2,3,4, or a scenario's name or file.")
    ] = None,
    impairments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMPAIRMENT]...", help='More than the scenario has: "leaf1>spine1 delay=20ms loss=1%".'
        ),
    ] = None,
    lasting: Annotated[str, typer.Option("--for", help="How long each is measured.")] = "2s",
    as_json: AsJson = False,
) -> None:
    """Measure what links really do when they are asked for delay, jitter, loss or a rate, with confidence intervals."""
    from experiments.bench import machine
    from experiments.calibrate import calibrate as measure
    from experiments.calibrate import show
    from topologies.units import UnitError, parse_duration

    try:
        span = parse_duration(lasting)
    except UnitError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    with errors.status("building the fabric") as status:
        backends, found = measure(fabric, impairments or (), span, lambda text: status.update(escape(text)))
    if as_json:
        command = shlex.join(["splitbrain", *sys.argv[1:]])
        calibrations = msgspec.to_builtins(found)
        _print_json({"calibrations": calibrations, "backends": backends, "machine": machine(), "command": command})
    else:
        show(console, backends, found)
    raise typer.Exit(2 if any(one.disagreements for one in found) else 0)


@app.command()
def shell(
    fabric: Annotated[
        str, typer.Argument(metavar="[FABRIC]", help="leaf-spine,2,3,4, or a scenario's name or file.")
    ] = "leaf-spine,2,3,4",
    seed: Annotated[int, typer.Option(min=0, help="Of what impairments draw.")] = 1,
) -> None:
    """Play with a living fabric: Mininet's prompt, with commands that break the network and heal it."""
    from experiments.plans import named_plan
    from experiments.shell import shell as prompt

    plan = named_plan(fabric)
    with errors.status(f"building {len(plan.switches)} switches, {len(plan.hosts)} hosts") as status:

        def say(text: str) -> None:
            status.stop()
            console.print(text, soft_wrap=True, markup=False)

        prompt(plan, seed, say)


@app.command()
def path(
    sender: Annotated[str, typer.Argument(metavar="FROM", help="The host that sends, such as h1.")],
    receiver: Annotated[str, typer.Argument(metavar="TO", help="The host that receives, such as h9.")],
    sport: Annotated[int, typer.Option(min=1, max=65535, help="The flow's source port.")],
    dport: Annotated[int, typer.Option(min=1, max=65535, help="The flow's destination port.")],
    proto: Annotated[Literal["udp", "tcp"], typer.Option(help="The flow's protocol.")] = "udp",
    topology: Annotated[
        str, typer.Option("--on", help="A fabric as `splitbrain topo` takes it: a scenario, a plan, a kind with sizes.")
    ] = "leaf-spine,2,3,4",
    as_json: AsJson = False,
) -> None:
    """Tell which way a flow takes through a fabric: computed where there is only one, else seen on the fabric."""
    from experiments.path import Flow, path
    from experiments.plans import named_plan

    way = path(named_plan(topology), Flow(sender, receiver, proto, sport, dport))
    if as_json:
        _print_json(msgspec.to_builtins(way))
    else:
        console.print(f"{' → '.join(way.nodes)}  [dim]{way.how}: {way.why}[/]", soft_wrap=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def maelstrom(context: typer.Context) -> None:
    """Run a node of ours as a Maelstrom binary, on standard input and output; --help names them."""
    from apps.maelstrom.__main__ import main as serve

    raise typer.Exit(serve(context.args))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Its name; one that does not exist names all.")],
    as_json: AsJson = False,
) -> None:
    """Measure, on this machine, what is promised; every figure beside its aim and, where there is one, a peer's."""
    from experiments.bench import run_bench

    raise typer.Exit(run_bench(name, as_json))


def main() -> None:
    """Run the command line, and exit."""
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        _complain(f"{error.format_message()} See {_help_of(error)}")
        sys.exit(USAGE)
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted; nothing of the run is left running")
        sys.exit(130)
    except Exception as error:
        while isinstance(error, ExceptionGroup):  # of faults that struck at the same time, and failed for one reason
            error = error.exceptions[0]
        status = _status_of(error)
        if status is None:
            raise
        _complain(_in_words(error))
        sys.exit(status)
    sys.exit(status if isinstance(status, int) else 0)


def _status_of(error: Exception) -> int | None:
    """The exit status an error stands for, or None for one that is a mistake of ours."""
    from apps.runtime.config import ConfigError
    from experiments.bench import BenchError
    from experiments.checking.history import HistoryError
    from experiments.checking.models import ModelError
    from experiments.checking.trace import TraceError
    from experiments.folder import FolderError
    from experiments.path import PathError
    from experiments.report import ReportError
    from experiments.scenario import ScenarioError
    from experiments.shell_words import WordError
    from experiments.stage import WorldError
    from topologies.dataplane import DataplaneError
    from topologies.fabric import FabricError
    from topologies.impair import ImpairError
    from topologies.impairment import ImpairmentError
    from topologies.machine import MissingTool, StandInError
    from topologies.plan import PlanError
    from topologies.rpc import PrivilegeError, SandboxError

    if isinstance(error, WorldError) and error.status in range(USAGE, 79):  # what sysexits(3) has words for
        return error.status
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return IO_ERROR
    if isinstance(error, ReportError):
        return CANNOT_CREATE if isinstance(cause, OSError) else NO_INPUT
    statuses: list[tuple[type[Exception], int]] = [
        (BenchError, USAGE),
        (WordError, USAGE),
        (ImpairmentError, USAGE),
        (ScenarioError, DATA),
        (ConfigError, DATA),
        (HistoryError, DATA),
        (ModelError, DATA),
        (TraceError, DATA),
        (PlanError, DATA),
        (PrivilegeError, NO_PERMISSION),
        (MissingTool, UNAVAILABLE),
        (StandInError, UNAVAILABLE),
        (SandboxError, OS_ERROR),
        (FabricError, OS_ERROR),
        (DataplaneError, OS_ERROR),
        (PathError, OS_ERROR),
        (ImpairError, OS_ERROR),
        (WorldError, SOFTWARE),
        (FolderError, CANNOT_CREATE),
        (FileNotFoundError, NO_INPUT),
        (IsADirectoryError, NO_INPUT),
        (NotADirectoryError, NO_INPUT),
        (PermissionError, NO_PERMISSION),
        (OSError, IO_ERROR),
    ]
    return next((status for kind, status in statuses if isinstance(error, kind)), None)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" at {error.filename}" if error.filename else ""
        return f"no space left on device{where}; free some, or choose another place with --out DIR"
    return str(error)


def _capturing(asked: Scenario, links: list[str], world: WorldName) -> Scenario:
    from experiments.scenario import directions
    from topologies.machine import require

    if world == "simulated":
        raise typer.BadParameter("a simulated network has no packets to capture", param_hint="--pcap")
    captures = tuple(directions(asked.plan, links))
    require("tcpdump")
    return msgspec.structs.replace(asked, captures=captures)


def _loaded(name: str) -> Scenario:
    """The scenario of that name or file, to be played: what it says of its system's implementation holds, too."""
    from experiments.implementation import require_implementation
    from experiments.plans import scenario_file
    from experiments.scenario import load

    path = scenario_file(name)
    scenario = load(path)
    require_implementation(scenario, path)
    return scenario


def _worst(statuses: Any) -> int:
    """A broken promise (1) outweighs a doubt (2), which outweighs success (0)."""
    return min(statuses, key=lambda status: {1: 0, 2: 1}.get(status, 2))


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'splitbrain'} --help"


def _complain(message: str) -> None:
    for line in message.splitlines():
        errors.print(f"splitbrain: {line}", soft_wrap=True, markup=False)


def _print_plan(plan: FabricPlan) -> None:
    from rich.table import Table

    console.print(f"{plan.kind}: {len(plan.switches)} switches, {len(plan.hosts)} hosts, {len(plan.links)} links")
    hosts = {host.name: host.address for host in plan.hosts}
    table = Table("link", "one end", "other end", "address", box=None, pad_edge=False)
    for link in plan.links:
        table.add_row(link.name, link.a.interface, link.b.interface, hosts.get(link.a.node, ""))
    console.print(table)
    if plan.tenants:
        members = Table("tenant", "VNI", "member", "host", "address", box=None, pad_edge=False)
        for tenant in plan.tenants:
            for member in tenant.members:
                members.add_row(tenant.name, str(tenant.vni), member.name, member.host, member.address)
        console.print()
        console.print(members)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
