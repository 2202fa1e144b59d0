"""The one exception that the command line turns into one line and exit code 2."""

import contextlib
from collections.abc import Iterator

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
