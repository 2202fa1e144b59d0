"""What ends a command early reaches the one who asked for it."""

import errno
import os
import signal

import pytest

from phenaki_jax.errors import UserError, raise_interrupt, told_unwritable


def test_an_interrupt_during_garbage_collection_comes_after_it() -> None:
    """JAX's hook, known by its name, swallows exceptions; what is waited for next is woken."""
    ended = []

    def _xla_gc_callback() -> None:
        signal.raise_signal(signal.SIGINT)
        ended.append(True)

    nothing, silent = os.pipe()
    before = signal.signal(signal.SIGINT, raise_interrupt)
    try:
        _xla_gc_callback()
        with pytest.raises(KeyboardInterrupt):
            os.read(nothing, 1)
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(nothing)
        os.close(silent)
    assert ended


def test_what_cannot_be_written_is_told_with_what_stays() -> None:
    expected = r"the log cannot be written \(.*No space left.*\).*; the old one stays"
    with pytest.raises(UserError, match=expected), told_unwritable("the log", "the old one stays"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_users_mistake_is_told_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^a mistake$"), told_unwritable("the log", "the old one stays"):
        raise UserError("a mistake")
