"""Datasets as TFDS itself lays them out, of few small examples whose pixels tell what they are."""

import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from phenaki_jax.data.prepare import metadata
from phenaki_jax.data.prepare.metadata import shard_name
from phenaki_jax.data.prepare.pictures import encode_jpeg
from phenaki_jax.data.prepare.records import encode_example, framed
from phenaki_jax.data.tensorflow_stack import tfds

BAIR_FRAMES = 30


def write_tfds(data_dir: pathlib.Path, path: str, examples: dict[str, list[Any]], per_file: int = 2) -> pathlib.Path:
    """The files that `tfds build` would make of these examples, by split."""
    builder = tfds.builder(path, data_dir=data_dir)
    folder = pathlib.Path(builder.info.data_dir)
    folder.mkdir(parents=True)
    writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=per_file)
    writer.initialize_splits(list(examples))
    writer.add_examples(examples)
    writer.close_all()
    return folder


def grey_frames(frames: int, height: int, width: int, channels: int = 3, first: int = 0) -> np.ndarray:
    """Frame k is of grey 8 * (first + k)."""
    levels = 8 * (first + np.arange(frames, dtype=np.uint8))
    return np.broadcast_to(levels[:, None, None, None], (frames, height, width, channels)).copy()


def write_bair(data_dir: pathlib.Path, train: int = 3, test: int = 1) -> pathlib.Path:
    """Videos of 30 frames whose other camera is white."""
    frames = grey_frames(BAIR_FRAMES, 64, 64)
    zeros = {"action": np.zeros(4, np.float32), "endeffector_pos": np.zeros(3, np.float32)}
    video = [{"image_main": frame, "image_aux1": np.full_like(frame, 255), **zeros} for frame in frames]
    return write_tfds(data_dir, "bair_robot_pushing_small", {"train": [video] * train, "test": [video] * test})


def write_ucf101(data_dir: pathlib.Path, lengths: tuple[int, ...] = (20, 6)) -> pathlib.Path:
    """A video of each length, of 48 x 80 pixels that are red at the left and the right, of classes 0, 1..."""
    examples = []
    for label, length in enumerate(lengths):
        video = grey_frames(length, 48, 80)
        # As wide as JPEG blurs colours; the middle square begins 8 pixels further in.
        video[:, :, :8] = video[:, :, -8:] = (255, 0, 0)
        examples.append({"video": video, "label": label})
    return write_tfds(data_dir, "ucf101/ucf101_1", {"train": examples, "test": examples[:1]})


def write_moving_mnist(data_dir: pathlib.Path, count: int = 20) -> pathlib.Path:
    """Video k is of grey 8 * k in all frames."""
    examples = [{"image_sequence": np.full((20, 64, 64, 1), 8 * index, np.uint8)} for index in range(count)]
    return write_tfds(data_dir, "moving_mnist", {"test": examples}, per_file=10)


def write_coco(data_dir: pathlib.Path) -> pathlib.Path:
    """An image in each split, grey, wider than high, with two captions that tell the split."""

    def example(split: str) -> dict[str, Any]:
        captions = [{"text": f"{split} {index}", "id": index} for index in range(2)]
        image = grey_frames(1, 40, 60, first=5)[0]
        return {"image": image, "image/filename": split, "image/id": 1, "objects": [], "captions": captions}

    splits = ("train", "restval", "val", "test")
    return write_tfds(data_dir, "coco_captions/2014", {split: [example(split)] for split in splits})


def write_prepared(
    data_dir: pathlib.Path,
    name: str,
    *,
    size: int = 16,
    frames: int = 17,
    images: bool = False,
    fps: float = 8.0,
    count: int = 4,
) -> pathlib.Path:
    """A dataset as `phenaki prepare` lays it out, whose only caption is its name."""
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    pictures = [Image.new("RGB", (size, size), (8 * k, 8 * k, 8 * k)) for k in range(1 if images else frames)]
    encoded = [encode_jpeg(picture, 95) for picture in pictures]
    example = framed(encode_example(encoded, [name], source="a", start=0.0, fps=fps, original_size=(48, 64)))
    splits = [split + metadata.IMAGES * images for split in metadata.SPLITS]
    for split in splits:
        (folder / shard_name(name, split, 0, 1)).write_bytes(example * count)
    settings = {"name": name, "size": size, "frames": frames, "fps": fps}
    (folder / metadata.SETTINGS_FILE).write_text(json.dumps(settings))
    statistics = {"splits": {split: {"examples": count} for split in splits}}
    (folder / metadata.STATISTICS_FILE).write_text(json.dumps(statistics))
    return folder
