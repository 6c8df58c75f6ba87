"""What clients saw, as a history in Jepsen's form: events in the order they happened, and the operations they make up.

A history is read from ``history.jsonl`` (docs/run-folder.md) or from Jepsen's own ``history.edn`` (one map a line, or
one vector of them; github.com/jepsen-io/history), is checked for being a history at all, and is paired into
`Operation`s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from experiments.checking import edn

EventType: TypeAlias = Literal["invoke", "ok", "fail", "info"]

#: How many problems a `HistoryError` lists before it counts the rest.
LISTED = 10


class HistoryError(ValueError):
    """A file that is not a history, or a history that cannot be; says the file, the line and what was expected."""


class TornHistoryError(HistoryError):
    """The file ends in the middle of an event, as after a crash or an incomplete copy."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One line of a history. ``time`` is in nanoseconds from the start of the workload.

    A ``process`` that is not a number is no client (``nemesis``). ``type``: ``ok`` happened, ``fail`` did not, ``info``
    may or may not have. ``index`` and ``time`` are -1 where a foreign history has none.
    """

    process: int | str
    type: EventType
    f: str
    value: Any = None
    time: int = -1
    index: int = -1
    error: Any | UnsetType = UNSET


class History(msgspec.Struct, frozen=True):
    """``lines[i]`` is where ``events[i]`` stands in the file ``path``."""

    path: str
    events: list[Event]
    lines: list[int]

    @property
    def timed(self) -> bool:
        """Whether the events say when they happened."""
        return bool(self.events) and self.events[-1].time >= 0


class Operation(msgspec.Struct, frozen=True, gc=False):
    """An invocation with its completion.

    ``value`` is what was asked, ``result`` what the completion carried. ``called`` and ``returned`` are positions in
    the history, which decide what came before what; ``invoke`` and ``complete`` are times in nanoseconds. An operation
    whose completion is missing is ``info``, with ``complete`` and ``returned`` None.
    """

    process: int | str
    f: str
    value: Any
    type: Literal["ok", "fail", "info"]
    result: Any
    invoke: int
    complete: int | None
    called: int
    returned: int | None
    error: Any = None


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_history(path: Path, ignore_torn_tail: bool = False) -> History:
    """The history in ``path``, JSON lines or EDN by its suffix, else by its first characters.

    Raises `HistoryError`; its subclass `TornHistoryError` where the file ends in the middle of an event, unless
    ``ignore_torn_tail``: then what was written before is the history. Raises `OSError` when it cannot be read.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path}: not text: byte {error.start} is not UTF-8; expected JSON lines or EDN") from error
    is_json = path.suffix in (".jsonl", ".ndjson") or (path.suffix != ".edn" and re.match(r'\s*\{\s*"', text))
    events: list[Event] = []
    lines: list[int] = []
    try:
        for line, event in (_json_events if is_json else _edn_events)(str(path), text):
            events.append(event)
            lines.append(line)
    except TornHistoryError:
        if not ignore_torn_tail:
            raise
    if not events:
        raise HistoryError(f"{path}: no operation in it; expected one event a line, as JSON or EDN")
    if any(event.index < 0 for event in events):
        events = [msgspec.structs.replace(event, index=index) for index, event in enumerate(events)]
    return History(str(path), events, lines)


def _json_events(path: str, text: str) -> Iterator[tuple[int, Event]]:
    decode = msgspec.json.Decoder(Event).decode
    # Not splitlines(): a JSON string may hold characters, such as U+2028, that it takes for the end of a line.
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        try:
            yield number, decode(line)
        except msgspec.ValidationError as error:
            raise HistoryError(f"{path}:{number}: not an event of a history: {error}") from None
        except msgspec.DecodeError as error:
            if number == len(lines) and (number > 1 or "truncated" in str(error)):
                raise _torn(path, number) from None
            found = re.search(r"\(byte (\d+)\)", str(error))
            column = int(found[1]) + 1 if found else len(line)
            raise HistoryError(f"{path}:{number}:{column}: not JSON; expected one event a line") from None


def _edn_events(path: str, text: str) -> Iterator[tuple[int, Event]]:
    line, counted = 1, 0
    values = edn.read_each(text)
    while True:
        try:
            offset, value = next(values)
        except StopIteration:
            return
        except edn.EdnError as error:
            number = text.count("\n", 0, error.offset) + 1
            column = error.offset - text.rfind("\n", 0, error.offset)
            ends_there = "\n" not in text[error.offset :].rstrip() or text[error.offset] in "[("
            if error.unfinished and ends_there:
                raise _torn(path, number) from None
            raise HistoryError(f"{path}:{number}:{column}: {error}") from None
        line, counted = line + text.count("\n", counted, offset), offset
        try:
            yield line, msgspec.convert(value, Event)
        except msgspec.ValidationError as error:
            raise HistoryError(f"{path}:{line}: not an event of a history: {error}") from None


def _torn(path: str, line: int) -> TornHistoryError:
    return TornHistoryError(
        f"{path}:{line}: the file ends in the middle of an event; check the complete file, "
        "or what is before the tear with --ignore-torn-tail"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write_history(folder: Path, events: Sequence[Event]) -> None:
    """Write ``history.jsonl`` and ``history.edn`` into ``folder``, each whole or not at all."""
    encode = msgspec.json.Encoder().encode
    _replace(folder / "history.edn", b"".join(to_edn(event).encode() + b"\n" for event in events))
    _replace(folder / "history.jsonl", b"".join(encode(_ordered(event)) + b"\n" for event in events))


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(data)
    draft.replace(path)


def to_edn(event: Event) -> str:
    """The event as Jepsen writes it, on one line."""
    fields = _ordered(event)
    for name in ("process", "type", "f"):
        if isinstance(fields[name], str):
            fields[name] = edn.Keyword(fields[name])
    return edn.write({edn.Keyword(name): value for name, value in fields.items()})


def _ordered(event: Event) -> dict[str, Any]:
    names = ("index", "time", "process", "type", "f", "value")
    fields = {name: getattr(event, name) for name in names}
    return fields if event.error is UNSET else {**fields, "error": event.error}


def merge(parts: Iterable[Iterable[Event]]) -> list[Event]:
    """One history of what several clients recorded, by time, each part in its own order, numbered from 0.

    Of different parts' events at the same nanosecond, invocations come first: who cannot tell which was first must
    take them for concurrent.
    """
    keyed: list[tuple[int, int, Event]] = []
    for part in parts:
        last: dict[int | str, tuple[int, int]] = {}
        for event in part:
            rank = 0 if event.type == "invoke" else 1
            before = last.get(event.process)
            if before is not None and before[0] == event.time:
                rank = max(rank, before[1])
            last[event.process] = (event.time, rank)
            keyed.append((event.time, rank, event))
    keyed.sort(key=_time_and_rank)
    return [msgspec.structs.replace(event, index=index) for index, (_, _, event) in enumerate(keyed)]


def _time_and_rank(keyed: tuple[int, int, Event]) -> tuple[int, int]:
    return keyed[:2]


class _FaultStep(msgspec.Struct, frozen=True):
    fault: int
    kind: str
    step: str
    t: int
    asked: Any = None
    resolved: Any = None
    effective: bool | None = None


class _Epoch(msgspec.Struct, frozen=True):
    epoch: int = 0


#: What Jepsen's nemeses call the start and the end of what they do, where it is not start-<kind> and stop-<kind>.
_NEMESIS = {
    "impair": ("start-packet", "stop-packet"),
    "kill": ("kill", "start"),
    "pause": ("pause", "resume"),
    "skew": ("bump-clock", "reset-clock"),
    "strobe": ("strobe-clock", "reset-clock"),
}

_HEALED = {True: "healed", False: "not healed", None: "not measured"}


def merge_histories(run: Path) -> None:
    """Write ``history.jsonl`` and ``history.edn`` of the run in ``run``, from what its clients recorded and its faults.

    A last line that a killed client left unfinished is not an event. Raises `HistoryError`.
    """
    manifest = run / "manifest.json"
    try:
        epoch = msgspec.json.decode(manifest.read_bytes(), type=_Epoch).epoch
    except msgspec.DecodeError as error:
        raise HistoryError(f"{manifest}: not the manifest of a run: {error}") from None
    if not epoch:
        raise HistoryError(f"{run}: the run ended before its workload began; there is nothing to judge")
    parts: list[list[Event]] = []
    for path in sorted(run.glob("clients/*/trace/history.ndjson")):
        if path.stat().st_size:
            events = read_history(path, ignore_torn_tail=True).events
            parts.append([msgspec.structs.replace(event, time=event.time - epoch) for event in events])
    faults = run / "faults.jsonl"
    if faults.exists():
        parts.append(list(_nemesis(faults)))
    write_history(run, merge(parts))


def _nemesis(path: Path) -> Iterator[Event]:
    data = path.read_bytes()
    decode = msgspec.json.Decoder(_FaultStep).decode
    strobes: set[int] = set()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            step = decode(line)
        except msgspec.DecodeError as error:
            raise HistoryError(f"{path}:{number}: not a step of a fault: {error}") from None
        if step.kind == "skew" and step.asked and step.asked.get("period"):
            strobes.add(step.fault)
        kind = "strobe" if step.fault in strobes else step.kind
        start, stop = _NEMESIS.get(kind, (f"start-{kind}", f"stop-{kind}"))
        if step.step in ("asked", "applied"):
            yield Event("nemesis", "info", start, step.asked or step.resolved, step.t)
        elif step.step == "healed":
            yield Event("nemesis", "info", stop, None, step.t)
            yield Event("nemesis", "info", stop, _HEALED[step.effective], step.t)


# ---------------------------------------------------------------------------------------------------------------------
# Being a history


def operations(history: History) -> list[Operation]:
    """The clients' operations in the order of their invocations.

    Raises `HistoryError` with every reason (the first `LISTED` of them) why this cannot be the history of processes
    that each do one thing at a time and fall silent after an ``info``.
    """
    lines = history.lines
    problems: list[str] = []
    paired: list[Operation] = []
    running: dict[int, int] = {}
    silent: dict[int, int] = {}
    time, index = -1, -1
    for at, (event, line) in enumerate(zip(history.events, lines, strict=True)):
        if event.index <= index:
            problems.append(f"line {line}: index {event.index} after index {index}; indices rise")
        if event.time < time:
            problems.append(f"line {line}: time {event.time} after time {time}; time does not go back")
        time, index = event.time, event.index
        process = event.process
        if not isinstance(process, int):
            continue
        if process in silent:
            problems.append(
                f"line {line}: process {process} goes on after its info on line {silent[process]}; "
                "its thread goes on as another process"
            )
        elif event.type == "invoke":
            if process in running:
                earlier = lines[paired[running[process]].called]
                problems.append(f"line {line}: process {process} has not finished what it invoked on line {earlier}")
            running[process] = len(paired)
            paired.append(Operation(process, event.f, event.value, "info", None, event.time, None, at, None))
        elif process not in running:
            problems.append(f"line {line}: process {process} completes what it never invoked")
        else:
            slot = running.pop(process)
            asked = paired[slot]
            if event.type == "info":
                silent[process] = line
            if problem := _mismatch(asked, event):
                problems.append(f"line {line}: {problem} as process {process} invoked on line {lines[asked.called]}")
            paired[slot] = Operation(
                process,
                asked.f,
                asked.value,
                event.type,
                event.value,
                asked.invoke,
                event.time,
                asked.called,
                at,
                None if event.error is UNSET else event.error,
            )
    if problems:
        more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "\n  ".join(problems[:LISTED])
        raise HistoryError(f"{history.path}: not a history of processes:\n  {listed}{more}")
    return paired


def _mismatch(asked: Operation, answer: Event) -> str | None:
    """Why ``answer`` cannot be the completion of what was ``asked``."""
    if answer.f != asked.f:
        return f"f is {answer.f!r}, not {asked.f!r}"
    if answer.type != "ok" or answer.value is None:
        return None
    if asked.f in ("write", "cas", "delete") and answer.value != asked.value:
        return f"value is {answer.value!r}, not {asked.value!r}"
    match asked.value, answer.value:
        case ([key, None], [other, _]) if key != other:
            return f"key is {other!r}, not {key!r}"
    return None
