"""Pictures to look a dataset over by: a sheet of its clips with their captions, and histograms."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from phenaki_jax.data.prepare.records import payload, read_framed
from phenaki_jax.data.tensorflow_stack import tf
from phenaki_jax.files import whole_file

_CLIPS = 32
_COLUMNS = 4
_FRAMES_OF_A_CLIP = 4
_FRAME_SIDE = 96
_CAPTION_LINES = 3
_FONT_SIZE = 13
_LINE_HEIGHT = 16
_GAP = 8
HISTOGRAMS = {
    "seconds": "length of a source (s)",
    "clips_per_source": "clips of a source",
    "width": "original width (pixels)",
    "height": "original height (pixels)",
    "caption_characters": "length of a caption (characters)",
    "captions_per_source": "captions of a source",
}


def write_contact_sheet(path: Path, folder: Path, name: str, splits: Sequence[str]) -> None:
    """Some clips of each split, each as a strip of its frames above its caption.

    Args:
      path: where to, a .png.
      folder: of a dataset.
      name: of it.
      splits: of it.
    """
    strips = [
        (split, *_strip_of(record)) for split in sorted(splits) for record in _first(folder, name, split, len(splits))
    ]
    width, height = _FRAMES_OF_A_CLIP * _FRAME_SIDE, _FRAME_SIDE + (_CAPTION_LINES + 1) * _LINE_HEIGHT
    rows = -(-len(strips) // _COLUMNS)
    columns = min(_COLUMNS, len(strips))
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    for index, (split, strip, caption) in enumerate(strips):
        left = _GAP + index % _COLUMNS * (width + _GAP)
        top = _GAP + index // _COLUMNS * (height + _GAP)
        sheet.paste(strip, (left, top))
        lines = [split, *wrapped(caption, width, font.getlength, _CAPTION_LINES)]
        for number, line in enumerate(lines):
            place = (left, top + _FRAME_SIDE + number * _LINE_HEIGHT)
            draw.text(place, line, fill="black" if number else "gray", font=font)
    with whole_file(path) as unfinished:
        sheet.save(unfinished)


def wrapped(text: str, width: int, length_of: Callable[[str], float], most: int) -> list[str]:
    """Lines of a text, broken between words, or within one that is longer than a line; of the last an end is cut off.

    Args:
      text: in one line.
      width: of a line.
      length_of: a line.
      most: of the lines.
    """
    lines: list[str] = []
    left = text
    while left and len(lines) < most:
        end = next((count for count in range(len(left)) if length_of(left[: count + 1]) > width), len(left))
        space = left.rfind(" ", 0, end + 1)
        end = space if end < len(left) and space > 0 else max(end, 1)
        lines.append(left[:end])
        left = left[end:].lstrip()
    if left:
        while lines[-1] and length_of(f"{lines[-1]} ...") > width:
            lines[-1] = lines[-1][:-1].rstrip()
        lines[-1] += " ..."
    return lines


def _first(folder: Path, name: str, split: str, splits: int) -> list[bytes]:
    """Records of the beginnings of a split's files, which are in no order of their content."""
    wanted = _CLIPS // splits
    files = sorted(folder.glob(f"{name}-{split}.tfrecord-*-of-*"))
    found: list[bytes] = []
    for file in files[:wanted]:
        with file.open("rb") as records:
            found += map(payload, itertools.islice(read_framed(records), -(-wanted // len(files))))
    return found[:wanted]


def _strip_of(record: bytes) -> tuple[Image.Image, str]:
    features: Any = tf.train.Example.FromString(record).features.feature
    encoded = features["frames"].bytes_list.value
    chosen = np.linspace(0, len(encoded) - 1, min(len(encoded), _FRAMES_OF_A_CLIP)).round().astype(int)
    strip = Image.new("RGB", (_FRAMES_OF_A_CLIP * _FRAME_SIDE, _FRAME_SIDE), "white")
    for place, index in enumerate(chosen):
        frame = Image.open(io.BytesIO(encoded[index])).resize((_FRAME_SIDE, _FRAME_SIDE), Image.Resampling.BICUBIC)
        strip.paste(frame, (place * _FRAME_SIDE, 0))
    captions = features["captions"].bytes_list.value
    return strip, captions[0].decode() if captions else ""


def _font() -> Any:
    # Matplotlib brings a font with the letters of most alphabets.
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _FONT_SIZE)


def write_histograms(path: Path, values: Mapping[str, Mapping[int | float, int]]) -> None:
    """Histograms of what was found in sources, in one .png.

    Args:
      path: where to.
      values: of each of `HISTOGRAMS`, how often each value came.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    for axis, (name, title) in zip(axes, HISTOGRAMS.items(), strict=True):
        axis.hist(list(values[name]), bins=30, weights=list(values[name].values()), color="tab:blue")
        axis.set_title(title, fontsize=10)
    with whole_file(path) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(unfinished, dpi=80)
