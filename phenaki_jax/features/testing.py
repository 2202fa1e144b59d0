"""What tests and benchmarks/feature_oracles.py, which share no process, both begin with, and how they compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from phenaki_jax.features.i3d import ENDPOINTS
from phenaki_jax.features.lpips_weights import head_tensors

# What the fixtures are made of: seeds, and sizes that strides and poolings do not divide among them.
WEIGHTS, PIXELS, OTHER_PIXELS, HEADS, COTANGENTS = range(5)
FIXTURE_IMAGES = ((2, 32, 32, 3), (1, 35, 24, 3))
FIXTURE_BYTES = (2, 61, 48, 3)
FIXTURE_VIDEO = (1, 11, 64, 52, 3)
FIXTURE_VIDEO_OF_LOGITS = (1, 17, 193, 200, 3)
# As far as the gradient is looked at, which takes long to compile: one of each kind of layer, of each kind of strides.
FIXTURE_ENDPOINTS = ENDPOINTS[: ENDPOINTS.index("Mixed_4b")]

_SAMPLES = 32


def random_pixels(shape: tuple[int, ...], seed: int = PIXELS) -> np.ndarray:
    """Float32 colours, uniform in [-1, 1]."""
    return 2 * np.random.default_rng(seed).random(shape, np.float32) - 1


def random_bytes(shape: tuple[int, ...], seed: int = PIXELS) -> np.ndarray:
    """Colours in 0..255, uniform."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def random_heads(seed: int = HEADS) -> dict[str, np.ndarray]:
    """Tensors of LPIPS's heads as their file has them, uniform in [0, 1]."""
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape, np.float32) for name, shape in sorted(head_tensors().items())}


def cotangents(shapes: Mapping[str, tuple[int, ...]], seed: int = COTANGENTS) -> dict[str, np.ndarray]:
    """Normal weights for arrays of these shapes; the gradient of what they add up to is of every array at once."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shapes[name], np.float32) / np.float32(np.prod(shapes[name]))
        for name in sorted(shapes)
    }


def evaluate(
    network: Callable[[Any, Array], dict[str, Array]], params: Any, inputs: np.ndarray, gradient: bool
) -> dict[str, np.ndarray]:
    """What a network gives, by name, and where asked for, as "gradient", that of the sum of all by `cotangents`."""

    @jax.jit
    def compute(params: Any, inputs: Array) -> dict[str, Array]:
        if not gradient:
            return network(params, inputs)
        outputs, pull_back = jax.vjp(lambda inputs: network(params, inputs), inputs)
        (of_inputs,) = pull_back(cotangents({name: output.shape for name, output in outputs.items()}))
        return {**outputs, "gradient": of_inputs}

    return {name: np.asarray(values) for name, values in compute(params, inputs).items()}


def example_tensors() -> dict[str, np.ndarray]:
    """Tensors of many types and layouts, which the files in tests/features/fixtures hold.

    `bfloat16` is stored as such there; `transposed` as a view, and `row` as a part, of the storage of `matrix`.
    """
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 1
    return {
        "matrix": matrix,
        "transposed": matrix.T,
        "row": matrix[1],
        "parameter": np.array([0.5, -2.0], np.float32),
        "float16": np.array([[1.5], [-0.25]], np.float16),
        "bfloat16": np.array([1.0, -3.0, 0.125], np.float32),
        "float64": np.array([1e-300, 1e300]),
        "int64": np.array(-7),
        "uint8": np.arange(256, dtype=np.uint8),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }


def sample(values: np.ndarray) -> np.ndarray:
    """Some of an array's values, spread evenly over it, and the root mean square of all."""
    flat = np.asarray(values, np.float32).reshape(-1)
    places = np.linspace(0, flat.size - 1, min(_SAMPLES, flat.size)).round().astype(np.int64)
    return np.append(flat[places], np.sqrt(np.mean(np.square(flat.astype(np.float64))))).astype(np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, over the largest value expected."""
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
