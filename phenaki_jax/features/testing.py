"""What tests and benchmarks/feature_oracles.py, which share no process, both begin with, and how they compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from phenaki_jax.features.clip import ClipConfig, TowerConfig
from phenaki_jax.features.clip_tokenizer import END, START, WORD_END, byte_symbols
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

FIXTURE_CLIP = ClipConfig(
    vision=TowerConfig(layers=2, width=48, heads=3),
    text=TowerConfig(layers=3, width=32, heads=2),
    image_size=32,
    patch_size=8,
    vocabulary_size=600,
    text_length=12,
    width=24,
)
# Spaces, capitals, endings, numbers, punctuation, other scripts, and words of the vocabulary below.
PLAIN_TEXTS = (
    "A red circle moves left.",
    "  the RED\tcircle's   moving,\n then it isn't! ",
    "I'd say they've 2024 circles & 3.5 squares... (they're 10)",
    "naïve cafe\u0301 über Ωmega 圆形 круг 🎬🎬",
    "rock'n'roll 'tis '90s o'clock's",
    "½ ² Ⅷ x₂ ___ --- a_b e-mail http://example.org/?q=1",
    "<|startoftext|>red<|endoftext|> circle",
)
# What is mended in a text before it is split.
UNTIDY_TEXTS = (
    "It&#39;s &lt;b&gt;red&lt;/b&gt; &amp;amp; round",
    "\u201cthe circle\u2019s\u201d \ufb01nal mo\ufb03t",
    "\uff32\uff25\uff24 circle\uff01 12\u2009000\u00a0km",
    "red\x07 cir\ufeffcle",
)

_SAMPLES = 32


def random_pixels(shape: tuple[int, ...], seed: int = PIXELS) -> np.ndarray:
    """Float32 colours, uniform in [-1, 1]."""
    return 2 * np.random.default_rng(seed).random(shape, np.float32) - 1


def random_bytes(shape: tuple[int, ...], seed: int = PIXELS) -> np.ndarray:
    """Colours in 0..255, uniform."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def random_clip_tokens(config: ClipConfig, texts: int, seed: int = PIXELS) -> np.ndarray:
    """Ids of texts of several lengths, one of them as long as can be, filled up with ends."""
    rng, end = np.random.default_rng(seed), config.vocabulary_size - 1
    tokens = rng.integers(0, end - 1, (texts, config.text_length), np.int32)
    for row, length in zip(tokens, np.linspace(1, config.text_length - 1, texts).round().astype(int), strict=True):
        row[0], row[length:] = end - 1, end
    return tokens


def example_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A small vocabulary of CLIP's kind: all bytes, and pairs that make a few words, some of which share beginnings."""
    merges: list[tuple[str, str]] = []
    for word in ("the", "then", "red", "re", "circle", "circles", "moves", "moving", "'s", "left", "20", "..", "über"):
        parts = [byte_symbols()[byte] for byte in word.encode()]
        parts[-1] += WORD_END
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
    symbols = [*byte_symbols().values()]
    entries = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, merges), START, END]
    return {entry: number for number, entry in enumerate(entries)}, merges


def write_vocabulary(
    folder: Path, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> tuple[Path, Path]:
    """Writes vocab.json and merges.txt as they are published."""
    files = folder / "vocab.json", folder / "merges.txt"
    files[0].write_text(json.dumps(vocabulary))
    files[1].write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", "utf-8")
    return files


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
