"""Trains the classifier by which `moving_shapes` are evaluated, and tells how often it is right.

    make bench BENCH=shapes_classifier
    make bench BENCH=shapes_classifier ARGS=--write

Clips are windows of one segment, as the opening windows of moving_shapes_video_text are, of all colours, shapes and
motions that the world knows. In training they are softened, noisy and shifted in colour at random, since drawn and
reconstructed clips are. Accuracies are of clips of another seed, as they are and softened by two passes of a 1 2 1
filter with noise of deviation 4. All seeds are fixed; with `--write`, the parameters are written into the package.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from safetensors.numpy import save_file
from tqdm import tqdm

from phenaki_jax import __version__
from phenaki_jax.data.moving_shapes import world
from phenaki_jax.evaluation.shapes_classifier import (
    ANSWERS,
    FRAMES,
    SIZE,
    WEIGHTS,
    ShapesClassifier,
    flat_params,
    obeyed,
)
from phenaki_jax.layers.module import apply

_BATCH = 32
_LEARNING_RATE = 2e-3
_SEGMENTS = 3
_SCALED_BY = 2048
_TRAIN_SEED, _TEST_SEED, _INITIAL_SEED = 11, 12, 13

Labels = dict[str, np.ndarray]


def windows(scenes: int, seed: int) -> tuple[np.ndarray, Labels]:
    """A window of each segment of so many scenes, and what it shows by index into `ANSWERS`."""
    clips = np.empty((scenes * _SEGMENTS, FRAMES, SIZE, SIZE, 3), np.uint8)
    labels: dict[str, list[int]] = {name: [] for name in ANSWERS}
    for number in tqdm(range(scenes), "scenes", disable=None):
        rng = np.random.default_rng((seed, number))
        scene = world.sample_scene(rng, segments=_SEGMENTS, colors=tuple(world.COLORS), shapes=world.SHAPES)
        frames = world.render(scene, SIZE)
        for index, segment in enumerate(scene.segments):
            latest = 0 if segment.target_color else world.SEGMENT_FRAMES - FRAMES
            start = index * world.SEGMENT_FRAMES + rng.integers(latest + 1)
            clips[number * _SEGMENTS + index] = frames[start : start + FRAMES]
            for name, choices in ANSWERS.items():
                labels[name].append(choices.index(getattr(segment, name)))
    return clips, {name: np.array(values, np.int32) for name, values in labels.items()}


def disturbed(clips: Array, noise: Array, rng: Array) -> Array:
    """Clips as [-1, 1], each softened none to two times, with noise and a shift in colour of its own.

    The noise is one array, begun at another place each time: to draw it anew takes as long as the network.
    """
    soft_rng, level_rng, noise_rng, shift_rng = jax.random.split(rng, 4)
    batch, clips = len(clips), to_float(clips)
    passes = jax.random.randint(soft_rng, (batch, 1, 1, 1, 1), 0, 3)
    for number in range(2):
        clips = jnp.where(passes > number, softened(clips), clips)
    level = jax.random.uniform(level_rng, (batch, 1, 1, 1, 1), maxval=10 / 127.5)
    clips += level * jnp.roll(noise, jax.random.randint(noise_rng, (), 0, noise.size)).reshape(clips.shape)
    shift = jax.random.normal(shift_rng, (batch, 1, 1, 1, 3)) * 5 / 127.5
    return jnp.clip(clips + shift, -1.0, 1.0)


def softened(clips: Array) -> Array:
    """A 1 2 1 filter along height and width."""
    for axis in (2, 3):
        ends = [(1, 1) if each == axis else (0, 0) for each in range(5)]
        padded = jnp.pad(clips, ends, "edge")
        size = clips.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(3)]
        clips = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return clips


def to_float(clips: Array) -> Array:
    """0..255 to [-1, 1]."""
    return clips.astype(jnp.float32) / 127.5 - 1.0


def loss(params: Any, clips: Array, labels: dict[str, Array]) -> Array:
    """The sum of the cross-entropies of all answers."""
    answers = apply(ShapesClassifier(), params, clips)
    each = [optax.softmax_cross_entropy_with_integer_labels(answers[name], labels[name]).mean() for name in ANSWERS]
    return sum(each[1:], start=each[0])


def train(clips: np.ndarray, labels: Labels, steps: int) -> Any:
    """Parameters after so many steps of Adam, whose rate falls to 0 as a cosine after a warm-up."""
    rate = optax.warmup_cosine_decay_schedule(0.0, _LEARNING_RATE, steps // 20, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-3))
    key = jax.random.key(_INITIAL_SEED)
    params = ShapesClassifier().init(key, jnp.zeros((1, FRAMES, SIZE, SIZE, 3)))["params"]
    state = optimizer.init(params)
    noise = jax.random.normal(key, (_BATCH * clips[0].size,))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, clips: Array, labels: dict[str, Array]) -> tuple[Any, Any, Array]:
        value, gradient = jax.value_and_grad(loss)(params, clips, labels)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    # By itself: XLA would compute it anew for each place that reads a pixel.
    disturb = jax.jit(disturbed)
    order = np.random.default_rng(_INITIAL_SEED)
    with tqdm(range(steps), "steps", disable=None) as progress:
        for number in progress:
            rows = order.integers(len(clips), size=_BATCH)
            batch = {name: values[rows] for name, values in labels.items()}
            shown = disturb(clips[rows], noise, jax.random.fold_in(key, number))
            params, state, value = step(params, state, shown, batch)
            if number % 100 == 99:
                progress.set_postfix(loss=f"{value:.3f}")
    return params


def scaled(params: Any, clips: np.ndarray) -> Any:
    """The same network with features whose variances over clips are 1 in their mean, so that distances are handy."""
    answers = jax.jit(lambda params, clips: apply(ShapesClassifier(), params, to_float(clips)))(params, clips)
    scale = 1 / float(jnp.sqrt(jnp.mean(jnp.var(answers["features"], axis=0))))
    layers = {"features": jax.tree.map(lambda each: each * scale, params["features"])}
    layers |= {name: params[name] | {"kernel": params[name]["kernel"] / scale} for name in ANSWERS}
    return params | layers


def accuracies(params: Any, clips: np.ndarray, labels: Labels, *, disturb: bool) -> dict[str, float]:
    """The shares of clips whose colour, shape, motion, and all of these, are seen right."""

    @jax.jit
    def right(params: Any, clips: Array, labels: dict[str, Array], rng: Array) -> dict[str, Array]:
        clips = to_float(clips)
        if disturb:
            clips = softened(softened(clips)) + 4 / 127.5 * jax.random.normal(rng, clips.shape)
        return obeyed(apply(ShapesClassifier(), params, clips), labels)

    found = []
    for start in range(0, len(clips) - len(clips) % _BATCH, _BATCH):
        rows = slice(start, start + _BATCH)
        batch = {name: values[rows] for name, values in labels.items()}
        found.append(jax.device_get(right(params, clips[rows], batch, jax.random.key(start))))
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def main() -> None:
    """Trains, and prints accuracies as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", type=int, default=4000, help="of training, of 3 clips each")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--test_scenes", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help=f"write {Path(WEIGHTS).name}")
    args = parser.parse_args()
    clips, labels = windows(args.scenes, _TRAIN_SEED)
    params = scaled(train(clips, labels, args.steps), clips[:_SCALED_BY])
    test = windows(args.test_scenes, _TEST_SEED)
    told = {
        "name": "shapes_classifier",
        "clips": len(test[0]) - len(test[0]) % _BATCH,
        "accuracy": accuracies(params, *test, disturb=False),
        "accuracy_softened": accuracies(params, *test, disturb=True),
        "steps": args.steps,
        "parameters": sum(array.size for array in jax.tree.leaves(params)),
        "versions": {"phenaki_jax": __version__, "jax": jax.__version__},
    }
    if args.write:
        save_file(flat_params(params), WEIGHTS)
        WEIGHTS.chmod(0o644)  # safetensors lets nobody else read it
    print(json.dumps(told))


if __name__ == "__main__":
    main()
