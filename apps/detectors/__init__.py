"""Failure detectors: who of us is still there, told only by the silence of those who are not.

None can be both complete and accurate where messages have no bound on their delay (Chandra & Toueg 1996), so each here
chooses: how long it waits before it gives a member up, how often it is wrong, and how much it has to say to know.

- `Heartbeats` with `FixedTimeout`: everybody tells everybody; silence beyond a limit is taken for a failure. Its
  load per member grows with the group.
- `Heartbeats` with `Accrual`: the same messages, but the limit follows what was observed (φ-accrual).
- `Swim`: each member probes one other a period, and what it finds out rides on the probes; the load per member does
  not depend on the group's size. With suspicion, and Lifeguard's three cures for members who are slow themselves.

All leave the same evidence (`trace`), from which `quality` says how fast, how wrong and how costly they were.
"""

from apps.detectors.heartbeat import Beat, FixedTimeout, HeartbeatConfig, Heartbeats
from apps.detectors.phi import Accrual, PhiConfig
from apps.detectors.quality import Quality, quality
from apps.detectors.settings import DetectorConfigError
from apps.detectors.swim import Roster, Swim, SwimConfig
from apps.detectors.trace import Standing

__all__ = [
    "Accrual",
    "Beat",
    "DetectorConfigError",
    "FixedTimeout",
    "HeartbeatConfig",
    "Heartbeats",
    "PhiConfig",
    "Quality",
    "Roster",
    "Standing",
    "Swim",
    "SwimConfig",
    "quality",
]
