"""The one exception that the command line turns into one line and exit code 2."""

_LONGEST_REASON = 200


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, what was expected and what to do."""


def reason_of(error: Exception) -> str:
    """The first line of an error; of a long one its end, where TensorFlow and orbax tell what went wrong."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"... {line[-_LONGEST_REASON:]}"
