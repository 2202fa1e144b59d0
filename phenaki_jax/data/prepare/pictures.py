"""Frames of any size and shape as squares of one size, and as JPEG."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

Pixels = UInt8[np.ndarray, "height width 3"]


def fitted_size(width: int | float, height: int | float, side: int) -> tuple[int, int]:
    """Width and height of which the shorter is `side`, in the proportions of these."""
    scale = side / min(width, height)
    return max(side, round(width * scale)), max(side, round(height * scale))


def centre_square(frame: Pixels, side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The middle of a frame whose sides are at least this."""
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]


def fit_picture(picture: Image.Image, side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """A picture upright, on white where it is transparent, its shorter side resized and the middle cut out."""
    picture = opaque(ImageOps.exif_transpose(picture))
    size = fitted_size(*picture.size, side)
    if size != picture.size:
        # The mean over the pixels that become one, so that nothing flickers.
        shrinks = min(picture.size) > side
        picture = picture.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    return centre_square(np.asarray(picture), side)


def opaque(picture: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, on white where it is transparent."""
    if picture.mode.startswith("I;16"):
        # Pillow would clip these values at 255.
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def encode_jpeg(frame: Image.Image, quality: int) -> bytes:
    """A frame as JPEG with colours at half the resolution, as nearly all videos have them."""
    buffer = io.BytesIO()
    frame.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
