"""What no correct node says, told from a message alone; such a message is dropped before anything is done about it.

Raft trusts its nodes (paper, §5.1: they fail by stopping), so this is no defence against one that lies well. It keeps
one that is broken, or a program of another kind under its name, from putting into a log, for good, what no log can
hold. Types and ranges are the codec's; what takes this node's own state to tell is with the handler of the message.
"""

from __future__ import annotations

from collections.abc import Collection

from apps.process import NodeId
from apps.raft import messages
from apps.raft.messages import CONFIGURATION, UNDECODABLE, Append, Entry, InstallSnapshot, Message
from apps.raft.quorum import Configuration


def flaw(message: Message, nodes: Collection[NodeId]) -> str:
    """Why no correct node of a cluster of ``nodes`` can have sent ``message``; empty if one can have."""
    match message:
        case Append():
            return _flaw_of_append(message, nodes)
        case InstallSnapshot():
            return _flaw_of_snapshot(message, nodes)
    return ""


def _flaw_of_append(append: Append, nodes: Collection[NodeId]) -> str:
    index, term = append.previous_index, append.previous_term
    for entry in append.entries:
        index += 1
        if entry.index != index:
            return f"entry {entry.index} stands where {index} belongs"
        if entry.term < term:
            return f"entry {index} is of term {entry.term}, and the one before it of term {term}"
        term = entry.term
        if entry.command[:1] == CONFIGURATION and (problem := _flaw_of_change(entry, nodes)):
            return problem
    return f"an entry of term {term} in term {append.term}" if term > append.term else ""


def _flaw_of_change(entry: Entry, nodes: Collection[NodeId]) -> str:
    try:
        (configuration,) = messages.configurations((entry,))
    except UNDECODABLE as error:
        return f"entry {entry.index} is no configuration: {error}"
    if configuration.index != entry.index:
        return f"entry {entry.index} holds the configuration of {configuration.index}"
    return _flaw_of_configuration(configuration, nodes)


def _flaw_of_snapshot(piece: InstallSnapshot, nodes: Collection[NodeId]) -> str:
    if piece.last_term > piece.term:
        return f"a snapshot of term {piece.last_term} in term {piece.term}"
    end = piece.offset + len(piece.data)
    if end > piece.total:
        return f"bytes up to {end} of a snapshot of {piece.total}"
    if not 0 <= piece.configuration.index <= piece.index:
        return f"a snapshot at {piece.index} with the configuration of {piece.configuration.index}"
    return _flaw_of_configuration(piece.configuration, nodes)


def _flaw_of_configuration(configuration: Configuration, nodes: Collection[NodeId]) -> str:
    strangers = [name for name in configuration.members if name not in nodes]
    return f"a configuration with {', '.join(strangers)}, whom nobody knows" if strangers else ""
