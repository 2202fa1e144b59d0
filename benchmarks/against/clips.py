"""Clips of moving_shapes as plain arrays on disk, which both sides draw from alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from against.sizes import Sizes
from phenaki_jax.data.moving_shapes import world
from phenaki_jax.data.moving_shapes.examples import ExampleSet, example_scene

_SEED = 0


def prepare(folder: Path, size: int, train: int, test: int) -> None:
    """Draws whole training and test clips of these numbers, where they are not there yet.

    They are the first ones of the data set that `phenaki_jax.data.moving_shapes.builder.prepare` makes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        path = _path(folder, split, size, count)
        if path.exists():
            continue
        examples = ExampleSet("video", split, size, seed=_SEED, count=count)
        clips = np.stack([world.render(example_scene(examples, index), size) for index in range(count)])
        begun = path.with_suffix(".begun.npy")
        np.save(begun, clips)
        begun.replace(path)


class Clips:
    """Windows of a model's length out of the clips of a split."""

    def __init__(self, folder: Path, split: str, count: int, sizes: Sizes) -> None:
        """Opens what `prepare` has drawn."""
        self._clips = np.load(_path(folder, split, sizes.frame_size, count), mmap_mode="r")
        self._frames = sizes.frames

    def batch(self, rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Windows that begin anywhere in clips drawn with replacement."""
        clips = rng.integers(len(self._clips), size=size)
        starts = rng.integers(self._clips.shape[1] - self._frames + 1, size=size)
        pairs = zip(clips, starts, strict=True)
        return np.stack([self._clips[clip, start : start + self._frames] for clip, start in pairs])

    def first_windows(self) -> UInt8[np.ndarray, "clips frames height width 3"]:
        """The beginning of every clip: of test clips, a held-out combination of colour, shape and motion."""
        return np.array(self._clips[:, : self._frames])


def psnr(videos: UInt8[np.ndarray, "..."], reconstructions: UInt8[np.ndarray, "..."]) -> float:
    """Mean over the clips of 10 log10 (255^2 / mean squared error of a clip), in dB."""
    error = (videos.astype(np.float64) - reconstructions.astype(np.float64)) ** 2
    per_clip = error.reshape(len(videos), -1).mean(axis=1)
    return float(np.mean(10 * np.log10(255**2 / np.maximum(per_clip, 1e-9))))


def _path(folder: Path, split: str, size: int, count: int) -> Path:
    return folder / f"{split}_{size}_{count}.npy"
