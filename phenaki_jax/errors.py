"""What ends a command early: the one exception that becomes one line and exit code 2, and interrupts."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_LONGEST_REASON = 200


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, what was expected and what to do."""


def reason_of(error: Exception) -> str:
    """The first line of an error; of a long one its end, where TensorFlow and orbax tell what went wrong."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"... {line[-_LONGEST_REASON:]}"


@contextlib.contextmanager
def told_unwritable(what: str, stays: str) -> Iterator[None]:
    """Turns what TensorFlow, orbax and the system raise of a full or read-only disk into a UserError.

    They raise it as errors of many kinds, so that every one counts; a UserError stays as it is.

    Args:
      what: is written.
      stays: what is left then, and how to go on.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{what} cannot be written ({reason_of(error)}); see that there is room and that it may be written to;"
            f" {stays}"
        ) from error


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """A handler of signals that raises KeyboardInterrupt, where it is not swallowed.

    JAX runs Python code whenever garbage is collected, out of which no exception comes; there the signal waits.
    """
    if frame is not None and frame.f_code.co_name == "_xla_gc_callback":
        # To the main thread, so that it also wakes it.
        threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, number)).start()
        return
    raise KeyboardInterrupt
