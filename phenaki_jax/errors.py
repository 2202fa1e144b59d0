"""What ends a command early: the one exception that becomes one line and exit code 2, and interrupts."""

import signal
import threading
from types import FrameType

_LONGEST_REASON = 200


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, what was expected and what to do."""


def reason_of(error: Exception) -> str:
    """The first line of an error; of a long one its end, where TensorFlow and orbax tell what went wrong."""
    line = (getattr(error, "strerror", None) or str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"... {line[-_LONGEST_REASON:]}"


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """A handler of signals that raises KeyboardInterrupt, where it is not swallowed.

    JAX runs Python code whenever garbage is collected, out of which no exception comes; there the signal waits.
    """
    if frame is not None and frame.f_code.co_name == "_xla_gc_callback":
        # To the main thread, so that it also wakes it.
        threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, number)).start()
        return
    raise KeyboardInterrupt
