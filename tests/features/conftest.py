"""Weights drawn once, and what torch made of the same ones (benchmarks/feature_oracles.py --write-fixtures)."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.features import testing
from phenaki_jax.features.random_weights import random_i3d, random_vgg16

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def vgg16() -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_vgg16(testing.WEIGHTS))


@pytest.fixture(scope="session")
def i3d() -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, random_i3d(testing.WEIGHTS))


@pytest.fixture(scope="session")
def fixtures() -> pathlib.Path:
    return FIXTURES


@pytest.fixture(scope="session")
def is_torchs() -> Callable[[str, str, dict[str, np.ndarray]], None]:
    """Asserts that outputs are torch's, within a ten-thousandth of the largest value."""

    def compare(file: str, run: str, found: dict[str, np.ndarray]) -> None:
        with np.load(FIXTURES / file) as samples:
            expected = {key.partition("/")[2]: samples[key] for key in samples.files if key.startswith(f"{run}/")}
        assert found.keys() == expected.keys()
        errors = {name: testing.relative_error(testing.sample(found[name]), expected[name]) for name in expected}
        assert max(errors.values()) < 1e-4, errors

    return compare
