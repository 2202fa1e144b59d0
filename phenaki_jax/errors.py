"""What ends a command early: the one exception that becomes one line and exit code 2, and interrupts."""

import dataclasses
import os
import signal
import threading
import typing
from types import FrameType
from typing import Any

INTERRUPTED = 130
_LONGEST_REASON = 200


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, what was expected and what to do."""


def reason_of(error: Exception) -> str:
    """The first line of an error; of a long one its end, where TensorFlow and orbax tell what went wrong."""
    line = (getattr(error, "strerror", None) or str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"... {line[-_LONGEST_REASON:]}"


def check_types(settings: Any) -> None:
    """Refuses fields of a dataclass, and of those in it, that are numbers where text is meant, and the like."""
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, wanted = getattr(settings, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            check_types(value)
        if wanted == tuple[int, ...] and not (isinstance(value, tuple) and all(type(each) is int for each in value)):
            raise UserError(
                f"found {type(settings).__name__}.{field.name} {value!r}, expected whole numbers as in (8, 5)"
            )
        accepted = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(wanted)
        if accepted is not None and type(value) not in accepted:
            raise UserError(
                f"found {type(settings).__name__}.{field.name} {value!r}, a value of type {type(value).__name__}, "
                f"expected {wanted.__name__}"
            )


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """A handler of signals that raises KeyboardInterrupt, where it is not swallowed.

    JAX runs Python code whenever garbage is collected, out of which no exception comes; there the signal waits. While a
    module is imported it ends the process at once, which then holds nothing to tidy up: C extensions do not survive an
    exception while they are loaded.
    """
    if _is_importing(frame):
        os.write(2, b"phenaki: interrupted\n")
        os._exit(INTERRUPTED)
    if frame is not None and frame.f_code.co_name == "_xla_gc_callback":
        # To the main thread, so that it also wakes it.
        threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, number)).start()
        return
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
