"""The one exception that the command line turns into one line and exit code 2."""


class UserError(ValueError):
    """A mistake that the user can mend: the message says what was found, what was expected and what to do."""
