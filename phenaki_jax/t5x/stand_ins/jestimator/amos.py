"""The optimizer Amos, which is not here."""

from typing import Any, NamedTuple, NoReturn


class ScaleByAmosState(NamedTuple):
    """A state that nothing has."""


def amos(*_: Any, **__: Any) -> NoReturn:
    """Refuses to be an optimizer.

    Raises:
      ImportError: always.
    """
    raise ImportError("Amos is an optimizer of jestimator, which is not installed: install it, or take another one")
