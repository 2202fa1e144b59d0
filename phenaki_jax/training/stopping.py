"""Stopping between two steps when a signal asks for it, after the same step in all processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from phenaki_jax.errors import Stopped, raise_interrupt

_TOLD = b"\nstopping after this step and saving; once more to stop at once\n"


class StopRequests:
    """What signals have asked for.

    In a training of several processes SIGTERM is the runtime's: it tells the others, and all agree on the step.

    Attributes:
      kind: what a training that was stopped raises: `Stopped` by SIGTERM, KeyboardInterrupt by Ctrl-C.
    """

    def __init__(self) -> None:
        self.kind: type[KeyboardInterrupt] = KeyboardInterrupt
        self._is_requested = False
        self._asked = 0

    def requested(self) -> bool:
        """Whether to stop after this step; asked once after each, by every process."""
        if jax.process_count() == 1:
            return self._is_requested
        if not self._is_requested:
            self.kind = Stopped
        # Counted from 1 in every run: of a request that came before, all agree to stop after the first.
        self._asked += 1
        return multihost_utils.reached_preemption_sync_point(self._asked)

    def heed(self, number: int, frame: FrameType | None) -> None:
        """The handler of signals: the first one asks to stop after this step, a second one stops at once."""
        if self._is_requested:
            raise_interrupt(number, frame)
            return
        self._is_requested = True
        self.kind = Stopped if number == signal.SIGTERM else KeyboardInterrupt
        # Not print: the signal may have come while this thread was printing.
        os.write(2, _TOLD)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Turns Ctrl-C and SIGTERM into requests."""
    stop = StopRequests()
    numbers = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    try:
        before = {number: signal.signal(number, stop.heed) for number in numbers}
    except ValueError:  # not in the main thread: whoever owns that one handles signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
