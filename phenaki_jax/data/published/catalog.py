"""The published datasets that are known by name: how they are stored, and what a window of them is.

Licences and where each is from: docs/data.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

VIDEO_TEXT, IMAGE_TEXT = "_video_text", "_image_text"


@dataclasses.dataclass(frozen=True)
class TfdsLayout:
    """Where in a dataset of TFDS the frames and the texts are.

    Attributes:
      path: its name, and its configuration where it has several.
      frames: the feature of the frames, or of the image.
      text: the feature of the caption, the captions or the class; none where empty.
      names_classes: whether the text is the name of the class.
      fps: frames per second as stored; 0 of what has no such thing.
      length: frames of a video, where all have the same; else 0.
      train: the splits of TFDS that are trained on.
      test: those that are tested on.
      held_out_every: where TFDS has one split alone, every so manieth record is of "test"; 0 where it has both.
    """

    path: str
    frames: str
    text: str = ""
    names_classes: bool = False
    fps: float = 0.0
    length: int = 0
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)
    held_out_every: int = 0

    def parts(self, split: str) -> tuple[str, ...]:
        """The splits of TFDS that "train" or "test" is made of."""
        return self.train if split == "train" else self.test

    def command(self, data_dir: str) -> str:
        """What a user types to get it; https://www.tensorflow.org/datasets/cli."""
        return f"tfds build {self.path} --data_dir {data_dir}"


@dataclasses.dataclass(frozen=True)
class PublishedDataset:
    """A dataset, its own or one of TFDS.

    Attributes:
      name: of it, and of the folder where it is prepared.
      size: of its frames unless another is asked for, in pixels.
      fps: frames per second of its windows; 0 where it does not matter.
      frames: of a clip, where it is prepared.
      given: frames that are given in every window; None where half of the windows are continuations.
      images: whether it is one of images.
      tfds: how TFDS stores it; None where TFDS has it not, or only with Apache Beam and by hand.
    """

    name: str
    size: int = 128
    fps: float = 0.0
    frames: int = 17
    given: int | None = None
    images: bool = False
    tfds: TfdsLayout | None = None

    @property
    def kind(self) -> str:
        """What the names of its tasks end in."""
        return IMAGE_TEXT if self.images else VIDEO_TEXT

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.name + self.kind

    def command(self, data_dir: str, name: str = "") -> str:
        """What a user types to have it.

        Args:
          data_dir: the folder of TFDS datasets.
          name: what it is called there, where it is prepared; its own unless said otherwise.
        """
        if self.tfds is not None:
            return self.tfds.command(data_dir)
        ending = re.search(r"_(\d+)$", name)
        size = int(ending[1]) if ending else self.size
        settings = "" if self.images else f" --frames {self.frames} --fps {self.fps:g}"
        table = f"{self.name}.{'tar' if self.images else 'csv'}"
        return f"phenaki prepare {table} --out {data_dir} --name {name or self.name} --size {size}{settings}"


# Frames and rates are those of the paper's studies (Phenaki, section 3 and appendix), whose 16 frames are the first of
# 17 here; where it names none, those of the dataset.
_ALL = (
    PublishedDataset(
        "bair_robot_pushing",
        size=64,
        given=1,
        tfds=TfdsLayout("bair_robot_pushing_small", "image_main", length=30),
    ),
    PublishedDataset(
        "ucf101",
        fps=25.0,
        given=0,
        tfds=TfdsLayout("ucf101/ucf101_1", "video", text="label", names_classes=True, fps=25.0),
    ),
    PublishedDataset(
        "moving_mnist",
        size=64,
        tfds=TfdsLayout(
            "moving_mnist",
            "image_sequence",
            length=20,
            train=("test",),
            held_out_every=10,
        ),
    ),
    PublishedDataset(
        "coco_captions",
        images=True,
        tfds=TfdsLayout(
            "coco_captions/2014",
            "image",
            text="captions/text",
            # What was left of the validation images is trained on too, as Karpathy and Li (2015) do.
            train=("train", "restval"),
        ),
    ),
    PublishedDataset("kinetics600", size=64, fps=25.0, given=5),
    PublishedDataset("kinetics400", fps=8.0),
    PublishedDataset("something_something_v2", fps=12.0),
    PublishedDataset("moments_in_time", fps=6.0, frames=11),
    PublishedDataset("msr_vtt", fps=8.0),
    PublishedDataset("webvid", fps=8.0),
    PublishedDataset("laion", images=True),
)
CATALOG: Mapping[str, PublishedDataset] = MappingProxyType({each.name: each for each in _ALL})

# Shares of videos, of images, and of images of LAION. The last is the paper's, whose own data are not published.
MIXTURES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "video_image_100_0": {"webvid": 1.0},
        "video_image_80_20": {"webvid": 0.8, "laion": 0.2},
        "video_image_50_50": {"webvid": 0.5, "laion": 0.5},
        "video_image_laion_80_10_10": {"webvid": 0.8, "coco_captions": 0.1, "laion": 0.1},
    }
)


def published(dataset: str) -> PublishedDataset | None:
    """The dataset of a name, which may end in a frame size: "kinetics600_128" is a "kinetics600"."""
    return CATALOG.get(dataset) or CATALOG.get(re.sub(r"_\d+$", "", dataset))
