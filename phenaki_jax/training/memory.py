"""The memory of a training's process."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def give_back_freed_memory() -> None:
    """Returns to the system what malloc keeps of memory that was freed, on Linux with glibc; elsewhere does nothing.

    Compiling a step leaves some hundreds of MB behind, on top of which the steps' own memory would come.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
