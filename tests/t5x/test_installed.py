"""Whether t5x is here, told where `make test` leaves the slow tests of it out without a word."""

import importlib.util

import pytest


def test_t5x_and_what_it_imports_are_found() -> None:
    if importlib.util.find_spec("t5x") is None:
        pytest.skip("t5x is not installed, nor are its slow tests run: launch/install_t5x.sh")
    assert all(importlib.util.find_spec(name) for name in ("airio", "jestimator", "seqio"))
