"""The tokenizer's feed from disk to device: clips per second of one core, and how long a training waits for them.

    make bench BENCH=feed

The clips are 17 frames of 128 px as JPEG of the quality that `phenaki prepare` has unless asked otherwise, of textures
with grain, so that they are as many bytes as filmed video. The feed cuts windows of 11 frames. A core's second is a
second of CPU time of the process, so that others on the machine do not count. Then a training of a tiny tokenizer of
128 px reads the same clips, and its log says which share of its steps it waited for data.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from phenaki_jax.data.feed import make_feed
from phenaki_jax.data.prepare.metadata import SETTINGS_FILE, STATISTICS_FILE, shard_name
from phenaki_jax.data.prepare.pictures import encode_jpeg
from phenaki_jax.data.prepare.records import encode_example, framed
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.tensorflow_stack import tf
from phenaki_jax.training import loop
from phenaki_jax.training.train import settings_of

_NAME, _SIZE, _FRAMES, _WINDOW, _FILES = "clips", 128, 17, 11, 8
_AIMS = {"ratio": ">= 1, clips per core and second over 150", "data_wait_share": "<= .02"}
_CLIPS_AIMED_AT = 150
_GRAIN, _OCTAVES = 2.0, (2, 4, 8, 16, 32, 64)
_TINY = {
    "FRAMES": _WINDOW,
    "FRAME_SIZE": _SIZE,
    "PATCH": 16,
    "TEMPORAL_WINDOW": 6,
    "MIXTURE": f"'{_NAME}'",
    "EVAL_MIXTURE": f"'{_NAME}'",
    "loop.Schedule.checkpoint_every": 10**6,
    "loop.Schedule.eval_every": 10**6,
    "loop.Schedule.images_every": 10**6,
}


def write_clips(data_dir: Path, count: int) -> float:
    """A dataset as `phenaki prepare` lays it out, of as many clips for training; returns KiB of a frame."""
    rng = np.random.default_rng(0)
    settings = PrepareSettings(name=_NAME, size=_SIZE, frames=_FRAMES)
    folder = data_dir / _NAME / settings.version
    folder.mkdir(parents=True)
    sizes: list[int] = []
    for split, clips in (("train", count), ("test", 32)):
        records = []
        for index in range(clips):
            encoded = [encode_jpeg(frame, settings.quality) for frame in _frames(rng)]
            sizes += map(len, encoded)
            record = encode_example(
                encoded, ["a texture"], source=str(index), start=0.0, fps=settings.fps, original_size=(_SIZE, _SIZE)
            )
            records.append(framed(record))
        for file in range(_FILES):
            (folder / shard_name(_NAME, split, file, _FILES)).write_bytes(b"".join(records[file::_FILES]))
    (folder / SETTINGS_FILE).write_text(settings.text())
    splits = {"train": {"examples": count}, "test": {"examples": 32}}
    (folder / STATISTICS_FILE).write_text(json.dumps({"splits": splits}))
    return statistics.mean(sizes) / 2**10


def _frames(rng: np.random.Generator) -> list[Image.Image]:
    """A texture that is as strong at every scale and moves by a pixel a frame, with grain."""
    wide = _SIZE + _FRAMES
    texture = np.full((_SIZE, wide, 3), 128.0)
    for cells in _OCTAVES:
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        smooth = np.asarray(coarse.resize((wide, _SIZE), Image.Resampling.BICUBIC), np.float32)
        texture += (smooth - 128) * 0.8 / cells**0.5
    windows = (texture[:, index : index + _SIZE] for index in range(_FRAMES))
    grainy = (window + rng.normal(0, _GRAIN, (_SIZE, _SIZE, 1)) for window in windows)
    return [Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8)) for frame in grainy]


def feed_figures(data_dir: Path, batch_size: int, clips: int, turns: int) -> dict[str, float]:
    """Clips per second of a core and of the clock, of several turns the median."""
    device = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec("data"))
    feed = make_feed(
        mixture=f"{_NAME}_video_text",
        split="train",
        batch_size=batch_size,
        frames=_WINDOW,
        text_length=1,
        converter="tokenizer",
        temporal_patch=2,
        seed=0,
        sharding=device,
        data_dir=data_dir,
    )
    per_core, per_second = [], []
    for turn in range(turns + 1):
        began, used, batches = time.perf_counter(), _cpu_seconds(), clips // batch_size
        for _ in range(batches):
            jax.block_until_ready(next(feed))
        # The first fills the buffers.
        if turn:
            per_core.append(batches * batch_size / (_cpu_seconds() - used))
            per_second.append(batches * batch_size / (time.perf_counter() - began))
    return {
        "clips_per_core_second": statistics.median(per_core),
        "clips_per_second": statistics.median(per_second),
    }


def decoding_figures(data_dir: Path) -> dict[str, float]:
    """What decoding the frames of the windows alone would give, on one thread and with nothing around it."""
    file = next(data_dir.glob(f"{_NAME}/*/{shard_name(_NAME, 'train', 0, _FILES)}"))
    strings = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    records = list(tf.data.TFRecordDataset(str(file)))
    clips = [tf.io.parse_single_example(record, {"frames": strings})["frames"][:_WINDOW] for record in records]

    @tf.function
    def decode(clip: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.io.decode_jpeg(frame, channels=3) for frame in tf.unstack(clip, _WINDOW)])

    decode(clips[0])
    used = _cpu_seconds()
    for clip in clips:
        decode(clip)
    return {"clips_per_core_second.decoding_alone": len(clips) / (_cpu_seconds() - used)}


def waiting_figures(data_dir: Path, workdir: Path, steps: int, batch_size: int) -> dict[str, float]:
    """Of a training of a tiny tokenizer: seconds of a step, and the share of it that was waiting for data."""
    bindings = {**_TINY, "DATA_DIR": f"'{data_dir}'", "STEPS": steps, "BATCH_SIZE": batch_size}
    bindings["loop.Schedule.log_every"] = steps
    files = ["gin_configs/runs/cvivit_paper.gin", "gin_configs/shrink.gin"]
    loop.train(**settings_of(files, [f"{name}={value}" for name, value in bindings.items()]), workdir=workdir)
    return _logged_speed(workdir)


def _logged_speed(workdir: Path) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(workdir / "tensorboard"))
    events.Reload()
    found = {}
    for name in ("seconds_per_step", "data_wait_share"):
        value = events.Tensors(f"speed/{name}")[-1]
        found[name] = float(tf.make_ndarray(value.tensor_proto))
    return found


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Prints a line of JSON with the figures; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=512, help="of the dataset, and of a turn (default: 512)")
    parser.add_argument("--turns", type=int, default=5, help="(default: 5)")
    parser.add_argument("--batch", type=int, default=32, help="clips of a batch of the feed (default: 32)")
    parser.add_argument("--steps", type=int, default=40, help="of the training; 0 for none (default: 40)")
    parser.add_argument("--train_batch", type=int, default=4, help="clips of a step (default: 4)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir, workdir = Path(folder) / "data", Path(folder) / "run"
        figures: dict[str, Any] = {"kib_per_frame": write_clips(data_dir, args.clips)}
        figures |= decoding_figures(data_dir)
        figures |= feed_figures(data_dir, args.batch, args.clips, args.turns)
        if args.steps:
            figures |= waiting_figures(data_dir, workdir, args.steps, args.train_batch)
    figures["ratio"] = figures["clips_per_core_second"] / _CLIPS_AIMED_AT
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "jax", "seqio", "pillow")}
    print(json.dumps({"name": "feed", **figures, "aims": _AIMS, "versions": versions}))
    return 0 if figures["ratio"] >= 1 and figures.get("data_wait_share", 0.0) <= 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
