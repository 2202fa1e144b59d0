"""What ends a command early reaches the one who asked for it."""

import dataclasses
import os
import signal

import pytest

from phenaki_jax.errors import UserError, check_types, raise_interrupt


@dataclasses.dataclass(frozen=True)
class _Inner:
    rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class _Outer:
    inner: _Inner
    name: str = "a"
    size: int = 1


def test_fields_of_another_type_are_refused_however_deep() -> None:
    check_types(_Outer(_Inner(rate=1)))
    for wrong, told in (
        (_Outer(_Inner(rate="0.9")), "found _Inner.rate '0.9', a value of type str, expected float"),
        (_Outer(_Inner(), name=3), "found _Outer.name 3, a value of type int, expected str"),
        (_Outer(_Inner(), size=1e1), "found _Outer.size 10.0, a value of type float, expected int"),
        (_Outer(_Inner(), size=True), "found _Outer.size True, a value of type bool, expected int"),
    ):
        with pytest.raises(UserError, match=told):
            check_types(wrong)


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
