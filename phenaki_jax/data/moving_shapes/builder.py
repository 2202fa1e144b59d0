"""`moving_shapes` as a TFDS dataset, and `prepare`, which makes what is missing of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from phenaki_jax.data.moving_shapes import examples, world
from phenaki_jax.data.tensorflow_stack import tf, tfds
from phenaki_jax.errors import UserError
from phenaki_jax.files import locked, told_unwritable

SIZES = (32, 64)
MOST_SHARDS = 16


@dataclasses.dataclass(eq=False)
class MovingShapesConfig(tfds.core.BuilderConfig):
    """What a configuration of the dataset holds.

    Attributes:
      kind: "video" or "image".
      size: the frame's side in pixels.
      train_examples: training examples, unless the builder is asked for another number.
      test_examples: test examples, likewise.
    """

    kind: str = "video"
    size: int = 32
    train_examples: int = 4000
    test_examples: int = 124


class MovingShapes(tfds.core.GeneratorBasedBuilder):
    """Drawn shapes that move, grow, turn and change colour, with captions and the truth about every segment.

    Features of an example, with 3 segments and 36 frames in a video, 1 and 1 in an image:

      frames: uint8 [frames, size, size, 3], stored as PNG.
      captions: string [segments, wordings].
      color, shape, motion, target_color: string [segments]; motion is "none" in images, target_color is "" unless the
        motion is "changes color".
      index: int64; `examples.example_scene` gives the scene of that index.

    Args:
      train_examples: how many; those of the configuration where None.
      test_examples: likewise.
      seed: another seed gives other examples; 0 where None.
      kwargs: those of `tfds.core.DatasetBuilder`.

    Raises:
      UserError: numbers are given, and the dataset in the folder has others or shows what the world no longer does.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Where TFDS would look for the checksums of downloads, through a package that it forgets to depend on.
    code_path = None
    BUILDER_CONFIGS = [
        *(MovingShapesConfig(name=f"video_{size}", kind="video", size=size) for size in SIZES),
        *(
            MovingShapesConfig(name=f"image_{size}", kind="image", size=size, train_examples=2000, test_examples=96)
            for size in SIZES
        ),
    ]

    def __init__(
        self,
        *,
        train_examples: int | None = None,
        test_examples: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        asked = {"train_examples": train_examples, "test_examples": test_examples, "seed": seed}
        self._asked = {name: value for name, value in asked.items() if value is not None}
        super().__init__(**kwargs)
        if self._asked:
            self._check_found()

    def _check_found(self) -> None:
        """An existing folder replaces the metadata that the builder was made with."""
        expected = {**self._asked, "fingerprint": self._fingerprint(self.info.metadata["seed"])}
        found = {name: self.info.metadata.get(name) for name in expected}
        if found != expected:
            raise UserError(
                f"found a dataset of {_in_words(found)} in {self.data_dir}, expected {_in_words(expected)}: "
                "delete that folder, name another data_dir, or ask for what is there"
            )

    def _fingerprint(self, seed: int) -> str:
        return examples.fingerprint(self.builder_config.kind, self.builder_config.size, seed)

    def _example_set(self, split: str, seed: int, count: int) -> examples.ExampleSet:
        config = self.builder_config
        return examples.ExampleSet(config.kind, split, config.size, seed=seed, count=count)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        shapes = feature_shapes(config.kind)
        frame = tfds.features.Image(shape=(config.size, config.size, 3), encoding_format="png")
        defaults = {"train_examples": config.train_examples, "test_examples": config.test_examples, "seed": 0}
        numbers = {**defaults, **self._asked}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn shapes that move, grow, turn and change colour.",
            features=tfds.features.FeaturesDict(
                {
                    "index": tfds.features.Scalar(np.int64),
                    "frames": tfds.features.Sequence(frame, length=shapes.pop("frames")[0]),
                    **{name: tfds.features.Tensor(shape=shape, dtype=np.str_) for name, shape in shapes.items()},
                }
            ),
            metadata=tfds.core.MetadataDict({**numbers, "fingerprint": self._fingerprint(numbers["seed"])}),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in examples.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        count = self.info.metadata[f"{split}_examples"]
        made = examples.generate_examples(self._example_set(split, self.info.metadata["seed"], count))
        title = f"{self.name}/{self.builder_config.name} {split}"
        # disable=None: only where stderr is a terminal.
        for example in tqdm.tqdm(made, title, count, leave=False, disable=None):
            yield example["index"], example


def feature_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """The shape in which a "video" or an "image" stores each of its strings, encoded frames among them."""
    segments = examples.VIDEO_SEGMENTS if kind == "video" else 1
    any_segment = world.Segment("red", "circle", "turns" if kind == "video" else "none")
    return {
        "frames": (segments * world.SEGMENT_FRAMES if kind == "video" else 1,),
        "captions": (segments, len(world.captions(any_segment))),
        **dict.fromkeys(("color", "shape", "motion", "target_color"), (segments,)),
    }


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    size: int,
    train_videos: int = 4000,
    test_videos: int = 124,
    train_images: int = 2000,
    test_images: int = 96,
    seed: int = 0,
) -> None:
    """Makes the videos and images of one size, where they are not there yet.

    A dataset appears in its folder complete or not at all; what an interrupted call has left is removed by the next.
    With many examples, several processes draw them: a script that calls this does so under
    `if __name__ == "__main__":`, as always with `multiprocessing`.

    Args:
      data_dir: the folder of TFDS datasets, on a local disk.
      size: the frame's side, 32 or 64 pixels.
      train_videos: how many training clips.
      test_videos: how many test clips; each of the 31 held-out combinations begins equally many if 31 divides this.
      train_images: how many training images.
      test_images: how many test images.
      seed: another seed gives other examples.

    Raises:
      UserError: a size or number that cannot be, or a dataset is there already with other numbers, another seed or
        of another world.
    """
    counts = {"video": (train_videos, test_videos), "image": (train_images, test_images)}
    if size not in SIZES:
        raise UserError(f"found size {size}, expected one of {', '.join(map(str, SIZES))}")
    if smallest := [count for pair in counts.values() for count in pair if count < 1]:
        raise UserError(f"found {smallest[0]} examples, expected at least 1 in every split")
    for kind, (train_examples, test_examples) in counts.items():
        _prepare_kind(Path(data_dir), f"{kind}_{size}", train_examples, test_examples, seed)


def _prepare_kind(data_dir: Path, config: str, train_examples: int, test_examples: int, seed: int) -> None:
    numbers = {"train_examples": train_examples, "test_examples": test_examples, "seed": seed}
    # What is there needs no lock, so that it may be on a disk that others cannot write to.
    if Path(MovingShapes(config=config, data_dir=data_dir, **numbers).data_dir).is_dir():
        return
    with locked(data_dir / MovingShapes.name):
        builder = MovingShapes(config=config, data_dir=data_dir, **numbers)
        for leftover in Path(builder.data_dir).parent.glob("incomplete.*"):
            shutil.rmtree(leftover)
        download_config = tfds.download.DownloadConfig(
            try_download_gcs=False, num_shards=min(MOST_SHARDS, train_examples, test_examples)
        )
        # TFDS announces itself on stdout, and makes a folder for downloads that never come.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            tempfile.TemporaryDirectory() as downloads,
            told_unwritable(
                f"the dataset {builder.data_dir}", "make room, or name another data_dir", tf.errors.OpError
            ),
        ):
            builder.download_and_prepare(download_dir=downloads, download_config=download_config)


def _in_words(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in numbers.items())
