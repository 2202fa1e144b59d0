"""What ends a command early: the exceptions that become one line and an exit code, and interrupts."""

import _thread
import contextlib
import dataclasses
import difflib
import errno
import os
import signal
import threading
import time
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

INTERRUPTED = 130
# As sysexits.h has it: another attempt may go well.
TEMPORARY = 75
_LONGEST_REASON = 200
_AGAIN_SECONDS = 0.01
_PASSING = (errno.EIO, errno.ETIMEDOUT, errno.ESTALE, errno.ENOTCONN, errno.ECONNRESET, errno.EAGAIN)
# As TensorFlow and tensorstore tell them.
_SIGNS_OF_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", *map(os.strerror, _PASSING))
_IN_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    bool: "True or False",
    types.NoneType: "None",
    tuple[int, ...]: "whole numbers as in (8, 5)",
    tuple[str, ...]: "texts as in ('a', 'b')",
}


class Stopped(KeyboardInterrupt):
    """What was asked to stop from outside, as a job that is preempted is, has stopped with all it did saved."""

    exit_code = 0


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, what was expected and what to do."""

    exit_code = 2


class TemporaryError(UserError):
    """Nobody's mistake, as of processes that are gone or storage that fails: the same command may go well later."""

    exit_code = TEMPORARY


def may_pass(error: Exception) -> bool:
    """Whether an error is one of storage or network that fail now and then."""
    return getattr(error, "errno", None) in _PASSING or any(sign in str(error) for sign in _SIGNS_OF_PASSING)


def reason_of(error: Exception) -> str:
    """The first line of an error; of a long one its end, where TensorFlow and orbax tell what went wrong."""
    line = (getattr(error, "strerror", None) or str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"... {line[-_LONGEST_REASON:]}"


def kind_of(value: object) -> str:
    """What a value is, in words: "None", "a list", "an OrderedDict"."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def counted(number: int, noun: str) -> str:
    """So many of something: "1 frame", "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def near(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Asks whether the nearest of the known names was meant, see `nearest`: "did you mean STEPS? " or ""."""
    found = nearest(name, known, likeness)
    return f"did you mean {found}? " if found else ""


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The known name that is most like another, small letters or large; empty where none is so like, from 0 to 1."""
    by_letters = {each.lower(): each for each in sorted(set(known))}
    found = difflib.get_close_matches(name.lower(), by_letters, n=1, cutoff=likeness)
    return by_letters[found[0]] if found else ""


def check_types(settings: Any) -> None:
    """Refuses a dataclass with a field of another type than it declares, such as a number where text is meant.

    Dataclasses check what they hold with this when they are made, before they ask for more of it.

    Raises:
      UserError: names the first such field, its value and what is expected.
    """
    kind = type(settings)
    check_values(
        kind.__name__,
        typing.get_type_hints(kind),
        {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)},
    )


def check_values(owner: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuses values of other types than declared, as `check_types` does.

    Args:
      owner: whose values they are, for errors.
      hints: numbers, text, dataclasses, runtime protocols, tuples of any length and unions of these; any value goes
        for other types.
      values: by the same names.

    Raises:
      UserError: names the first such value and what is expected.
    """
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise UserError(
                f"found {owner}.{name} {value!r}, a value of type {type(value).__name__}, "
                f"expected {_in_words(hints[name])}"
            )


def check_at_least(settings: Any, least: int, *names: str) -> None:
    """Refuses a dataclass with a field below this.

    Raises:
      UserError: names the first such field and its value.
    """
    for name in names:
        if getattr(settings, name) < least:
            raise UserError(f"found {name} {getattr(settings, name)}, expected at least {least}")


def check_process(process: int, processes: int) -> None:
    """Refuses a number that none of so many processes has.

    Raises:
      UserError: says which they have.
    """
    if not 0 <= process < processes:
        raise UserError(f"found process {process} of {processes}, expected 0 to {processes - 1}")


def _fits(value: Any, wanted: Any) -> bool:
    choices = typing.get_args(wanted)
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        return any(_fits(value, choice) for choice in choices)
    if typing.get_origin(wanted) is tuple and choices[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(each, choices[0]) for each in value)
    if isinstance(value, bool) and wanted in (int, float):
        return False
    if wanted in _IN_WORDS or dataclasses.is_dataclass(wanted) or getattr(wanted, "_is_runtime_protocol", False):
        return isinstance(value, (int, float) if wanted is float else wanted)
    return True


def _in_words(wanted: Any) -> str:
    if wanted in _IN_WORDS:
        return _IN_WORDS[wanted]
    choices = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        return f"a tuple of {choices[0].__name__}"
    if choices:
        return " or ".join(map(_in_words, choices))
    return f"{'an' if wanted.__name__[0] in 'AEIOU' else 'a'} {wanted.__name__}"


@dataclasses.dataclass
class _HalfWritten:
    count: int = 0


_half_written = _HalfWritten()


@dataclasses.dataclass
class _Told:
    file: int = 2


_told = _Told()


@contextlib.contextmanager
def stderr_elsewhere(file: int) -> Iterator[None]:
    """While stderr is hidden, where an interruption is told nevertheless.

    Args:
      file: the descriptor of what stderr was.
    """
    _told.file = file
    try:
        yield
    finally:
        _told.file = 2


@contextlib.contextmanager
def half_written() -> Iterator[None]:
    """While something is there that an interrupted process has to tidy up, see `raise_interrupt`."""
    _half_written.count += 1
    try:
        yield
    finally:
        _half_written.count -= 1


class Interrupt(KeyboardInterrupt):
    """Sends its signal again where it dies while signals are still handled as before: somebody has swallowed it.

    JAX does so with any exception that comes while it traces the scores of attention, and Python with those out of what
    it calls while garbage is collected.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._handler = signal.getsignal(number)

    def __del__(self) -> None:
        _send_again(self._number, self._handler)


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """A handler of signals that raises KeyboardInterrupt, again and again until the signal has another handler.

    While a module is imported it ends the process at once, as C extensions do not survive an exception while they are
    loaded; but where something is `half_written`, the signal waits until the module is there.
    """
    if not _is_importing(frame):
        raise Interrupt(number)
    if not _half_written.count:
        os.write(_told.file, b"phenaki: interrupted\n")
        os._exit(INTERRUPTED)
    _send_again(number, signal.getsignal(number))


def _send_again(number: int, handler: object) -> None:
    """A little later, if the signal still has this handler then, and to the main thread, so that it also wakes it."""

    def send() -> None:
        time.sleep(_AGAIN_SECONDS)
        if signal.getsignal(number) == handler:
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    if signal.getsignal(number) == handler:
        # Not threading.Thread, whose locks the interrupted code may hold.
        _thread.start_new_thread(send, ())


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
