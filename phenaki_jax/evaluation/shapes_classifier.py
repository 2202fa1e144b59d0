"""What a clip of `moving_shapes` shows, by a small network that was trained on them, and how far a caption is obeyed.

It sees colour, shape, motion and the colour at the end, of held-out combinations and of what only images show too; the
features before its answers are those of Fréchet and kernel distances. benchmarks/shapes_classifier.py trained it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int, UInt8
from safetensors.numpy import load_file

from phenaki_jax.data.moving_shapes import world
from phenaki_jax.errors import UserError
from phenaki_jax.layers.module import apply
from phenaki_jax.layers.pixels import check_uint8

WEIGHTS = Path(__file__).with_name("shapes_classifier.safetensors")
SIZE, FRAMES = 32, 11
FEATURES = 64
ANSWERS: dict[str, tuple[str, ...]] = {
    "color": tuple(world.COLORS),
    "shape": world.SHAPES,
    "motion": world.MOTIONS,
    "final_color": tuple(world.COLORS),
}
"""What it says, and between what it chooses."""

# Pixels along a side that are taken together before the first convolution.
_BLOCK = 2
_WIDTHS = (32, 64)
_LAST_WIDTH = 96
_PARTS = 3


class ShapesClassifier(nn.Module):
    """Convolutions over frames, each followed by one over time, whose means over parts of a clip make the features."""

    @nn.compact
    def __call__(self, clips: Float[Array, "batch frames size size 3"]) -> dict[str, Array]:
        """Features and, by the names in `ANSWERS`, logits.

        Args:
          clips: in [-1, 1], of `FRAMES` frames of `SIZE` x `SIZE` pixels.
        """
        batch, frames, size, _, colors = clips.shape
        blocks = clips.reshape(batch, frames, size // _BLOCK, _BLOCK, size // _BLOCK, _BLOCK, colors)
        hidden = blocks.swapaxes(3, 4).reshape(batch, frames, size // _BLOCK, size // _BLOCK, -1)
        for index, width in enumerate(_WIDTHS):
            hidden = jax.nn.relu(nn.Dense(width, name=f"space{index}")(_windows(hidden)))
            hidden = jax.nn.relu(nn.Dense(width, name=f"time{index}")(_with_neighbours(hidden)))
        hidden = jax.nn.relu(nn.Dense(_LAST_WIDTH, name="last")(_with_neighbours(hidden)))
        over_time = jnp.mean(hidden, axis=(2, 3))
        parts = [jnp.mean(part, axis=1) for part in jnp.array_split(over_time, _PARTS, axis=1)]
        features = jax.nn.relu(nn.Dense(FEATURES, name="features")(jnp.concatenate(parts, axis=-1)))
        logits = {name: nn.Dense(len(choices), name=name)(features) for name, choices in ANSWERS.items()}
        return {"features": features, **logits}


def _windows(hidden: Float[Array, "batch frames size size features"]) -> Float[Array, "batch frames half half more"]:
    """The features of 3 x 3 positions beside each other, around every second position along height and width.

    A dense layer of these is a convolution, whose gradient XLA is slow at on CPU.
    """
    size = hidden.shape[2]
    padded = jnp.pad(hidden, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    parts = [padded[:, :, row : row + size : 2, column : column + size : 2] for row in range(3) for column in range(3)]
    return jnp.concatenate(parts, axis=-1)


def _with_neighbours(hidden: Float[Array, "batch frames *rest"]) -> Float[Array, "batch frames *more"]:
    """The features of each frame beside those of the frame before and the one after; zeros where there is none."""
    padded = jnp.pad(hidden, [(0, 0), (1, 1), *[(0, 0)] * (hidden.ndim - 2)])
    return jnp.concatenate([padded[:, :-2], hidden, padded[:, 2:]], axis=-1)


def load_shapes_classifier() -> dict[str, Any]:
    """The parameters that come with the package, as float32 NumPy arrays."""
    params: dict[str, Any] = unflatten_dict(load_file(WEIGHTS), sep="/")
    return params


def flat_params(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters as `WEIGHTS` holds them."""
    return {name: np.asarray(array, np.float32) for name, array in flatten_dict(params, sep="/").items()}


def shapes_answers(
    params: Mapping[str, Any], clips: UInt8[Array, "batch frames height width 3"]
) -> dict[str, Float[Array, "batch _"]]:
    """Features and logits of clips, see `ShapesClassifier`, with products of float32 that no device rounds.

    Args:
      params: as `load_shapes_classifier` gives them.
      clips: RGB; of larger frames blocks are averaged.

    Raises:
      UserError: the clips are not uint8, of another length than `FRAMES`, or no whole multiple of `SIZE` large.
    """
    check_uint8("clips", clips)
    batch, frames, height, width, _ = clips.shape
    if frames != FRAMES or height != width or height % SIZE:
        raise UserError(
            f"found clips of {frames} frames of {height} x {width} pixels for the classifier of moving_shapes, "
            f"expected {FRAMES} frames of {SIZE} x {SIZE} or a multiple of it"
        )
    scale = height // SIZE
    blocks = clips.astype(jnp.float32).reshape(batch, frames, SIZE, scale, SIZE, scale, 3)
    with jax.default_matmul_precision("highest"):
        answers: dict[str, Array] = apply(ShapesClassifier(), params, jnp.mean(blocks, axis=(3, 5)) / 127.5 - 1.0)
    return answers


def expected_answers(captions: Sequence[str]) -> dict[str, Int[np.ndarray, " captions"]]:
    """What clips of these captions should be seen as, by index into `ANSWERS`.

    Raises:
      UserError: a text is no caption of a clip of `moving_shapes`.
    """
    segments = []
    for caption in captions:
        if caption not in _segments_by_caption():
            raise UserError(
                f"found the text {caption!r}, expected a caption of a moving_shapes clip, such as 'a red circle moves "
                "right': judge this task by another measure"
            )
        segments.append(_segments_by_caption()[caption])
    return {
        name: np.array([choices.index(getattr(segment, name)) for segment in segments], np.int32)
        for name, choices in ANSWERS.items()
    }


def obeyed(
    answers: Mapping[str, Float[Array, "batch _"]], expected: Mapping[str, Int[Array | np.ndarray, " batch"]]
) -> dict[str, Bool[Array, " batch"]]:
    """Which of colour, shape and motion are as told, and, as "all", whether all three are.

    The colour is right where that at the beginning and that at the end are.
    """
    right = {name: jnp.argmax(answers[name], axis=1) == expected[name] for name in ANSWERS}
    told = {
        "color": right["color"] & right["final_color"],
        "shape": right["shape"],
        "motion": right["motion"],
    }
    return {**told, "all": told["color"] & told["shape"] & told["motion"]}


@functools.cache
def _segments_by_caption() -> dict[str, world.Segment]:
    """Of every wording of whatever a clip may show."""
    segments = [
        world.Segment(color, shape, motion, target)
        for color in world.COLORS
        for shape in world.SHAPES
        for motion in world.MOTIONS
        for target in ([other for other in world.COLORS if other != color] if motion == "changes color" else [None])
    ]
    return {caption: segment for segment in segments for caption in world.captions(segment)}
