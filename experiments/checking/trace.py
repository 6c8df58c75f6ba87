"""Reading the evidence that nodes leave (docs/trace.md): a file for each node and incarnation, all on one clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec

SCHEMA = 1


class TraceError(ValueError):
    """A trace that cannot be read, or tells of something that cannot have happened; says the file and the line."""


class _Event(msgspec.Struct, frozen=True, tag_field="ev", gc=False):
    t: int


def _one_each(terms: list[int], digests: list[str]) -> None:
    if len(terms) != len(digests):
        raise ValueError(f"{len(terms)} terms for {len(digests)} digests")


class Header(_Event, tag="trace", frozen=True, gc=False):
    schema: int
    node: str
    incarnation: int
    protocol: str


class Started(_Event, tag="started", frozen=True, gc=False):
    term: int
    vote: str | None
    last: int
    last_term: int


class Role(_Event, tag="role", frozen=True, gc=False):
    role: str
    term: int
    last: int
    last_term: int


class Vote(_Event, tag="vote", frozen=True, gc=False):
    term: int
    candidate: str


class Truncate(_Event, tag="truncate", frozen=True, gc=False, rename={"first": "from"}):
    first: int


class Append(_Event, tag="append", frozen=True, gc=False):
    first: int
    terms: list[int]
    digests: list[str]

    def __post_init__(self) -> None:
        _one_each(self.terms, self.digests)


class Commit(_Event, tag="commit", frozen=True, gc=False):
    index: int
    term: int


class Apply(_Event, tag="apply", frozen=True, gc=False):
    first: int
    terms: list[int]
    digests: list[str]

    def __post_init__(self) -> None:
        _one_each(self.terms, self.digests)


class Install(_Event, tag="install", frozen=True, gc=False):
    index: int
    term: int


class Configure(_Event, tag="configure", frozen=True, gc=False):
    index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    outgoing: tuple[str, ...]


class Reject(_Event, tag="reject", frozen=True, gc=False):
    sender: str
    message: str
    why: str
    count: int


# A quorum store's (docs/quorum.md). A dot, an actor and a counter, names a version.


class Boot(_Event, tag="boot", frozen=True, gc=False):
    actor: str
    kept: dict[str, list[tuple[str, int]]]
    hints: dict[str, dict[str, list[tuple[str, int]]]]


class Put(_Event, tag="put", frozen=True, gc=False):
    key: str
    actor: str
    counter: int
    time: tuple[int, int]
    context: dict[str, int]


class Keep(_Event, tag="keep", frozen=True, gc=False):
    key: str
    dots: list[tuple[str, int]]
    owner: str | None


class Acknowledged(_Event, tag="ack", frozen=True, gc=False):
    key: str
    actor: str
    counter: int
    by: list[str]


class Read(_Event, tag="read", frozen=True, gc=False):
    key: str
    dots: list[tuple[str, int]]
    by: list[str]


class Handoff(_Event, tag="handoff", frozen=True, gc=False):
    key: str
    owner: str


class Repair(_Event, tag="repair", frozen=True, gc=False):
    key: str
    replica: str


class Short(_Event, tag="short", frozen=True, gc=False):
    key: str
    write: bool
    answered: int
    needed: int


# A failure detector's (docs/detectors.md).


class Believe(_Event, tag="believe", frozen=True, gc=False):
    member: str
    standing: Literal["alive", "suspect", "failed"]
    incarnation: int
    after: int | None = None


class Incarnation(_Event, tag="incarnation", frozen=True, gc=False):
    incarnation: int
    accused: int | None = None


class Ask(_Event, tag="ask", frozen=True, gc=False):
    member: str
    helpers: list[str]


# Of failing over (docs/detectors.md).


class Lease(_Event, tag="lease", frozen=True, gc=False):
    shards: list[int]
    lasts: int
    grant: tuple[int, int] | None = None


class Grant(_Event, tag="grant", frozen=True, gc=False):
    member: str
    shards: list[int]
    grant: tuple[int, int]


class Weigh(_Event, tag="weigh", frozen=True, gc=False):
    member: str
    weight: float


class Load(_Event, tag="load", frozen=True, gc=False):
    sent: int
    received: int


TraceEvent: TypeAlias = (
    Header
    | Started
    | Role
    | Vote
    | Truncate
    | Append
    | Commit
    | Apply
    | Install
    | Configure
    | Reject
    | Boot
    | Put
    | Keep
    | Acknowledged
    | Read
    | Handoff
    | Repair
    | Short
    | Believe
    | Incarnation
    | Ask
    | Load
    | Lease
    | Grant
    | Weigh
)

_KNOWN = {kind.__struct_config__.tag for kind in get_args(TraceEvent)}


class Witness(msgspec.Struct, frozen=True, gc=False):
    """One line of a trace, and where it stands."""

    node: str
    incarnation: int
    line: int
    event: TraceEvent

    @property
    def t(self) -> int:
        return self.event.t

    def as_data(self) -> dict[str, Any]:
        where = {"node": self.node, "incarnation": self.incarnation, "line": self.line}
        return where | msgspec.to_builtins(self.event)


_decode = msgspec.json.Decoder(TraceEvent).decode


class TraceReader:
    """Reads ``nodes/<name>/trace/<incarnation>.ndjson``, also while it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._node, self._incarnation = path.parent.parent.name, int(path.stem)
        self._offset = self._line = self._t = 0

    def read(self) -> list[Witness]:
        """The events since it was read last. A last line that is not whole is left out, and so are events that the
        schema does not know. Raises `TraceError`, and `OSError` when the file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        begins = self._line == 0
        witnesses: list[Witness] = []
        for line in whole.splitlines():
            self._line += 1
            try:
                event = _decode(line)
            except msgspec.DecodeError as error:
                if _is_of_another_schema(line):
                    continue
                raise TraceError(f"{self.path}:{self._line}: not an event of a trace: {error}") from None
            if event.t < self._t:
                raise TraceError(
                    f"{self.path}:{self._line}: t goes back, from {self._t} to {event.t}; one clock's time does not"
                )
            self._t = event.t
            witnesses.append(Witness(self._node, self._incarnation, self._line, event))
        if begins and witnesses:
            self._check(witnesses[0].event)
        return witnesses

    def _check(self, header: TraceEvent) -> None:
        if not isinstance(header, Header) or header.schema != SCHEMA:
            raise TraceError(f"{self.path}:1: expected the header of a trace of schema {SCHEMA}")
        if (header.node, header.incarnation) != (self._node, self._incarnation):
            raise TraceError(f"{self.path}:1: holds the trace of {header.node}, incarnation {header.incarnation}")


def read_trace(path: Path) -> list[Witness]:
    """All events in the trace at ``path``, as `TraceReader.read` has it."""
    return TraceReader(path).read()


def _is_of_another_schema(line: bytes) -> bool:
    try:
        kind = msgspec.json.decode(line)["ev"]
    except (msgspec.DecodeError, LookupError, TypeError):
        return False
    return isinstance(kind, str) and kind not in _KNOWN


def read_traces(run: Path) -> list[list[Witness]]:
    """The traces of all nodes and incarnations under ``run``, in the order of their names and numbers."""
    paths = [path for path in run.glob("nodes/*/trace/*.ndjson") if path.stem.isdigit()]
    return [read_trace(path) for path in sorted(paths, key=lambda path: (path.parent.parent.name, int(path.stem)))]


def in_order(traces: Iterable[list[Witness]]) -> Iterator[Witness]:
    """All events by time; of one node's, always in the order in which they were written."""
    return iter(sorted((witness for trace in traces for witness in trace), key=attrgetter("t")))
