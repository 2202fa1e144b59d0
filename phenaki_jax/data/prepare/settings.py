"""What is made of videos and images: everything that the dataset's bytes depend on, besides the files themselves."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from phenaki_jax.errors import UserError, check_at_least, check_types

MISSING_CAPTIONS = ("skip", "empty")
# Of a model's later tokens, so that every clip is 1 + k * 2 frames.
_TEMPORAL_PATCH = 2
_SMALLEST_SIZE, _LARGEST_SIZE = 16, 2048


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """How files become examples.

    Attributes:
      name: of the dataset, lower case.
      version: of the dataset, as in "1.0.0".
      size: side of the square frames in pixels.
      fps: frames that are taken of a second of video.
      frames: of a clip, 1 + k * 2.
      stride: frames from the beginning of a clip to that of the next; 0 for as many as a clip has.
      clips_per_video: the most of one video, spread over it; 0 for all.
      scene_threshold: see `scenes.scene_starts`; 0 cuts no scenes.
      quality: of JPEG, 1 to 100.
      caption_length: the most characters of a caption.
      on_missing_caption: "skip" sets files without a caption aside, "empty" gives them an empty one.
      ignored_columns: of a manifest, beside those that are known.
      test_share: how many of the sources are for tests, from 0 to 1; with 1 there is no training split.
      shard_bytes: about the size of a file of the dataset.

    Raises:
      UserError: a value that it cannot have.
    """

    name: str = "my_videos"
    version: str = "1.0.0"
    size: int = 128
    fps: float = 8.0
    frames: int = 17
    stride: int = 0
    clips_per_video: int = 0
    scene_threshold: float = 0.1
    quality: int = 95
    caption_length: int = 500
    on_missing_caption: str = "skip"
    ignored_columns: tuple[str, ...] = ()
    test_share: float = 0.02
    shard_bytes: int = 2**27

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "frames", "caption_length", "shard_bytes")
        check_at_least(self, 0, "stride", "clips_per_video")
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.name):
            raise UserError(
                f"found name {self.name!r}, expected lower-case letters, digits and underscores, such as my_videos"
            )
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise UserError(f"found version {self.version!r}, expected three numbers as in 1.0.0")
        if not _SMALLEST_SIZE <= self.size <= _LARGEST_SIZE:
            raise UserError(f"found size {self.size}, expected {_SMALLEST_SIZE} to {_LARGEST_SIZE} pixels")
        if not 0.01 <= self.fps <= 1000:
            raise UserError(f"found fps {self.fps:g}, expected 0.01 to 1000, such as 8")
        below = 1 + (self.frames - 1) // _TEMPORAL_PATCH * _TEMPORAL_PATCH
        if self.frames != below:
            raise UserError(
                f"found frames {self.frames}, expected 1 + k * {_TEMPORAL_PATCH}, such as {below} or "
                f"{below + _TEMPORAL_PATCH}"
            )
        if not 0 <= self.scene_threshold <= 1:
            raise UserError(f"found scene_threshold {self.scene_threshold}, expected 0 to 1, such as 0.1")
        if not 1 <= self.quality <= 100:
            raise UserError(f"found quality {self.quality}, expected 1 to 100, such as 95")
        if not 0 <= self.test_share <= 1:
            raise UserError(f"found test_share {self.test_share}, expected a share from 0 to 1, such as 0.02")
        if self.on_missing_caption not in MISSING_CAPTIONS:
            raise UserError(
                f"found on_missing_caption {self.on_missing_caption!r}, expected one of {', '.join(MISSING_CAPTIONS)}"
            )

    @property
    def step(self) -> int:
        """Frames from the beginning of a clip to that of the next."""
        return self.stride or self.frames

    def text(self) -> str:
        """As it is written beside what is made."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def differences(self, text: str) -> list[str]:
        """What differs from settings that were written before: "size 64, then 128", the earlier first.

        Args:
          text: as `text` gave it; of another version of this package it may lack or have other fields.
        """
        before: Mapping[str, Any] = json.loads(text)
        now: Mapping[str, Any] = json.loads(self.text())
        names = sorted({*before, *now})
        return [
            f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in names if before.get(name) != now.get(name)
        ]
