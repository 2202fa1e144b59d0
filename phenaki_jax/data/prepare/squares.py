"""Frames of a video as squares: upright, of square pixels, on white where they are transparent."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8
from PIL import Image

from phenaki_jax.data.prepare.pictures import Pixels, centre_square, fit_picture, fitted_size, opaque

# Without it libswscale gives colours half of the width that is asked for.
_WHOLE_COLOURS = Interpolation.FULL_CHR_H_INT
_WITH_TRANSPARENCY = ("rgba", "bgra", "argb", "abgr", "pal8", "ya8", "yuva")


class Orientation(NamedTuple):
    """How the pixels of a frame lie, as they are stored: what is to be done to them, in this order.

    Attributes:
      transposed: rows are columns.
      mirrored: left is right.
      upside_down: top is bottom.
    """

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """As the frame's display matrix has it; of a rotation by another angle the nearest."""
        sides: Any = frame.side_data
        matrix = sides.get(Type.DISPLAYMATRIX)
        if matrix is None:
            return cls()
        # What is at x, y is shown at a x + c y, b x + d y, but for where that begins; in units of 2 ** -16.
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def upright(self, pixels: Pixels) -> UInt8[np.ndarray, "rows columns 3"]:
        """What is shown."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        pixels = pixels[:, ::-1] if self.mirrored else pixels
        return pixels[::-1] if self.upside_down else pixels


class Squares:
    """Makes squares of a video's frames.

    Args:
      first: the video's first frame, which says how all of them are turned.
      stream: that they are of.
      size: side of the squares.

    Attributes:
      shown_size: height and width of a frame as it is shown, in square pixels.
    """

    def __init__(self, first: VideoFrame, stream: Any, size: int) -> None:
        self._size, self._orientation = size, Orientation.of(first)
        self._reformatter = VideoReformatter()
        aspect = float(stream.sample_aspect_ratio or 1)
        self._aspect = aspect if math.isfinite(aspect) and aspect > 0 else 1.0
        width, height = round(first.width * self._aspect), first.height
        self.shown_size = (width, height) if self._orientation.transposed else (height, width)

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "side side 3"]:
        """The middle of a frame, its shorter side resized."""
        if frame.format.name.startswith(_WITH_TRANSPARENCY):
            pixels = frame.to_ndarray(format="rgba")
            if pixels[..., 3].min() < 255:
                return fit_picture(self._shown(opaque(Image.fromarray(pixels))), self._size)
        width, height = fitted_size(frame.width * self._aspect, frame.height, self._size)
        shrinks = min(frame.width, frame.height) > self._size
        small = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=(Interpolation.AREA if shrinks else Interpolation.BICUBIC) | _WHOLE_COLOURS,
            threads=1,
        )
        return np.ascontiguousarray(centre_square(self._orientation.upright(small.to_ndarray()), self._size))

    def _shown(self, picture: Image.Image) -> Image.Image:
        wide = picture.resize((round(picture.width * self._aspect), picture.height))
        return Image.fromarray(self._orientation.upright(np.asarray(wide)))
