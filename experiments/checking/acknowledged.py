"""No acknowledged write lost: what the last reads must still show.

Apart from linearizability on purpose, though implied by it: one pass over the history, nothing to search, nothing to
run out of time. A write is lost when it was acknowledged before the last read of its register was asked for, and this
read found a value that only writes had left which were over before the lost one began.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from experiments.checking.history import Operation
from experiments.checking.models import SAME, Call, Model


class Lost(msgspec.Struct, frozen=True):
    """``read`` is the last of its register ``key``, and shows that ``write`` is gone."""

    key: Any
    write: Operation
    read: Operation


class Acknowledged(msgspec.Struct, frozen=True):
    """``writes`` were acknowledged, writes, deletes and compare-and-sets together; to ``confirmed`` of them the last
    read of their register is a witness, the others came after it. ``unread``: registers written, but not read since.
    """

    writes: int
    confirmed: int
    unread: list[Any]
    lost: list[Lost]


def acknowledged_writes(model: Model, operations: Sequence[Operation]) -> Acknowledged:
    """``model`` is one of registers, `models.REGISTER` or `models.REGISTERS`."""
    writes, confirmed = 0, 0
    unread: list[Any] = []
    lost: list[Lost] = []
    for key, part in model.partition(operations).items():
        problem = model.problem(part)
        made = [call for call in problem.calls if call.action.leaves is not SAME]
        certain = [call for call in made if call.operation.type == "ok"]
        reads = [call for call in problem.calls if call.action.leaves is SAME]
        writes += len(certain)
        last = max(reads, key=lambda call: call.called, default=None)
        seen = [call for call in certain if last and call.returned < last.called]
        if last is None or not seen:
            unread += [key] if certain else []
            continue
        confirmed += len(seen)
        since = _latest_source(made, last, problem.initial[0])
        gone = [call for call in seen if call.called > since]
        lost += [Lost(key, call.operation, last.operation) for call in gone]
    return Acknowledged(writes, confirmed - len(lost), unread, lost)


def _latest_source(made: Sequence[Call], read: Call, initial: Any) -> int:
    """The position by which whatever may have left what ``read`` found was over."""
    found = read.action.requires
    sources = [call.returned for call in made if call.action.leaves == found and call.called < read.returned]
    # What nobody wrote says nothing about writes; that it was read is for the linearizability checker.
    return max(sources, default=-1 if found == initial else read.called)
