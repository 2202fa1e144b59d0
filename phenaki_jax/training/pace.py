"""How long steps take and what they wait for; stalls, and processes that the others wait for, are told."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from phenaki_jax.training.hosts import gathered

# Of a step: more than others by less is noise, and what takes less than this is hidden behind the devices' work.
_MUCH = 0.1
_MOST = 0.5
# Waiting for data that is worth a word: the share of a step, and seconds in all since it was last asked.
_TOLD_SHARE = 0.05
_TOLD_SECONDS = 1.0
_LOOKS = 8


class _Running(NamedTuple):
    """A step that has not ended."""

    step: int
    begun: float


class Pace:
    """Times the steps of a training.

    The first step, most of which is compilation, counts for nothing.

    Args:
      stall_seconds: a step that takes longer is told, and again when it has taken twice as long, and so on.
      tell: is told of it, in another thread.
    """

    def __init__(self, stall_seconds: int | float, tell: Callable[[str], None]) -> None:
        self._stall_seconds, self._tell = stall_seconds, tell
        self._is_first, self._is_feeding = True, False
        self._running: _Running | None = None
        self._closed = threading.Event()
        self._forget()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """What is done in here is the step's, waiting for what comes out of it included."""
        begun = time.monotonic()
        self._running = None if self._is_first else _Running(step, begun)
        yield
        self._running = None
        if not self._is_first:
            self._steps += 1
            self._seconds += time.monotonic() - begun
        self._is_first = False

    @contextlib.contextmanager
    def feeding(self) -> Iterator[None]:
        """What is done in here waits for data."""
        begun = time.monotonic()
        self._is_feeding = True
        yield
        self._is_feeding = False
        if not self._is_first:
            self._feed_seconds += time.monotonic() - begun

    def since_last(self) -> tuple[dict[str, float], list[str]]:
        """Of the steps since this was last asked, which all processes do at once.

        Returns:
          "seconds_per_step", and "data_wait_share" of it in which the slowest process waited for data, while devices
          may still have been at work on the step before; nothing of no steps. And lines: of each process that takes
          much longer than most, or of waiting that is more than 5 %.
        """
        everyone = [json.loads(text) for text in gathered(json.dumps([self._steps, self._feed_seconds]))]
        steps, seconds = self._steps, self._seconds
        self._forget()
        if not steps:
            return {}, []
        waits = [feed_seconds / steps for steps, feed_seconds in everyone]
        usual, step_seconds = statistics.median_low(waits), seconds / steps
        slow = [
            f"process {process} takes {wait:.2f} s to have its data for a step of {step_seconds:.2f} s, most others "
            f"{usual:.2f} s or less: all wait for it; look at its storage, its cores, and what else runs there"
            for process, wait in enumerate(waits)
            if wait - usual > _MUCH * step_seconds and wait > _MOST * step_seconds
        ]
        share = max(waits) / step_seconds
        if not slow and share > _TOLD_SHARE and max(waits) * steps > _TOLD_SECONDS:
            slow.append(
                f"{100 * share:.0f} % of a step of {step_seconds:.2f} s is waiting for data: give it more cores, "
                "storage nearer by, or examples that are decoded faster, see Throughput in docs/data.md"
            )
        return {"seconds_per_step": step_seconds, "data_wait_share": share}, slow

    def close(self) -> None:
        """Watches no longer."""
        self._closed.set()
        self._thread.join()

    def _forget(self) -> None:
        self._steps, self._seconds, self._feed_seconds = 0, 0.0, 0.0

    def _watch(self) -> None:
        watched, limit = None, self._stall_seconds
        while not self._closed.wait(self._stall_seconds / _LOOKS):
            running = self._running
            if running is None or running != watched:
                watched, limit = running, self._stall_seconds
            elif time.monotonic() - running.begun > limit:
                what = "its data" if self._is_feeding else "its devices, or other processes"
                who = f"process {jax.process_index()} of {jax.process_count()}"
                self._tell(f"step {running.step} has not ended in {limit:.0f} s: {who} waits for {what}")
                limit *= 2
