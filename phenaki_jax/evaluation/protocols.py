"""Protocols: what is drawn of which clips, and by which measures it is compared, so that a number means one thing.

What papers leave open is chosen here, and docs/evaluation.md says so for each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from phenaki_jax.errors import UserError, check_at_least, check_types, near
from phenaki_jax.evaluation.measures import MEASURES

KINDS = ("reconstruction", "prediction", "text_to_video", "class_to_video")
"""What videos are made of: the clip's tokens, its first frames, its text, or the name of its class."""


@dataclasses.dataclass(frozen=True)
class Reported:
    """A number that a paper reports by about this protocol.

    Attributes:
      measure: a name in `MEASURES`.
      value: the number.
      of: which model.
      source: where it stands.
      note: why it may not be compared, where there is something to say.
    """

    measure: str
    value: float
    of: str
    source: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is measured.

    Attributes:
      name: of the protocol.
      kind: one of `KINDS`.
      task: a seqio task, registered or of a prepared dataset.
      split: of the task, whose clips videos are drawn from.
      frames: of a video and of a clip, given ones included.
      size: pixels along a side of the task's clips, and of what the model draws.
      examples: clips that a fold draws from.
      measures: names in `MEASURES`.
      given: frames that the model is shown, of a prediction.
      samples: videos drawn from each clip.
      folds: how many times all is drawn, each time anew from the same clips; a number is the mean of theirs.
      windows: the most windows of a stored clip that count as clips, no two of them the same.
      stored_frames: frames that are read of a stored clip, in which windows begin, evenly from the first to the last
        place; 0 where the task draws windows.
      drawn_frames: of the windows that the task draws, of which the first frames are taken; 0 for `frames`.
      real: clips that the videos of each fold are compared with; 0 for the examples.
      real_split: of these; empty for `split`.
      judged_size: pixels along a side that clips and videos are brought to before they are compared; 0 for `size`.
      prepared_with: what `phenaki prepare` is told, besides what it is told for trainings, where it makes the dataset.
      reported: for comparison.

    Raises:
      UserError: a value that it cannot have.
    """

    name: str
    kind: str
    task: str
    split: str
    frames: int
    size: int
    examples: int
    measures: tuple[str, ...]
    given: int = 0
    samples: int = 1
    folds: int = 1
    windows: int = 1
    stored_frames: int = 0
    drawn_frames: int = 0
    real: int = 0
    real_split: str = ""
    judged_size: int = 0
    prepared_with: str = ""
    reported: tuple[Reported, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "frames", "size", "examples", "samples", "folds", "windows")
        check_at_least(self, 0, "given", "stored_frames", "drawn_frames", "real", "judged_size")
        if self.kind not in KINDS:
            raise UserError(f"found kind {self.kind!r} of {self.name}, expected one of {', '.join(KINDS)}")
        if unknown := [measure for measure in self.measures if measure not in MEASURES]:
            raise UserError(f"found measure {unknown[0]!r} in {self.name}, expected some of {', '.join(MEASURES)}")
        if not self.measures:
            raise UserError(f"found no measures in {self.name}, expected some of {', '.join(MEASURES)}")
        if (self.kind == "prediction") != (self.given > 0) or self.given >= self.frames:
            raise UserError(
                f"found {self.given} given of {self.frames} frames in {self.name}, expected some and not all of a "
                "prediction, and none of anything else"
            )
        originals = [measure for measure in self.measures if MEASURES[measure].needs_original]
        if originals and self.kind != "reconstruction":
            raise UserError(f"found {originals[0]} in {self.name}, a {self.kind}; expected it of reconstructions alone")
        if self.kind == "reconstruction" and self.samples * self.folds > 1:
            raise UserError(f"found {self.samples} samples of each clip in {self.name}, expected 1 reconstruction")
        # The randomness of each is by its number in 32 bits.
        if self.videos > 2**32:
            raise UserError(f"found {self.videos} videos to draw for {self.name}, expected at most {2**32}")
        if self.stored_frames and not self.windows <= self.stored_frames - self.frames + 1:
            raise UserError(
                f"found {self.windows} windows of {self.frames} in {self.stored_frames} frames in {self.name}, "
                f"expected at most {self.stored_frames - self.frames + 1}"
            )

    @property
    def videos(self) -> int:
        """How many are made in all."""
        return self.folds * self.videos_of_fold

    @property
    def videos_of_fold(self) -> int:
        """How many are compared at once."""
        return self.examples * self.samples

    @property
    def real_clips(self) -> int:
        """How many clips they are compared with."""
        return self.real or self.examples

    @property
    def reads_text(self) -> bool:
        """Whether videos are made of texts alone."""
        return self.kind in ("text_to_video", "class_to_video")

    @property
    def clip_split(self) -> str:
        """Of the clips they are compared with."""
        return self.real_split or self.split

    @property
    def compared_size(self) -> int:
        """Pixels along a side when they are compared."""
        return self.judged_size or self.size


_PHENAKI = "Phenaki, arXiv 2210.02399"
_MAGVIT = "MAGVIT, arXiv 2212.05199"
_BAIR = Protocol(
    name="bair",
    kind="prediction",
    task="bair_robot_pushing_video_text",
    split="test",
    frames=16,
    given=1,
    size=64,
    examples=256,
    samples=100,
    stored_frames=30,
    measures=("fvd", "kvd"),
    reported=(
        Reported("fvd", 97.0, "Phenaki", _PHENAKI),
        Reported("fvd", 62.0, "MAGVIT-L", _MAGVIT),
    ),
)
_KINETICS600 = Protocol(
    name="kinetics600",
    kind="prediction",
    task="kinetics600_128_video_text",
    split="test",
    frames=16,
    given=5,
    size=128,
    judged_size=64,
    examples=50_000,
    folds=4,
    stored_frames=17,
    windows=2,
    prepared_with="--test_share 1 --clips_per_video 2",
    measures=("fvd", "kvd", "fvd_infinity"),
    reported=(
        Reported("fvd", 36.4, "Phenaki", _PHENAKI, "drawn at 64 pixels"),
        Reported("fvd", 9.9, "MAGVIT-L", _MAGVIT, "of six clips of each real video"),
    ),
)
_MOVING_SHAPES = Protocol(
    name="moving_shapes",
    kind="text_to_video",
    task="moving_shapes_openings",
    split="test",
    frames=11,
    size=32,
    examples=310,
    samples=2,
    # The beginnings of the three segments of each clip, as windows of 12 frames are whole segments; of 930, 18 look
    # like another of their clip.
    drawn_frames=12,
    windows=3,
    real=900,
    measures=("frechet_shapes", "kernel_shapes", "obeyed", "obeyed_color", "obeyed_shape", "obeyed_motion"),
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        _MOVING_SHAPES,
        dataclasses.replace(
            _MOVING_SHAPES,
            name="moving_shapes_reconstruction",
            kind="reconstruction",
            samples=1,
            real=0,
            measures=("psnr", "ssim", "lpips", "frechet_shapes", "kernel_shapes", "obeyed"),
        ),
        _BAIR,
        dataclasses.replace(
            _BAIR,
            name="bair_debiased",
            examples=3840,
            samples=7,
            windows=15,
            measures=("fvd", "kvd", "fvd_infinity"),
            reported=(Reported("fvd", 31.0, "MAGVIT-L", _MAGVIT),),
        ),
        _KINETICS600,
        dataclasses.replace(
            _KINETICS600,
            name="kinetics600_64",
            task="kinetics600_video_text",
            size=64,
            judged_size=0,
            reported=(Reported("fvd", 36.4, "Phenaki", _PHENAKI),),
        ),
        Protocol(
            name="ucf101",
            kind="class_to_video",
            task="ucf101_video_text",
            split="train",
            frames=16,
            size=128,
            examples=10_000,
            folds=4,
            # There are 9537 training videos, the shortest of 1.06 s at 25 frames per second (arXiv 1212.0402, table 2).
            stored_frames=26,
            windows=2,
            measures=("fvd", "kvd", "fvd_infinity"),
            reported=(
                Reported("fvd", 250.0, "Phenaki", "the authors' reply, OpenReview vOEXS39nOF"),
                Reported("fvd", 76.0, "MAGVIT-L", _MAGVIT),
            ),
        ),
        Protocol(
            name="kinetics400",
            kind="text_to_video",
            task="kinetics400_video_text",
            split="test",
            frames=11,
            size=128,
            examples=10_000,
            stored_frames=17,
            windows=7,
            prepared_with="--test_share 1 --clips_per_video 1",
            measures=("fid", "kid", "fid_infinity", "inception_score", "fvd", "kvd", "fvd_infinity", "clipsim"),
            reported=(
                Reported("fid", 37.74, "Phenaki, zero-shot, 0.9 B", _PHENAKI, "its FID-image"),
                Reported("fvd", 3.84, "Phenaki, zero-shot, 0.9 B", _PHENAKI, "its FID-video, of a network not named"),
            ),
        ),
        Protocol(
            name="moments_in_time",
            kind="reconstruction",
            task="moments_in_time_video_text",
            split="test",
            frames=11,
            size=128,
            examples=10_000,
            stored_frames=11,
            prepared_with="--test_share 1 --clips_per_video 1",
            measures=("psnr", "ssim", "lpips", "fid", "kid", "fid_infinity", "fvd", "kvd", "fvd_infinity"),
            reported=(
                Reported("fid", 4.5, "C-ViViT", _PHENAKI),
                Reported("fvd", 65.78, "C-ViViT", _PHENAKI),
            ),
        ),
    )
}
DEFAULT = _MOVING_SHAPES.name


def protocol_named(name: str, **changes: int | None) -> Protocol:
    """A protocol with other numbers than its own, which then stand in the numbers' names.

    Args:
      name: one in `PROTOCOLS`.
      **changes: "examples", "samples", "folds" or "real"; None for the protocol's own.

    Raises:
      UserError: there is none of this name, or a number it cannot have.
    """
    if name not in PROTOCOLS:
        raise UserError(f"found protocol {name!r}, {near(name, PROTOCOLS)}expected one of {', '.join(PROTOCOLS)}")
    asked: dict[str, Any] = {attribute: value for attribute, value in changes.items() if value is not None}
    return dataclasses.replace(PROTOCOLS[name], **asked)
