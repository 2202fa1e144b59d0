"""What protocols measure, by name."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """One that `Protocol.measures` may name.

    Attributes:
      kind: "frechet", "kernel" or "infinity" of the features of two sets, "score" of the logits of one, or "mean" of
        what each video has.
      rows: what a video has, as `networks.rows_of` calls it.
      network: whose features they are, as `networks` calls it; empty for measures of pixels.
      metric: the number's name.
      needs_original: whether a video is compared with its own clip.
    """

    kind: str
    rows: str
    network: str
    metric: str
    needs_original: bool = False

    @property
    def compares_sets(self) -> bool:
        """Whether it is of videos and of real clips."""
        return self.kind not in ("mean", "score")


MEASURES = {
    "fvd": Measure("frechet", "i3d", "i3d", "fvd"),
    "kvd": Measure("kernel", "i3d", "i3d", "kvd"),
    "fvd_infinity": Measure("infinity", "i3d", "i3d", "fvd_infinity"),
    "fid": Measure("frechet", "inception", "inception", "fid"),
    "kid": Measure("kernel", "inception", "inception", "kid"),
    "fid_infinity": Measure("infinity", "inception", "inception", "fid_infinity"),
    "inception_score": Measure("score", "inception_logits", "inception", "inception_score"),
    "clipsim": Measure("mean", "clip", "clip", "clipsim"),
    "psnr": Measure("mean", "psnr", "", "psnr", needs_original=True),
    "ssim": Measure("mean", "ssim", "", "ssim", needs_original=True),
    "lpips": Measure("mean", "lpips", "vgg16", "lpips", needs_original=True),
    "frechet_shapes": Measure("frechet", "shapes", "shapes", "frechet"),
    "kernel_shapes": Measure("kernel", "shapes", "shapes", "kernel"),
    "obeyed": Measure("mean", "obeyed_all", "shapes", "obeyed"),
    "obeyed_color": Measure("mean", "obeyed_color", "shapes", "obeyed_color"),
    "obeyed_shape": Measure("mean", "obeyed_shape", "shapes", "obeyed_shape"),
    "obeyed_motion": Measure("mean", "obeyed_motion", "shapes", "obeyed_motion"),
}
