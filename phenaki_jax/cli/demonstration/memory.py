"""How much memory this process holds."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

# getrusage counts in KiB, but on macOS in bytes.
_RUSAGE_UNITS_PER_GIB = 2**30 if sys.platform == "darwin" else 2**20


def peak_gib() -> float:
    """The most that it ever held; processes it started count for nothing."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RUSAGE_UNITS_PER_GIB


def held_gib() -> float:
    """What it holds now, where the system says so; the most it ever held elsewhere."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**30
    return peak_gib()
