"""The world of `moving_shapes`: what is in a clip, how it moves, how it is drawn and what is said of it.

Pure NumPy and free of files, so that the dataset builder, the attribute reader and the evaluation share one
definition. Lengths are fractions of the frame's side, angles are radians, and time is counted in frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 45),
    "green": (45, 180, 60),
    "blue": (50, 80, 235),
    "yellow": (240, 220, 50),
    "purple": (165, 60, 205),
    "cyan": (60, 215, 225),
    "orange": (245, 140, 30),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
MOTIONS = (
    "moves left",
    "moves right",
    "moves up",
    "moves down",
    "turns",
    "grows",
    "shrinks",
    "bounces",
    "changes color",
)

IMAGE_ONLY_COLORS = ("orange", "white")
IMAGE_ONLY_SHAPES = ("ring",)
VIDEO_COLORS = tuple(color for color in COLORS if color not in IMAGE_ONLY_COLORS)
VIDEO_SHAPES = tuple(shape for shape in SHAPES if shape not in IMAGE_ONLY_SHAPES)

SEGMENT_FRAMES = 12
# A pixel of the smallest frames: where things stand and how far they go in a frame are whole multiples of it.
GRID = 1 / 32
SPEED = GRID
# After a turn of 2 pi / n, which takes a segment, a shape looks the same; shapes that never change are left out.
TURN_SYMMETRY = {"square": 4, "triangle": 3, "cross": 4}
GROWTH_RATE = 1.036
# An arc of a sine over the frames of one bounce, on the grid.
BOUNCE_HEIGHTS = (0 * GRID, 2 * GRID, 4 * GRID, 5 * GRID, 4 * GRID, 2 * GRID)
COLOR_CHANGE_FRAMES = 6
RADII = (0.27, 0.30, 0.33)
SMALLEST_RADIUS, LARGEST_RADIUS = 0.21, 0.42
_MARGIN = 0.85


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the shape is, how large, at which angle, and of which colour (RGB in 0..255)."""

    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Segment:
    """One stretch of a clip with one motion; `target_color` only where the motion is "changes color"."""

    color: str
    shape: str
    motion: str
    target_color: str | None = None

    @property
    def final_color(self) -> str:
        """The colour's name when the segment is over."""
        return self.target_color or self.color

    @property
    def combination(self) -> tuple[str, str, str]:
        """(colour, shape, motion): what is held out of training for evaluation."""
        return (self.color, self.shape, self.motion)


@dataclasses.dataclass(frozen=True)
class Background:
    """A muted backdrop: two nearby dark tones mixed along a direction, evenly, in stripes or in checks."""

    kind: str
    first_rgb: tuple[float, float, float]
    second_rgb: tuple[float, float, float]
    direction: float
    period: float
    phase: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """One clip: segments in order, and the pose in every frame, `SEGMENT_FRAMES` frames a segment."""

    segments: tuple[Segment, ...]
    poses: tuple[Pose, ...]
    background: Background


def can_move(shape: str, motion: str) -> bool:
    """Whether the motion is visible on the shape: a turning circle or ring is not."""
    return motion != "turns" or shape in TURN_SYMMETRY


def turn_rate(shape: str) -> float:
    """Radians by which a shape turns clockwise in a frame; infinite where no turn shows."""
    return 2 * np.pi / TURN_SYMMETRY[shape] / SEGMENT_FRAMES if shape in TURN_SYMMETRY else np.inf


def video_combinations() -> list[tuple[str, str, str]]:
    """All (colour, shape, motion) that videos may show, held-out ones included, in a fixed order."""
    return [
        (color, shape, motion)
        for color in VIDEO_COLORS
        for shape in VIDEO_SHAPES
        for motion in MOTIONS
        if can_move(shape, motion)
    ]


def held_out_combinations() -> frozenset[tuple[str, str, str]]:
    """The combinations that no training clip shows: about one in seven, spread evenly over all attributes."""
    color_index = {color: index for index, color in enumerate(VIDEO_COLORS)}
    shape_index = {shape: index for index, shape in enumerate(VIDEO_SHAPES)}
    motion_index = {motion: index for index, motion in enumerate(MOTIONS)}
    return frozenset(
        (color, shape, motion)
        for color, shape, motion in video_combinations()
        if (color_index[color] + 2 * shape_index[shape] + 3 * motion_index[motion]) % 7 == 0
    )


def sample_background(rng: np.random.Generator) -> Background:
    """A random backdrop, always darker and less saturated than any shape."""
    base = rng.uniform(40, 70)
    first = base + rng.uniform(-5, 5, size=3)
    second = first + rng.choice([-1, 1]) * rng.uniform(8, 16)
    return Background(
        kind=str(rng.choice(["plain", "gradient", "stripes", "checks"])),
        first_rgb=_rgb(first),
        second_rgb=_rgb(second),
        direction=float(rng.choice(np.arange(8)) * np.pi / 4),
        period=float(rng.choice([0.25, 0.5])),
        phase=float(rng.choice([0.0, 0.5])),
    )


def sample_scene(
    rng: np.random.Generator,
    *,
    segments: int = 3,
    first: tuple[str, str, str] | None = None,
    forbidden: frozenset[tuple[str, str, str]] = frozenset(),
    colors: Sequence[str] = VIDEO_COLORS,
    shapes: Sequence[str] = VIDEO_SHAPES,
    weights: Mapping[str, float] | None = None,
) -> Scene:
    """A random clip in which every motion stays inside the frame.

    Args:
      rng: the source of randomness; equal generators give equal scenes.
      segments: how many motions follow each other.
      first: (colour, shape, motion) of the first segment; random where None.
      forbidden: combinations that no segment may show.
      colors: colours to draw from.
      shapes: shapes to draw from.
      weights: how much oftener than once a motion is tried than those not named here.

    Raises:
      ValueError: no motion is possible (everything is forbidden).
    """
    allowed = [
        (color, shape, motion)
        for color in colors
        for shape in shapes
        for motion in MOTIONS
        if can_move(shape, motion) and (color, shape, motion) not in forbidden
    ]
    if first is None and not allowed:
        raise ValueError(f"no clip is possible with {len(forbidden)} combinations forbidden")
    shares = _shares([motion for _, _, motion in allowed], weights)
    color, shape, motion = first or allowed[rng.choice(len(allowed), p=shares)]
    for _ in range(1000):
        scene = _try_scene(rng, color, shape, motion, segments, forbidden, colors, weights)
        if scene is not None:
            return scene
    raise ValueError(f"no clip of {segments} segments begins with a {color} {shape} that {motion}")


def sample_image(rng: np.random.Generator, *, color: str, shape: str) -> Scene:
    """A still scene of one frame, for image-text examples."""
    pose = _sample_pose(rng, color)
    return Scene(segments=(Segment(color, shape, "none"),), poses=(pose,), background=sample_background(rng))


def render(scene: Scene, size: int) -> np.ndarray:
    """Draws every frame of a scene, antialiased.

    Args:
      scene: what to draw.
      size: the frame's side in pixels.

    Returns:
      uint8 [frames, size, size, 3].
    """
    poses = scene.poses
    column = lambda name: np.array([getattr(pose, name) for pose in poses])[:, None, None]  # noqa: E731
    centers = (np.arange(size) + 0.5) / size
    dx = centers[None, None, :] - column("x")
    dy = centers[None, :, None] - column("y")
    cos, sin = np.cos(column("angle")), np.sin(column("angle"))
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    distance = _signed_distance(scene.segments[0].shape, along, across, column("radius"))
    alpha = np.clip(0.5 - distance * size, 0.0, 1.0)[..., None]
    color = np.array([pose.rgb for pose in poses])[:, None, None, :]
    image = alpha * color + (1 - alpha) * _draw_background(scene.background, size)[None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


_SUBJECTS = ("a {color} {shape}", "the {color} {shape}", "one {color} {shape}", "a {shape}, {color},")
_STILL_SUBJECTS = ("a {color} {shape}", "the {color} {shape}", "one {color} {shape}", "a {shape} that is {color}")
_PREDICATES = {
    "moves left": ("moves left", "slides to the left", "goes left"),
    "moves right": ("moves right", "slides to the right", "goes right"),
    "moves up": ("moves up", "rises", "goes up"),
    "moves down": ("moves down", "sinks", "goes down"),
    "turns": ("turns", "spins", "rotates"),
    "grows": ("grows", "gets bigger", "expands"),
    "shrinks": ("shrinks", "gets smaller", "contracts"),
    "bounces": ("bounces", "hops up and down", "jumps"),
    "changes color": ("becomes {target}", "changes to {target}", "turns {target}"),
}


def captions(segment: Segment) -> list[str]:
    """All wordings of one segment's caption; the first is the plainest."""
    if segment.motion == "none":
        return [subject.format(color=segment.color, shape=segment.shape) for subject in _STILL_SUBJECTS]
    return [
        f"{subject.format(color=segment.color, shape=segment.shape)} {predicate.format(target=segment.target_color)}"
        for predicate in _PREDICATES[segment.motion]
        for subject in _SUBJECTS
    ]


def _rgb(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in np.clip(values, 0, 255))
    return (red, green, blue)


def _sample_rgb(rng: np.random.Generator, color: str) -> tuple[float, float, float]:
    return _rgb(np.array(COLORS[color]) + rng.uniform(-4, 4, size=3))


def _sample_pose(rng: np.random.Generator, color: str) -> Pose:
    """Upright, on the grid, inside the frame."""
    radius = float(rng.choice(RADII))
    least = int(np.ceil(_MARGIN * radius / GRID))
    x, y = (rng.integers(least, round(1 / GRID) - least + 1, size=2) * GRID).tolist()
    return Pose(x=x, y=y, radius=radius, angle=0.0, rgb=_sample_rgb(rng, color))


def _shares(motions: Sequence[str], weights: Mapping[str, float] | None) -> np.ndarray:
    """The probability of each."""
    each = np.array([(weights or {}).get(motion, 1.0) for motion in motions])
    return each / each.sum()


def _try_scene(
    rng: np.random.Generator,
    color: str,
    shape: str,
    motion: str,
    segments: int,
    forbidden: frozenset[tuple[str, str, str]],
    colors: Sequence[str],
    weights: Mapping[str, float] | None,
) -> Scene | None:
    pose = _sample_pose(rng, color)
    made: list[Segment] = []
    poses: list[Pose] = []
    shares = _shares(MOTIONS, weights)
    while len(made) < segments:
        order = rng.choice(MOTIONS, size=len(MOTIONS), replace=False, p=shares)
        options = [motion] if not made else [m for m in order if m != made[-1].motion]
        for option in options:
            if not can_move(shape, option) or (color, shape, option) in forbidden:
                continue
            target = (
                str(rng.choice([other for other in colors if other != color])) if option == "changes color" else None
            )
            stretch = _move(rng, pose, shape, str(option), target, first=not made)
            if all(_is_inside(step) for step in stretch):
                break
        else:
            return None
        made.append(Segment(color, shape, str(option), target))
        poses.extend(stretch)
        pose, color = stretch[-1], target or color
    return Scene(segments=tuple(made), poses=tuple(poses), background=sample_background(rng))


def _move(
    rng: np.random.Generator, pose: Pose, shape: str, motion: str, target: str | None, *, first: bool
) -> list[Pose]:
    """The poses of one segment; a first segment begins with the pose itself, a later one with its first change."""
    steps = np.arange(SEGMENT_FRAMES) + (0 if first else 1)
    replace = dataclasses.replace
    match motion:
        case "moves left" | "moves right":
            sign = 1 if motion == "moves right" else -1
            return [replace(pose, x=pose.x + sign * SPEED * step) for step in steps]
        case "moves up" | "moves down":
            sign = 1 if motion == "moves down" else -1
            return [replace(pose, y=pose.y + sign * SPEED * step) for step in steps]
        case "turns":
            return [replace(pose, angle=pose.angle + turn_rate(shape) * step) for step in steps]
        case "grows":
            return [replace(pose, radius=pose.radius * GROWTH_RATE**step) for step in steps]
        case "shrinks":
            return [replace(pose, radius=pose.radius / GROWTH_RATE**step) for step in steps]
        case "bounces":
            return [replace(pose, y=pose.y - BOUNCE_HEIGHTS[step % len(BOUNCE_HEIGHTS)]) for step in steps]
        case "changes color":
            assert target is not None
            start, end = np.array(pose.rgb), np.array(_sample_rgb(rng, target))
            shares = np.minimum(steps / COLOR_CHANGE_FRAMES, 1.0)
            return [replace(pose, rgb=_rgb((1 - share) * start + share * end)) for share in shares]
    raise ValueError(f"unknown motion {motion!r}; known are {', '.join(MOTIONS)}")


def _is_inside(pose: Pose) -> bool:
    margin = _MARGIN * pose.radius
    in_frame = margin <= pose.x <= 1 - margin and margin <= pose.y <= 1 - margin
    return bool(in_frame and SMALLEST_RADIUS * 0.99 <= pose.radius <= LARGEST_RADIUS * 1.01)


def _draw_background(background: Background, size: int) -> np.ndarray:
    centers = (np.arange(size) + 0.5) / size
    x, y = centers[None, :], centers[:, None]
    along = np.cos(background.direction) * (x - 0.5) + np.sin(background.direction) * (y - 0.5)
    match background.kind:
        case "plain":
            share = np.zeros((size, size))
        case "gradient":
            share = np.clip(along + 0.5, 0, 1)
        case "stripes":
            share = (np.floor(along / background.period + background.phase) % 2).astype(float)
        case "checks":
            share = ((np.floor(x / background.period) + np.floor(y / background.period)) % 2).astype(float)
        case kind:
            raise ValueError(f"unknown background {kind!r}")
    share = np.broadcast_to(share, (size, size))[..., None]
    return (1 - share) * np.array(background.first_rgb) + share * np.array(background.second_rgb)


def _signed_distance(shape: str, along: np.ndarray, across: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Distance from the outline, negative inside; areas of all shapes at one radius are close to each other."""
    match shape:
        case "circle":
            return np.hypot(along, across) - 0.95 * radius
        case "square":
            return np.maximum(np.abs(along), np.abs(across)) - 0.85 * radius
        case "triangle":
            slope = np.sqrt(3) / 2
            return np.maximum(np.abs(along) * slope + across / 2 * -1, across) - 0.65 * radius
        case "cross":
            wide = np.maximum(np.abs(along) - 1.1 * radius, np.abs(across) - 0.38 * radius)
            tall = np.maximum(np.abs(along) - 0.38 * radius, np.abs(across) - 1.1 * radius)
            return np.minimum(wide, tall)
        case "ring":
            return np.abs(np.hypot(along, across) - 0.8 * radius) - 0.3 * radius
    raise ValueError(f"unknown shape {shape!r}; known are {', '.join(SHAPES)}")
