"""What tests and benchmarks/metric_oracles.py, which share no process, both begin with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8


def example_features(
    rows: int, width: int, seed: int, *, steepness: float = 0.0, shift: float = 0.0
) -> Float[np.ndarray, "{rows} {width}"]:
    """Float32 features that are at least 0, as those of networks that end in a ReLU and a mean over places.

    Args:
      rows: how many.
      width: features of each.
      seed: of the rows; what features have in common is the same for all seeds.
      steepness: decades over which deviations of independent directions fall.
      shift: how far the means, and a tenth of that, by which share the deviations, are from those of another set.
    """
    common = np.random.default_rng(12345)
    mix = np.linalg.qr(common.standard_normal((width, width)))[0]
    spectrum = 10.0 ** -np.linspace(0, steepness, width)
    means = 0.4 + 0.2 * common.random(width)
    hidden = np.random.default_rng(seed).standard_normal((rows, width)) * spectrum * (1 + shift / 10)
    return np.maximum(hidden @ mix * 0.2 + means + shift * 0.1, 0).astype(np.float32)


def example_clips() -> dict[str, tuple[UInt8[np.ndarray, "frames height width 3"], ...]]:
    """Pairs of clips to compare, by what makes them hard."""
    rng = np.random.default_rng(7)
    shape = (2, 48, 37, 3)
    smooth = np.broadcast_to(np.linspace(0, 255, 48)[:, None, None] * np.linspace(0.2, 1, 37)[:, None], shape)
    tones = np.where((np.arange(48)[:, None] // 16 + np.arange(37) // 16) % 2, 235.0, 20.0)
    two_tones = np.broadcast_to(tones[..., None], shape)
    pairs = {
        "noise": (rng.integers(0, 256, shape), rng.integers(0, 256, shape)),
        "smooth": (smooth, smooth + rng.normal(0, 4, shape)),
        "two_tones": (two_tones, two_tones + np.where(two_tones > 100, -2, 3)),
        "dark": (rng.integers(0, 4, (1, 11, 30, 3)), rng.integers(0, 4, (1, 11, 30, 3))),
        "flat": (np.full(shape, 51), np.full(shape, 204)),
    }
    return {
        name: tuple(np.clip(np.round(clip), 0, 255).astype(np.uint8) for clip in pair) for name, pair in pairs.items()
    }
