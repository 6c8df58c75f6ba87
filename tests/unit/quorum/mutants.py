"""The store with one rule broken each, to show that the tests can fail."""

from __future__ import annotations

from collections.abc import Iterable

from apps.process import NodeId
from apps.quorum import Quorum, Version
from apps.quorum.core import _Operation
from apps.quorum.messages import Fetched, Message
from apps.quorum.versions import Versions


class ResurrectsDeletes(Quorum):
    """Takes a tombstone for a key that is not there, so read repair brings back what another replica still has."""

    def _merge(self, versions: Iterable[Version]) -> Versions:
        versions = list(versions)
        return super()._merge([version for version in versions if not version.deleted] or versions)


class SloppyReadAsStrict(Quorum):
    """Lets fallbacks stand in, and counts them, though it was told to be strict."""

    def _is_sloppy(self) -> bool:
        return True


class ReadsWithoutWriteBack(Quorum):
    """ABD without its second phase for reads."""

    def _is_held_widely(self, operation: _Operation) -> bool:
        return True


class AcksBeforeDisk(Quorum):
    """Acknowledges what it has not written yet."""

    def _once_on_disk(self, to: NodeId, message: Message) -> None:
        self._send(to, message)


class TellsBeforeDisk(Quorum):
    """Tells readers what it has not written yet, and they count it as a copy, as our own store did once."""

    def _tell(self, reader: NodeId, number: int, key: str) -> None:
        self._send(reader, Fetched(number, self._known(key)))


class ForgetsSiblings(Quorum):
    """Sends only the new version, so that who has it seems to have had its actor's earlier ones."""

    def _store(self, operation: _Operation, versions: Versions) -> None:
        super()._store(operation, versions if operation.new is None else (operation.new,))


MUTANTS = (
    ResurrectsDeletes,
    SloppyReadAsStrict,
    ReadsWithoutWriteBack,
    AcksBeforeDisk,
    TellsBeforeDisk,
    ForgetsSiblings,
)
