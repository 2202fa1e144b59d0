"""Reads colour, shape and motion off the pixels of a `moving_shapes` clip, true or generated.

The reader is a judge, so it knows nothing but the pixels and what the world can show. Per frame it separates the
shape from a background estimated over the clip, and from the resulting coverage takes the position, the size and
the colour. The coverage, resampled on a polar grid around its centre and scaled to unit area, is compared with
renderings of every shape at every angle; colour and motion are decided by comparing the series over all frames with
the courses that the world allows. Everything is a robust average over frames: no single frame decides.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phenaki_jax.data.moving_shapes import world
from phenaki_jax.errors import UserError

NOTHING = "none"
SMALLEST_SIZE = 16
# Larger frames are averaged down towards this side: it shows all there is to see, and faster.
_WORKING_SIZE = 32

# A background pixel is dark and nearly grey; a brighter or more saturated one may belong to a shape.
_BACKGROUND_BRIGHTEST = 135.0
_BACKGROUND_CHROMA = 62.0
# A frame without a patch this far (RGB distance) from the background shows no shape.
_SMALLEST_CONTRAST = 32.0
# No shape covers less than this share of the frame; pixels nearly as strong as its strongest tell the colour.
_CORE_SHARE = 0.02
_CORE_CONTRAST = 0.8
# Coverage below the first number is noise, above the second certain; the outline stays at one half.
_COVERAGE_RAMP = (0.2, 0.8)
# Pixels farther than this from the centre, in radii of the disc of equal area, are not the shape.
_REACH = 1.7
_POLAR_RADII, _POLAR_ANGLES = 12, 48
_TEMPLATE_RADII = tuple(np.linspace(world.SMALLEST_RADIUS, world.LARGEST_RADIUS, 4).tolist())
# Renderings are also matched after so many passes of a 1 2 1 filter, as reconstructed frames are blurred.
_TEMPLATE_SOFTENING = (0, 2)
# A motion slower than this share of the world's own is none.
_SMALLEST_ACTIVITY = 0.35
# A change of colour is seen or not; it gives way to any other motion of about full strength.
_COLOR_CHANGE_ACTIVITY = 0.7
# A bounce must leave less than this share of the error that a straight line leaves.
_BOUNCE_ERROR = 0.5
# Brightness counts half of hue and saturation, as blur and fading change it first.
_BRIGHTNESS_WEIGHT = 0.5
# A colour that is off by the same in all frames counts half of one that is off differently in each.
_SHIFT_WEIGHT = 0.5
# A change of colour may have begun so many frames before the clip, and must begin so many before its last frame.
_EARLIEST_COLOR_CHANGE, _LATEST_COLOR_CHANGE = 2, 4


@dataclasses.dataclass(frozen=True)
class ClipReading:
    """What a clip shows, and the series per frame that the decisions rest on.

    Attributes:
      color: name of the colour at the first frame, one of `world.COLORS`; "none" where no frame shows a shape.
      final_color: name of the colour at the last frame, likewise.
      shape: one of `world.SHAPES`; "none" where no frame shows a shape.
      motion: one of `world.MOTIONS`, or "none".
      x: the centre's distance from the left edge, in sides of the frame. As all series, NaN in frames that show no
        shape.
      y: the centre's distance from the upper edge, in sides of the frame.
      radius: as in `world.Pose`, in sides of the frame.
      angle: radians as in `world.Pose`, continuous from frame to frame and known up to the shape's symmetry; zero for
        circles and rings.
      rgb: the shape's colour in 0..255.
    """

    color: str
    final_color: str
    shape: str
    motion: str
    x: Float[np.ndarray, " frames"]
    y: Float[np.ndarray, " frames"]
    radius: Float[np.ndarray, " frames"]
    angle: Float[np.ndarray, " frames"]
    rgb: Float[np.ndarray, "frames 3"]


def read_clip(video: np.ndarray) -> ClipReading:
    """Reads the attributes of the one shape in a clip.

    Args:
      video: uint8 [frames, size, size, 3], at least one frame, size at least `SMALLEST_SIZE`.

    Returns:
      The reading; a clip that shows no shape reads "none" throughout.

    Raises:
      UserError: the video has another dtype or shape.
    """
    _check(video)
    pixels = _shrink(video.astype(np.float32))
    background = _estimate_background(pixels)
    rgb, seen = _find_colors(pixels, background)
    if not seen.any():
        return _nothing(len(video))
    coverage = _cover(pixels[seen], background, rgb[seen])
    outline = _locate(coverage)
    shape, radius, angle = _match_shape(coverage, outline)
    times = np.flatnonzero(seen)
    color, final_color = _name_colors(times, rgb[seen])
    series = _Series(times, outline.x, outline.y, radius, angle, rgb[seen])
    return ClipReading(
        color=color,
        final_color=final_color,
        shape=shape,
        motion=_decide_motion(series, shape, changes_color=color != final_color),
        x=_spread(outline.x, seen),
        y=_spread(outline.y, seen),
        radius=_spread(radius, seen),
        angle=_spread(angle, seen),
        rgb=_spread(rgb[seen], seen),
    )


class _Outline(NamedTuple):
    """Centre and radius of the disc of equal area, per frame, as fractions of the frame's side."""

    x: np.ndarray
    y: np.ndarray
    disc: np.ndarray


class _Series(NamedTuple):
    """What was measured in the frames that show a shape, and at which times."""

    times: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    rgb: np.ndarray


class _Templates(NamedTuple):
    """Renderings of all shapes on the polar grid, [shapes, renderings, radii, ...], ready for correlation."""

    spectrum: np.ndarray
    squared_spectrum: np.ndarray
    radius_per_disc: np.ndarray


def _check(video: np.ndarray) -> None:
    if video.dtype != np.uint8:
        raise UserError(f"a video must be an array of uint8 in 0..255, but got one of {video.dtype}")
    if video.ndim != 4 or video.shape[1] != video.shape[2] or video.shape[3] != 3:
        raise UserError(f"a video must have shape [frames, size, size, 3], but got {list(video.shape)}")
    if video.shape[0] < 1 or video.shape[1] < SMALLEST_SIZE:
        raise UserError(
            f"a video must have at least one frame, of side {SMALLEST_SIZE} or more, but got {list(video.shape)}"
        )


def _nothing(frames: int) -> ClipReading:
    unknown = np.full(frames, np.nan)
    return ClipReading(
        color=NOTHING,
        final_color=NOTHING,
        shape=NOTHING,
        motion=NOTHING,
        x=unknown,
        y=unknown,
        radius=unknown,
        angle=unknown,
        rgb=np.full((frames, 3), np.nan),
    )


def _spread(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Puts the values of the seen frames in their places among all frames; NaN elsewhere."""
    everywhere = np.full((len(seen), *values.shape[1:]), np.nan)
    everywhere[seen] = values
    return everywhere


def _shrink(pixels: np.ndarray) -> np.ndarray:
    """Averages blocks of pixels where frames are at least twice as large as they need be."""
    frames, size = pixels.shape[:2]
    block = max(block for block in range(1, max(size // _WORKING_SIZE, 1) + 1) if size % block == 0)
    if block == 1:
        return pixels
    return pixels.reshape(frames, size // block, block, size // block, block, 3).mean(axis=(2, 4))


def _estimate_background(pixels: np.ndarray) -> np.ndarray:
    """The mean of every pixel over the frames in which it looks like background; [size, size, 3].

    Pixels that the shape hides take the median of the others: it suffices, as coverage there hardly depends on it.
    """
    red, green, blue = np.moveaxis(pixels, -1, 0)  # much faster than a maximum over so short an axis
    brightest = np.maximum(np.maximum(red, green), blue)
    chroma = brightest - np.minimum(np.minimum(red, green), blue)
    muted = (brightest < _BACKGROUND_BRIGHTEST) & (chroma < _BACKGROUND_CHROMA)
    count = muted.sum(axis=0)
    mean = np.einsum("thw,thwc->hwc", muted.astype(np.float32), pixels) / np.maximum(count, 1)[..., None]
    known = _erode(2 * count >= len(pixels))
    if not known.any():
        return np.broadcast_to(np.median(pixels, axis=(0, 1, 2)), mean.shape).astype(np.float32)
    return np.where(known[..., None], mean, np.median(mean[known], axis=0))


def _erode(mask: np.ndarray) -> np.ndarray:
    """Keeps the pixels whose 3 x 3 neighbourhood is all set; beyond the edge counts as set."""
    padded = np.pad(mask, 1, constant_values=True)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]


def _find_colors(pixels: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shape's colour per frame, [frames, 3], and whether the frame shows a shape at all, [frames]."""
    frames, size = pixels.shape[:2]
    flat = pixels.reshape(frames, size * size, 3)
    difference = flat - background.reshape(1, size * size, 3)
    contrast = np.sqrt(np.einsum("tpc,tpc->tp", difference, difference))
    rank = size * size - max(int(_CORE_SHARE * size * size), 1)
    strongest = np.partition(contrast, rank, axis=1)[:, rank, None]
    core = (contrast >= _CORE_CONTRAST * strongest).astype(np.float32)
    rgb = np.einsum("tp,tpc->tc", core, flat) / core.sum(axis=1, keepdims=True)
    seen = strongest[:, 0] > _SMALLEST_CONTRAST
    return rgb.astype(np.float64), seen


def _cover(pixels: np.ndarray, background: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """How much of every pixel the shape covers, 0..1, noise cut off; [frames, size, size]."""
    difference = rgb[:, None, None, :].astype(np.float32) - background
    share = np.einsum("thwc,thwc->thw", pixels - background, difference)
    share /= np.maximum(np.einsum("thwc,thwc->thw", difference, difference), 1.0)
    low, high = _COVERAGE_RAMP
    return np.clip((share - low) / (high - low), 0.0, 1.0)


def _locate(coverage: np.ndarray) -> _Outline:
    """Finds the shape from its median outwards, so that specks far away do not count."""
    size = coverage.shape[1]
    centers = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = _weighted_median(coverage.sum(axis=1), centers), _weighted_median(coverage.sum(axis=2), centers)
    disc = np.sqrt(coverage.sum(axis=(1, 2)) / np.pi) / size
    for _ in range(2):
        squared = (centers[None, None, :] - x[:, None, None]) ** 2 + (centers[None, :, None] - y[:, None, None]) ** 2
        near = coverage * (squared < (_REACH * disc[:, None, None]) ** 2)
        columns, rows = near.sum(axis=1), near.sum(axis=2)
        mass = np.maximum(columns.sum(axis=1), 1e-6)
        x, y, disc = columns @ centers / mass, rows @ centers / mass, np.sqrt(mass / np.pi) / size
    return _Outline(x, y, disc)


def _weighted_median(weights: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The position at which half of the weight is reached, per row of weights; [rows]."""
    reached = np.cumsum(weights, axis=1)
    return positions[np.argmax(reached >= reached[:, -1:] / 2, axis=1)]


def _resample(coverage: np.ndarray, outline: _Outline) -> tuple[np.ndarray, np.ndarray]:
    """Coverage on the polar grid around the centre, and whether the grid point lies in the frame.

    Both [frames, _POLAR_RADII, _POLAR_ANGLES]; the grid reaches `_REACH` discs far, angles as in `world.Pose`.
    """
    frames, size = coverage.shape[:2]
    radii, angles = _polar_grid()
    reach = (outline.disc[:, None] * radii)[:, :, None]
    column = (outline.x[:, None, None] + reach * np.cos(angles)) * size - 0.5
    row = (outline.y[:, None, None] + reach * np.sin(angles)) * size - 0.5
    inside = (column > -0.5) & (column < size - 0.5) & (row > -0.5) & (row < size - 0.5)
    column, row = np.clip(column, 0, size - 1.001), np.clip(row, 0, size - 1.001)
    left, upper = column.astype(int), row.astype(int)
    right_share, lower_share = column - left, row - upper
    flat = coverage.reshape(-1)
    corner = (np.arange(frames)[:, None, None] * size + upper) * size + left
    above = flat[corner] * (1 - right_share) + flat[corner + 1] * right_share
    below = flat[corner + size] * (1 - right_share) + flat[corner + size + 1] * right_share
    return above * (1 - lower_share) + below * lower_share, inside


def _polar_grid() -> tuple[np.ndarray, np.ndarray]:
    radii = (np.arange(_POLAR_RADII) + 0.5) / _POLAR_RADII * _REACH
    angles = np.arange(_POLAR_ANGLES) / _POLAR_ANGLES * 2 * np.pi
    return radii, angles


@functools.lru_cache(maxsize=8)
def _templates(size: int) -> _Templates:
    """Renders every shape upright at several radii, as a reading of a frame of that size would see it."""
    black = world.Background("plain", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0, 1.0, 0.0)
    poses = tuple(world.Pose(0.5, 0.5, radius, 0.0, (255.0, 255.0, 255.0)) for radius in _TEMPLATE_RADII)
    polar, radius_per_disc = [], []
    for shape in world.SHAPES:
        frames = world.render(world.Scene((world.Segment("white", shape, NOTHING),), poses, black), size)
        softened = np.concatenate([_soften(frames.astype(np.float32), passes) for passes in _TEMPLATE_SOFTENING])
        colors, _ = _find_colors(softened, np.zeros_like(softened[0]))
        coverage = _cover(softened, np.zeros_like(softened[0]), colors)
        outline = _locate(coverage)
        polar.append(_resample(coverage, outline)[0])
        radius_per_disc.append(np.tile(_TEMPLATE_RADII, len(_TEMPLATE_SOFTENING)) / outline.disc)
    stacked = np.stack(polar)
    return _Templates(np.fft.rfft(stacked), np.fft.rfft(stacked**2), np.stack(radius_per_disc))


def _soften(pixels: np.ndarray, passes: int) -> np.ndarray:
    for _ in range(passes):
        padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        pixels = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    return pixels


def _match_shape(coverage: np.ndarray, outline: _Outline) -> tuple[str, np.ndarray, np.ndarray]:
    """The shape that all frames together resemble most, with its radius and angle per frame."""
    templates = _templates(coverage.shape[1])
    polar, inside = _resample(coverage, outline)
    error = _template_errors(polar, inside, templates)
    best = error.min(axis=(2, 3))
    index = int(np.argmin(best.sum(axis=0)))
    shape = world.SHAPES[index]
    errors = error[:, index]
    rendering = np.argmin(errors.min(axis=-1), axis=-1)
    frames = np.arange(len(errors))
    radius = outline.disc * templates.radius_per_disc[index, rendering]
    return shape, radius, _refine_angle(errors[frames, rendering], shape)


def _template_errors(polar: np.ndarray, inside: np.ndarray, templates: _Templates) -> np.ndarray:
    """Mean squared difference from every template at every angle, [frames, shapes, renderings, angles].

    The mean is over the grid points inside the frame, weighted by area.
    """
    weight = inside * _polar_grid()[0][:, None]
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    cross = np.einsum("frk,snrk->fsnk", np.fft.rfft(weight * polar), templates.spectrum.conj(), optimize=True)
    square = np.einsum("frk,snrk->fsnk", np.fft.rfft(weight), templates.squared_spectrum.conj(), optimize=True)
    own = np.einsum("fra,fra->f", weight, polar**2)
    return own[:, None, None, None] + np.fft.irfft(square - 2 * cross, n=_POLAR_ANGLES)


def _refine_angle(errors: np.ndarray, shape: str) -> np.ndarray:
    """The angle of least error per frame, as the phase of the error over one period, continuous over frames."""
    if shape not in world.TURN_SYMMETRY:
        return np.zeros(len(errors))
    period = 2 * np.pi / world.TURN_SYMMETRY[shape]
    wave = np.fft.rfft(-errors)[:, world.TURN_SYMMETRY[shape]]
    return np.unwrap(-np.angle(wave) / (2 * np.pi) * period, period=period)


def _name_colors(times: np.ndarray, rgb: np.ndarray) -> tuple[str, str]:
    """Names of the colours before and after, from the `world.SEGMENT_FRAMES` frames at either end of the clip."""
    if times[-1] - times[0] < world.SEGMENT_FRAMES:
        return _fit_color_change(times, rgb)
    head = times < times[0] + world.SEGMENT_FRAMES
    tail = times > times[-1] - world.SEGMENT_FRAMES
    color, _ = _fit_color_change(times[head], rgb[head])
    _, final_color = _fit_color_change(times[tail], rgb[tail])
    return color, final_color


def _fit_color_change(times: np.ndarray, rgb: np.ndarray) -> tuple[str, str]:
    """The two colours, equal where nothing changes, whose blend over time stays nearest to the measured colours.

    The time that a blend takes tells red that becomes yellow, seen on its way, from orange that becomes yellow.
    """
    names = tuple(world.COLORS)
    palette = _weigh_brightness(np.array(list(world.COLORS.values()), dtype=np.float64))
    seen = _weigh_brightness(rgb)
    errors = _course_errors(palette[:, None], seen)
    before = after = np.argmin(errors)
    starts = np.arange(times[0] - _EARLIEST_COLOR_CHANGE, times[-1] - _LATEST_COLOR_CHANGE + 1)
    if len(starts):
        shares = np.clip((times - starts[:, None]) / world.COLOR_CHANGE_FRAMES, 0, 1)[:, None, None, :, None]
        change_errors = _course_errors((1 - shares) * palette[:, None, None] + shares * palette[:, None], seen)
        if change_errors.min() < errors.min():
            _, before, after = np.unravel_index(np.argmin(change_errors), change_errors.shape)
    return names[before], names[after]


def _course_errors(courses: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean distance of the seen colours [frames, 3] from courses [..., frames, 3], with `_SHIFT_WEIGHT`; [...]."""
    difference = courses - seen
    shift = difference.mean(axis=-2, keepdims=True)
    apart = np.linalg.norm(difference - shift, axis=-1).mean(axis=-1)
    return apart + _SHIFT_WEIGHT * np.linalg.norm(shift[..., 0, :], axis=-1)


def _weigh_brightness(rgb: np.ndarray) -> np.ndarray:
    return rgb - (1 - _BRIGHTNESS_WEIGHT) * rgb.mean(axis=-1, keepdims=True)


def _decide_motion(series: _Series, shape: str, *, changes_color: bool) -> str:
    """The motion that is strongest compared with how strong the world makes it; "none" where all are weak."""
    if len(series.times) < 2:
        return NOTHING
    right = _slope(series.times, series.x) / world.SPEED
    down = _slope(series.times, series.y) / world.SPEED
    growth = _slope(series.times, np.log(series.radius)) / np.log(world.GROWTH_RATE)
    bounce = _bounce_height(series.times, series.y) / max(world.BOUNCE_HEIGHTS)
    activity = {
        "moves left": -right,
        "moves right": right,
        "moves up": 0.0 if bounce else -down,
        "moves down": 0.0 if bounce else down,
        "turns": abs(_slope(series.times, series.angle)) / world.turn_rate(shape),
        "grows": growth,
        "shrinks": -growth,
        "bounces": bounce,
        "changes color": _COLOR_CHANGE_ACTIVITY if changes_color else 0.0,
    }
    motion = max(activity, key=activity.__getitem__)
    return motion if activity[motion] > _SMALLEST_ACTIVITY else NOTHING


def _slope(times: np.ndarray, values: np.ndarray) -> float:
    """The median slope over all pairs of frames (Theil-Sen): a few wrong frames do not move it."""
    first, second = np.triu_indices(len(times), k=1)
    return float(np.median((values[second] - values[first]) / (times[second] - times[first])))


def _bounce_height(times: np.ndarray, y: np.ndarray) -> float:
    """The height of the bouncing that explains the course of `y`; zero where a straight line does so better."""
    frames = len(world.BOUNCE_HEIGHTS)
    if len(times) < frames:
        return 0.0
    phases = np.arange(0, frames, 0.5)
    arcs = -np.abs(np.sin(np.pi * (times + phases[:, None]) / frames))
    arcs -= arcs.mean(axis=1, keepdims=True)
    centered = y - y.mean()
    heights = np.maximum(arcs @ centered / np.sum(arcs**2, axis=1), 0.0)
    errors = np.sum((centered - heights[:, None] * arcs) ** 2, axis=1)
    line = y - _slope(times, y) * times
    if errors.min() >= _BOUNCE_ERROR * np.sum((line - line.mean()) ** 2):
        return 0.0
    return float(heights[np.argmin(errors)])
