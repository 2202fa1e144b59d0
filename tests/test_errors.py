"""What ends a command early reaches the one who asked for it."""

import os
import signal

import pytest

from phenaki_jax.errors import raise_interrupt


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
