"""What seqio says at length, and twice, told once and in one line."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from phenaki_jax.errors import UserError

_ABSENT = re.compile(r"missing an expected feature during \w+ validation: '(\w+)'")
_WRONG_TYPE = re.compile(r"incorrect type for feature '(\w+)'.* Got (\w+), expected (\w+)", re.DOTALL)


@contextlib.contextmanager
def told_features(mixture: str) -> Iterator[None]:
    """Tells in one line what seqio refuses of a task's features.

    Args:
      mixture: whose tasks they are.

    Raises:
      UserError: a feature is absent, or of another type.
    """
    try:
        yield
    except ValueError as error:
        if absent := _ABSENT.search(str(error)):
            raise UserError(
                f"the examples of {mixture} have no {absent[1]}, expected it: add it in the task"
            ) from error
        if not (found := _WRONG_TYPE.search(str(error))):
            raise
        feature, kind, expected = found.groups()
        what = "videos" if feature == "video" else feature
        values = " in 0..255" if expected == "uint8" else ""
        raise UserError(
            f"the {what} of {mixture} are {kind}, expected {expected}{values}: convert them in the task"
        ) from error


@contextlib.contextmanager
def without_repeated_errors() -> Iterator[None]:
    """A mixture of seqio logs the errors that it passes on; whoever catches them tells them once."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Failed to load task")

    logger = logging.getLogger("absl")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
