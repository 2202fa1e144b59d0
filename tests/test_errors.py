"""What ends a command early reaches the one who asked for it."""

import contextlib
import dataclasses
import importlib
import os
import pathlib
import re
import signal
import time
from collections.abc import Iterator

import pytest

from phenaki_jax.errors import UserError, check_types, half_written, raise_interrupt


@dataclasses.dataclass(frozen=True)
class _Inner:
    rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class _Outer:
    inner: _Inner
    name: str = "a"
    size: int = 1
    other: _Inner | None = None
    levels: tuple[int, ...] = ()
    inners: tuple[_Inner, ...] = ()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (_Inner(rate="0.9"), "_Inner.rate '0.9', a value of type str, expected a number"),
        (_Outer(_Inner(), name=3), "_Outer.name 3, a value of type int, expected text in quotes"),
        (_Outer(_Inner(), size=1e1), "_Outer.size 10.0, a value of type float, expected a whole number"),
        (_Outer(_Inner(), size=True), "_Outer.size True, a value of type bool, expected a whole number"),
        (_Outer("x"), "_Outer.inner 'x', a value of type str, expected a _Inner"),
        (_Outer(_Inner(), other=3), "_Outer.other 3, a value of type int, expected a _Inner or None"),
        (_Outer(_Inner(), levels=5), "_Outer.levels 5, a value of type int, expected whole numbers as in (8, 5)"),
        (_Outer(_Inner(), levels=(5.0,)), "_Outer.levels (5.0,), a value of type tuple, expected whole numbers as in"),
        (_Outer(_Inner(), inners=(3,)), "_Outer.inners (3,), a value of type tuple, expected a tuple of _Inner"),
    ],
)
def test_fields_of_another_type_are_refused(wrong: _Inner | _Outer, told: str) -> None:
    with pytest.raises(UserError, match=f"^found {re.escape(told)}"):
        check_types(wrong)


def test_fields_of_their_types_are_taken() -> None:
    check_types(_Outer(_Inner(rate=1), levels=(8, 5), inners=(_Inner(),)))
    check_types(_Outer(_Inner(), other=_Inner()))


@contextlib.contextmanager
def _interrupted_next() -> Iterator[None]:
    """Interrupts are raised as in commands, and one that the block asked for comes after it."""
    nothing, silent = os.pipe()
    before = signal.signal(signal.SIGINT, raise_interrupt)
    try:
        yield
        # Kept until the handler is another, as it comes again where it is swallowed.
        with pytest.raises(KeyboardInterrupt) as kept:
            os.read(nothing, 1)
    finally:
        signal.signal(signal.SIGINT, before)
        del kept
        os.close(nothing)
        os.close(silent)


def test_an_interrupt_that_is_swallowed_comes_again() -> None:
    """As often as it is; and not once a signal has another handler."""
    with _interrupted_next():
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    time.sleep(0.1)


def test_an_interrupt_during_an_import_waits_where_something_is_half_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere it ends the process, in which nothing could be tidied up."""
    (tmp_path / "interrupted_module.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\nended = True")
    monkeypatch.syspath_prepend(tmp_path)
    with half_written(), _interrupted_next():
        module = importlib.import_module("interrupted_module")
    assert module.ended
