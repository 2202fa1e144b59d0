"""When frames are taken of a video."""

from __future__ import annotations

import math
from typing import NamedTuple

# Containers round times, some to thousandths of a second.
_ROUNDING = 0.0006


class Moments(NamedTuple):
    """When frames are taken of a video: at `start`, and every 1 / fps seconds after it until `end`.

    Attributes:
      fps: frames per second.
      start: in seconds.
      end: in seconds, infinite for the video's end.
    """

    fps: float
    start: float = 0.0
    end: float = math.inf

    @property
    def late(self) -> float:
        """What times may be late by, in seconds."""
        return min(_ROUNDING, 0.25 / self.fps)

    def any_within(self, begins: float, ends: float) -> bool:
        """Whether there is a moment from when to when, both of which may be late; in doubt there is."""
        doubt = self.late / 100
        first = max(0, math.ceil((begins - self.late - doubt - self.start) * self.fps))
        return self.start + first / self.fps < ends - self.late + doubt
