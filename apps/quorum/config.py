"""How a quorum store is tuned: all its nodes get the same."""

from __future__ import annotations

from typing import Literal

import msgspec

from apps.process import Nanoseconds

MILLISECOND = 1_000_000


class QuorumConfigError(ValueError):
    """A configuration that cannot keep its promise; the message names the settings, and why."""


class QuorumConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Raises `QuorumConfigError` for what contradicts itself.

    ``n``, ``r``, ``w``: copies of a key, answers that make a read, acknowledgements that make a write.
    ``quorum``: see the package's docs. ``versions``: whether concurrent writes are all kept for the client to
    reconcile, or the one with the latest timestamp wins. ``max_clock_offset``: where clocks decide which one that is
    (`clocks_decide`), by how much a timestamp may be ahead of a node's time of day; what is further ahead is not taken.
    ``linearizable``: as said there, too.
    ``virtual_nodes``: places of each node on the ring. ``timeout``: an operation that has not come together by then is
    given up. ``patience``: a replica silent for so long gets a hint, and in a sloppy quorum a fallback.
    ``handoff_interval``: the least time between two attempts to hand hints over. ``anti_entropy_interval``: how often
    a node compares itself with another. ``read_repair``, ``hinted_handoff``, ``anti_entropy`` switch the three off.
    """

    n: int = 3
    r: int = 2
    w: int = 2
    quorum: Literal["strict", "partial", "sloppy"] = "strict"
    versions: Literal["siblings", "last-writer-wins"] = "last-writer-wins"
    linearizable: bool = False
    max_clock_offset: Nanoseconds = 500 * MILLISECOND
    virtual_nodes: int = 64
    timeout: Nanoseconds = 200 * MILLISECOND
    patience: Nanoseconds = 50 * MILLISECOND
    read_repair: bool = True
    hinted_handoff: bool = True
    handoff_interval: Nanoseconds = 500 * MILLISECOND
    anti_entropy: bool = True
    anti_entropy_interval: Nanoseconds = 1_000 * MILLISECOND

    def __post_init__(self) -> None:
        n, r, w = self.n, self.r, self.w
        positive = ("n", "max_clock_offset", "virtual_nodes", "timeout", "patience", "handoff_interval")
        for name in (*positive, "anti_entropy_interval"):
            if getattr(self, name) < 1:
                raise QuorumConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (1 <= r <= n and 1 <= w <= n):
            raise QuorumConfigError(f"r is {r} and w is {w}; both must be from 1 to n, the {n} copies there are")
        if self.patience >= self.timeout:
            raise QuorumConfigError(
                f"patience is {self.patience} ns; it must be shorter than the timeout of {self.timeout} ns"
            )
        if self.quorum == "strict":
            self._check_strict()
        if self.quorum == "sloppy" and not self.hinted_handoff:
            raise QuorumConfigError("quorum 'sloppy' needs hinted_handoff: or who stands in would keep what it took")
        if self.linearizable and (self.quorum != "strict" or self.versions != "last-writer-wins"):
            raise QuorumConfigError(
                f"linearizable needs quorum 'strict' and versions 'last-writer-wins', not {self.quorum!r} and "
                f"{self.versions!r}: reads must meet every write, and all must agree which write is the later"
            )

    @property
    def clocks_decide(self) -> bool:
        """Whether the later of two writes is the one whose coordinator's clock was ahead: where the last writer wins,
        but in a strict quorum, in which a write first asks which others there are.
        """
        return self.versions == "last-writer-wins" and self.quorum != "strict"

    def _check_strict(self) -> None:
        n, r, w = self.n, self.r, self.w
        if r + w <= n:
            raise QuorumConfigError(
                f"r + w is {r} + {w}, not more than n = {n}: the {r} replicas a read asks may all be others than the "
                f"{w} that took the last write. Raise r or w until r + w > n, or say quorum = 'partial' "
                "and accept stale reads"
            )
        if 2 * w <= n:
            raise QuorumConfigError(
                f"w is {w}, not more than half of n = {n}: two writes may both succeed without a replica that has seen "
                f"both, so that neither knows of the other. Raise w to {n // 2 + 1}, or say quorum = 'partial'"
            )
