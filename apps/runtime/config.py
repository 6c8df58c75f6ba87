"""A node's or client's configuration: one JSON file, checked whole before anything is opened."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

#: Twice the longest of Raft's usual election timeouts (150-300 ms; Ongaro & Ousterhout 2014, §9.3), in nanoseconds.
DEFAULT_SILENCE = 600_000_000


class ConfigError(Exception):
    """The file names something the program does not know, or lacks something it needs; one problem a line."""


class Address(NamedTuple):
    host: str
    port: int


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one operating-system process runs as.

    ``node``, ``cluster``, ``incarnation``: who it is; incarnations count the starts of a node from 0.
    ``listen``: ``ip:port``, or null for one that only dials, as clients do. ``peers``: the addresses of the cluster's
    nodes (its own among them does no harm). ``seed``: for everything random in it.
    ``data_dir``: the durable log. ``trace_dir``: its evidence, see ``docs/trace.md``, and ``metrics.ndjson``.
    ``silence``: nanoseconds after which a peer that acknowledges nothing it was sent is dialled anew.
    ``process``: ``kind`` says what runs (see `apps.runtime.kinds`), the other keys are its parameters. The same on all
    nodes of a cluster; one that is configured otherwise is turned away.
    """

    node: str
    cluster: str
    incarnation: int
    listen: str | None
    peers: dict[str, str]
    seed: int
    data_dir: str
    trace_dir: str
    silence: int = DEFAULT_SILENCE
    process: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.process["kind"])

    @property
    def settings(self) -> int:
        """A checksum of ``process``; nodes of which it differs do not work together."""
        return crc32(msgspec.json.encode(self.process, order="deterministic"))

    @property
    def nodes(self) -> list[str]:
        """The names of the cluster's nodes, sorted; its own among them if it listens."""
        return sorted({*self.peers, self.node} if self.listen is not None else self.peers)


def address(text: str) -> Address:
    """``10.0.0.1:7000`` as host and port. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    try:
        socket.inet_pton(socket.AF_INET, host)
        if colon and port.isascii() and port.isdigit() and int(port) < 1 << 16:
            return Address(host, int(port))
    except OSError:
        pass
    raise ValueError(f"{text!r} is not an address like '10.0.0.1:7000'")


def read_config(path: Path) -> Config:
    """Read and check a configuration. Raises `ConfigError`."""
    try:
        data = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a JSON object was expected, with the keys {', '.join(Config.__struct_fields__)}")
    problems = []
    for key in data:
        if key not in Config.__struct_fields__:
            problems.append(f"unknown key {key!r}; there are {', '.join(Config.__struct_fields__)}")
    for field in msgspec.structs.fields(Config):
        if field.name not in data and field.required:
            problems.append(f"key {field.name!r} is missing")
    if not problems:
        try:
            config = msgspec.convert(data, Config)
        except msgspec.ValidationError as error:
            problems.append(str(error))
        else:
            problems += _problems(config)
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return config


def parameters(config: Config, kind: Any) -> Any:
    """The parameters of the configured process as a ``kind``, a msgspec struct. Raises `ConfigError`."""
    given = {key: value for key, value in config.process.items() if key != "kind"}
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ConfigError(
            f"process: unknown {'key' if len(unknown) == 1 else 'keys'} {', '.join(map(repr, unknown))} "
            f"for kind {config.kind!r}; there are {', '.join(known)}"
        )
    try:
        return msgspec.convert(given, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"process: {error}") from error


def _problems(config: Config) -> list[str]:
    problems = []
    if not config.node or not config.cluster:
        problems.append("node and cluster must not be empty")
    if config.incarnation < 0:
        problems.append(f"incarnation is {config.incarnation}; incarnations count from 0")
    if config.silence <= 0:
        problems.append(f"silence is {config.silence} ns; it must be above 0")
    if not isinstance(config.process.get("kind"), str):
        problems.append("process: key 'kind' is missing, it says what to run, for example 'raft'")
    places = {f"peers.{name}": text for name, text in config.peers.items()}
    if config.listen is not None:
        places["listen"] = config.listen
    for key, text in places.items():
        try:
            address(text)
        except ValueError as error:
            problems.append(f"{key}: {error}")
    return problems
