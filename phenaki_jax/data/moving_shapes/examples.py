"""The examples of `moving_shapes`: which scene each one shows, its truth, and its frames as PNG.

Free of TensorFlow, so that the processes that draw examples start in a moment.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from phenaki_jax.data.moving_shapes import world

KINDS = ("video", "image")
SPLITS = ("train", "test")
VIDEO_SEGMENTS = 3

_EXAMPLES_PER_TASK = 64
_MOST_WORKERS = 16
# Few shapes turn, and a turning one looks like no other: it needs more practice.
_TRAINING_WEIGHTS = {"turns": 2.0}
_FASTEST_COMPRESSION = 1
_FRAMES_AT_ONCE = 6


@dataclasses.dataclass(frozen=True)
class ExampleSet:
    """One split: examples 0 to `count`, each of which depends on nothing but this set's kind, split and seed.

    Attributes:
      kind: "video" (segments of `world.SEGMENT_FRAMES` frames) or "image" (one frame).
      split: "train" or "test".
      size: the frame's side in pixels; the scenes are the same for every size.
      seed: another seed gives other examples.
      count: how many examples there are.
    """

    kind: str
    split: str
    size: int
    seed: int
    count: int


def example_scene(examples: ExampleSet, index: int) -> world.Scene:
    """The scene of one example.

    Training clips never show a held-out combination, and the first segments of test clips show the held-out ones in
    turn. Of the images, every second one shows a colour or a shape that no video shows.
    """
    origin = (examples.seed, KINDS.index(examples.kind), SPLITS.index(examples.split), index)
    rng = np.random.default_rng(origin)
    held_out = world.held_out_combinations()
    if examples.kind == "image":
        color, shape = _image_concepts(index)
        return world.sample_image(rng, color=color, shape=shape)
    if examples.split == "train":
        return world.sample_scene(rng, segments=VIDEO_SEGMENTS, forbidden=held_out, weights=_TRAINING_WEIGHTS)
    return world.sample_scene(rng, segments=VIDEO_SEGMENTS, first=sorted(held_out)[index % len(held_out)])


def example_features(examples: ExampleSet, index: int) -> dict[str, Any]:
    """One example as the dataset stores it: PNG frames, all wordings of the captions, and the truth per segment."""
    scene = example_scene(examples, index)
    return {
        "index": index,
        "frames": [encode_png(frame) for frame in _render(scene, examples.size)],
        "captions": [world.captions(segment) for segment in scene.segments],
        "color": [segment.color for segment in scene.segments],
        "shape": [segment.shape for segment in scene.segments],
        "motion": [segment.motion for segment in scene.segments],
        "target_color": [segment.target_color or "" for segment in scene.segments],
    }


def fingerprint(kind: str, size: int, seed: int) -> str:
    """Eight hexadecimal digits that change as soon as the world draws, tells or holds out anything otherwise.

    Made of some training examples, of every colour, shape and motion once, and of what is held out.
    """
    rng = np.random.default_rng(seed)
    scenes = [example_scene(ExampleSet(kind, "train", size, seed, count=8), index) for index in range(8)]
    scenes += [world.sample_image(rng, color=color, shape="square") for color in world.COLORS]
    scenes += [world.sample_image(rng, color="red", shape=shape) for shape in world.SHAPES]
    scenes += [world.sample_scene(rng, segments=1, first=("red", "square", motion)) for motion in world.MOTIONS]
    digest = zlib.crc32(repr((sorted(world.held_out_combinations()), _TRAINING_WEIGHTS)).encode())
    for scene in scenes:
        told = repr([world.captions(segment) for segment in scene.segments])
        digest = zlib.crc32(world.render(scene, size).tobytes() + told.encode(), digest)
    return f"{digest:08x}"


def generate_examples(examples: ExampleSet) -> Iterator[dict[str, Any]]:
    """All examples in order, drawn by several processes where there are enough examples to be worth it."""
    tasks = [
        range(start, min(start + _EXAMPLES_PER_TASK, examples.count))
        for start in range(0, examples.count, _EXAMPLES_PER_TASK)
    ]
    workers = min(_available_cpus(), len(tasks) // 2, _MOST_WORKERS)
    if workers < 2:
        for task in tasks:
            yield from _draw(examples, task)
        return
    # TensorFlow and JAX have started threads by now, which a forked process would inherit half: spawn.
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _set_up_worker)
    try:
        for drawn in pool.map(_draw, [examples] * len(tasks), tasks):
            yield from drawn
    finally:
        pool.shutdown(cancel_futures=True)


def encode_png(frame: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A frame as PNG, without row filters: for flat drawings smaller than with them, and several times faster.

    Pillow takes three to five times as long for frames this small.
    """
    height, width, _ = frame.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = frame.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(rows.tobytes(), _FASTEST_COMPRESSION)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _render(scene: world.Scene, size: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames of a scene, a few at a time: with larger arrays, most of the time goes to getting their memory."""
    for start in range(0, len(scene.poses), _FRAMES_AT_ONCE):
        yield from world.render(dataclasses.replace(scene, poses=scene.poses[start : start + _FRAMES_AT_ONCE]), size)


def _image_concepts(index: int) -> tuple[str, str]:
    """(colour, shape) of an image: by turns one that videos show too and one that they do not."""
    shown = [(color, shape) for color in world.VIDEO_COLORS for shape in world.VIDEO_SHAPES]
    unseen = [(color, shape) for color in world.COLORS for shape in world.SHAPES if (color, shape) not in shown]
    concepts = unseen if index % 2 else shown
    return concepts[index // 2 % len(concepts)]


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _draw(examples: ExampleSet, indices: range) -> list[dict[str, Any]]:
    return [example_features(examples, index) for index in indices]


def _set_up_worker() -> None:
    """Leaves an interruption to the parent, and ends with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
