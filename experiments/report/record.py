"""Reading a run's folder. It takes what is there: a run that died leaves parts out, and the report says which.

``docs/run-folder.md`` and ``docs/trace.md`` are the contracts; keys that they do not name are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from experiments.checking.fault_record import Step
from experiments.checking.history import Event
from experiments.checking.results import Results
from topologies.plan import FabricPlan

T = TypeVar("T")


class ReportError(ValueError):
    """There is nothing to report on, or no place to write to; the message says what and what to do."""


class TraceEvent(msgspec.Struct, frozen=True, gc=False):
    """The part of a node's trace that is drawn. ``t`` is absolute, on the machine's monotonic clock."""

    t: int
    ev: str
    role: str = ""
    term: int = 0
    index: int = 0
    protocol: str = ""
    member: str = ""
    standing: str = ""
    shards: list[int] = []


class Manifest(msgspec.Struct, frozen=True):
    """What was run, where, with what. ``epoch`` is the start of the workload on the clock that traces use."""

    splitbrain: str = ""
    command: str = ""
    started: str = ""
    world: str = ""
    seed: int | None = None
    epoch: int | None = None
    time_scale: float = 1.0
    scenario: dict[str, Any] = {}
    scenario_toml: str = ""
    plan: FabricPlan | None = None
    placement: dict[str, str] = {}
    machine: dict[str, Any] = {}
    backends: dict[str, Any] = {}
    versions: dict[str, Any] = {}


class Record(msgspec.Struct, frozen=True):
    """A run as it was recorded. ``traces``: for each node, the events of each incarnation. ``metrics``: of each source
    and metric, its samples as (time, value). ``missing``: a sentence for everything that should be there and is not, or
    cannot be read."""

    name: str
    manifest: Manifest
    history: list[Event]
    faults: list[Step]
    traces: dict[str, list[list[TraceEvent]]]
    results: Results | None
    metrics: dict[tuple[str, str], list[tuple[int, float]]]
    missing: list[str]


def read_record(run: Path) -> Record:
    """Read the folder ``run``. Raises `ReportError` when it is not one that a run has left."""
    if not run.is_dir():
        raise ReportError(f"{run}: no such folder; give the folder of a run, such as runs/<scenario>/<time>-<seed>")
    if not any((run / name).exists() for name in ("manifest.json", "history.jsonl", "results.json")):
        raise ReportError(
            f"{run}: not a run's folder: it has no manifest.json; give one such as runs/<scenario>/<time>-<seed>"
        )
    missing: list[str] = []
    manifest = _document(run / "manifest.json", Manifest, missing, "what was run, and on what, is not known")
    results = _document(run / "results.json", Results, missing, "the run has no verdict")
    history = _history(run, manifest.epoch if manifest else None, missing)
    faults = _lines(run / "faults.jsonl", Step, missing, "no fault was recorded")
    traces = {
        folder.parent.name: [_lines(file, TraceEvent, missing, "") for file in _by_incarnation(folder)]
        for folder in sorted(run.glob("nodes/*/trace"))
    }
    if not any(files for files in traces.values()):
        missing.append("nodes/*/trace: not there; who led when is not known from the nodes themselves")
    metrics = _metrics(run, missing)
    return Record(run.name, manifest or Manifest(), history, faults, traces, results, metrics, missing)


def _history(run: Path, epoch: int | None, missing: list[str]) -> list[Event]:
    """The merged history; of a run that died before it was made, what each client had recorded."""
    parts = sorted(run.glob("clients/*/trace/history.ndjson"))
    if (run / "history.jsonl").exists() or epoch is None or not parts:
        return _lines(run / "history.jsonl", Event, missing, "no operation was recorded")
    events = [event for part in parts for event in _lines(part, Event, missing, "")]
    events.sort(key=lambda event: event.time)
    missing.append("history.jsonl: not there; operations are shown as each client recorded them")
    # Clients write times of the machine's clock.
    return [msgspec.structs.replace(event, time=event.time - epoch) for event in events]


def _metrics(run: Path, missing: list[str]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """From the stream of a run that died as from the table of one that ended; nothing is missed where neither is."""
    path = next((run / name for name in ("metrics.parquet", "metrics.arrows") if (run / name).exists()), None)
    samples: dict[tuple[str, str], list[tuple[int, float]]] = {}
    if path is None:
        return samples
    import pyarrow as pa

    batches: list[Any] = []
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            batches = [pyarrow.parquet.ParquetFile(path).read()]
        else:
            batches.extend(pa.ipc.open_stream(path.read_bytes()))
    except (OSError, pa.ArrowInvalid) as error:  # the end of a stream that was cut off is no loss
        if path.suffix == ".parquet":
            missing.append(f"{path.name}: cannot be read ({error}); what links carried is not shown")
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("t", "source", "metric", "value"))
        for t, source, metric, value in zip(*columns, strict=True):
            samples.setdefault((source, metric), []).append((t, value))
    return samples


def _by_incarnation(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob("*.ndjson") if file.stem.isdigit()), key=lambda file: int(file.stem))


def _document(path: Path, kind: type[T], missing: list[str], without: str) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        missing.append(f"{path.name}: not there; {without}")
    except (OSError, msgspec.DecodeError) as error:
        missing.append(f"{path.name}: cannot be read ({_reason(error)}); {without}")
    return None


def _lines(path: Path, kind: type[T], missing: list[str], without: str) -> list[T]:
    """The lines of ``path``. What a crash has cut off at the end is dropped; from a line that is wrong on, all is."""
    try:
        data = path.read_bytes()
    except OSError as error:
        missing.append(f"{path.name}: not there ({_reason(error)}); {without}")
        return []
    data = data[: data.rfind(b"\n") + 1]
    decoder = msgspec.json.Decoder(kind)
    try:
        return decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        good: list[T] = []
        for number, line in enumerate(data.splitlines(), 1):
            try:
                good.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                missing.append(
                    f"{_place(path)}: line {number} cannot be read ({error}); it and what follows is left out"
                )
                break
        return good


def _place(path: Path) -> str:
    """``history.jsonl``, but ``n1/trace/0.ndjson``: enough of the path to know which."""
    return path.name if path.suffix != ".ndjson" else "/".join(path.parts[-3:])


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
