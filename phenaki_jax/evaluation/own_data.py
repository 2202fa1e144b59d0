"""Protocols of a dataset of one's own: as many frames, of such a size, as a model's windows have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from phenaki_jax.data.clips import count_clips
from phenaki_jax.errors import UserError, near
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.protocols import PROTOCOLS, Protocol
from phenaki_jax.features.i3d import FEWEST_FRAMES
from phenaki_jax.inference.phenaki import Phenaki

_OF_SETS = ("fid", "kid", "fid_infinity", "fvd", "kvd", "fvd_infinity")
OWN_MEASURES = {
    "reconstruction": ("psnr", "ssim", "lpips", *_OF_SETS),
    "prediction": ("fvd", "kvd", "fvd_infinity"),
    "text_to_video": (*_OF_SETS, "clipsim"),
}
"""What is measured of each kind of protocol that a dataset of one's own may have."""

_SPLIT = "test"


def check_own(kind: str, task: str | None) -> None:
    """Refuses a kind without a task, and a task without a kind.

    Raises:
      UserError: says which is missing.
    """
    if kind in OWN_MEASURES and not task:
        raise UserError(
            f"found protocol {kind} without --task, expected the task of your dataset: --task my_videos_video_text"
        )
    if task and kind not in OWN_MEASURES:
        if kind not in PROTOCOLS:
            guess = near(kind, OWN_MEASURES)
            raise UserError(f"found protocol {kind!r}, {guess}expected one of {', '.join(OWN_MEASURES)} with --task")
        raise UserError(
            f"found --task with protocol {kind}, which has a task of its own; expected one of "
            f"{', '.join(OWN_MEASURES)}: name it with --protocol, or leave --task out"
        )


def own_name(kind: str, task: str) -> str:
    """Of the protocol."""
    return f"{task}_{kind}"


def check_asked(kind: str, task: str, data_dir: str | os.PathLike[str], counts: Mapping[str, int | None]) -> None:
    """Refuses what no model could be evaluated by, before one is exported.

    Raises:
      UserError: the task or its test split is not there, or of a reconstruction several are asked for.
    """
    # Sizes that no check refuses, as those of the model are not known yet.
    _protocol(kind, task, data_dir, counts, frames=2, size=1, given=int(kind == "prediction"))


def own_protocol(
    kind: str, task: str, model: Phenaki, data_dir: str | os.PathLike[str], counts: Mapping[str, int | None]
) -> Protocol:
    """A window of each test clip of a task, in the sizes of a model.

    Args:
      kind: one in `OWN_MEASURES`.
      task: a seqio task, registered or of a prepared dataset.
      model: whose windows give frames, size, and how many of a prediction are given.
      data_dir: the folder of datasets.
      counts: "examples", "samples", "folds" or "real"; None for all test clips once.

    Raises:
      UserError: see `check_asked`; or nothing goes on from the model's windows.
    """
    given = model.metadata.prefix_frames if kind == "prediction" else 0
    if kind == "prediction" and not given:
        raise UserError(
            "found a model of windows that nothing goes on from (prefix_frames 0), expected one that is given frames "
            "for a prediction: evaluate it by text_to_video"
        )
    frames, size = model.tokenizer.frames, model.tokenizer.frame_size
    return _protocol(kind, task, data_dir, counts, frames=frames, size=size, given=given)


def left_out_of_short(measures: Sequence[str], frames: int) -> dict[str, str]:
    """Measures that so few frames have not, each with the reason."""
    needs_more = f"needs at least {FEWEST_FRAMES} frames, and found {frames}"
    return {name: needs_more for name in measures if MEASURES[name].network == "i3d" and frames < FEWEST_FRAMES}


def _protocol(
    kind: str, task: str, data_dir: str | os.PathLike[str], counts: Mapping[str, int | None], **sizes: int
) -> Protocol:
    asked = {name: count for name, count in counts.items() if count is not None}
    known: dict[str, Any] = {"examples": count_clips(task, _SPLIT, data_dir), **sizes, **asked}
    return Protocol(name=own_name(kind, task), kind=kind, task=task, split=_SPLIT, measures=OWN_MEASURES[kind], **known)
