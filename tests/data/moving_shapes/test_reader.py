"""The attribute reader tells colour, shape and motion from pixels, through blur and noise, and refuses the rest."""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from phenaki_jax.data.moving_shapes import reader, world
from phenaki_jax.errors import UserError

LEAST_ACCURACY = 0.995
ALL = {"colors": tuple(world.COLORS), "shapes": world.SHAPES}
LAST_OFFSET, LAST_OFFSET_OF_COLOR_CHANGE = 6, 2


def degrade(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a reconstruction of about 28 dB looks like: blur of 0.8 pixels at side 32, and noise of 6 / 255."""
    size = video.shape[1]
    offsets = np.arange(-size // 8, size // 8 + 1)
    kernel = np.exp(-(offsets**2) / (2 * (0.8 * size / 32) ** 2))
    distance = np.arange(size)[:, None] - np.arange(size)[None, :]
    blur = np.interp(distance, offsets, kernel, left=0, right=0)
    blur /= blur.sum(axis=1, keepdims=True)
    blurred = np.einsum("yi,tijc,xj->tyxc", blur, video, blur, optimize=True)
    return np.clip(np.rint(blurred + rng.normal(0, 6, video.shape)), 0, 255).astype(np.uint8)


def render_window(scene: world.Scene, start: int, frames: int, size: int) -> np.ndarray:
    """The frames of a clip from `start` on."""
    return world.render(dataclasses.replace(scene, poses=scene.poses[start : start + frames]), size)


def sample_windows(
    rng: np.random.Generator, frames: int, scenes: int
) -> Iterator[tuple[world.Scene, world.Segment, int]]:
    """Clips, each of their segments, and the first frame of a window that shows this segment's motion alone.

    Windows of 11 frames begin with the segment or a frame later. Windows of 7 are the frame before and 6 new ones, of
    which the first is the segment's own 0th to 6th; of a change of colour it is the 0th to 2nd, to show enough of it.
    """
    for _ in range(scenes):
        scene = world.sample_scene(rng, **ALL)
        for index, segment in enumerate(scene.segments):
            last = LAST_OFFSET_OF_COLOR_CHANGE if segment.motion == "changes color" else LAST_OFFSET
            offset = rng.integers(2) if frames == 11 else rng.integers(last + 1) - 1
            start = index * world.SEGMENT_FRAMES + int(offset)
            if start >= 0:
                yield scene, segment, start


def assert_accurate(pairs: list[tuple[str, dict[str, str], reader.ClipReading]]) -> None:
    """At least `LEAST_ACCURACY` of the readings are right, for each attribute; else says which were confused."""
    for attribute in pairs[0][1]:
        wrong = collections.Counter(
            (case, truth[attribute], getattr(reading, attribute))
            for case, truth, reading in pairs
            if truth[attribute] != getattr(reading, attribute)
        )
        accuracy = 1 - wrong.total() / len(pairs)
        assert accuracy >= LEAST_ACCURACY, f"{attribute}: {accuracy:.2%}, wrong are {wrong.most_common(5)}"


@pytest.mark.parametrize("degraded", [False, True], ids=["clean", "degraded"])
@pytest.mark.parametrize(
    ("frames", "size", "scenes"),
    [
        *((11, 32, 180), (7, 32, 180), (11, 64, 25), (7, 64, 25)),
        *(pytest.param(frames, size, 500, marks=pytest.mark.slow) for frames in (11, 7) for size in (32, 64)),
    ],
)
def test_reads_motion_windows(frames: int, size: int, scenes: int, degraded: bool) -> None:
    """Colours, shape and motion of windows inside one segment, for all colours and shapes."""
    rng = np.random.default_rng(1000 * frames + size + degraded)
    pairs = []
    for scene, segment, start in sample_windows(rng, frames, scenes):
        video = render_window(scene, start, frames, size)
        truth = {
            "color": segment.color,
            "final_color": segment.final_color,
            "shape": segment.shape,
            "motion": segment.motion,
        }
        pairs.append((f"frame {start}", truth, reader.read_clip(degrade(video, rng) if degraded else video)))
    assert_accurate(pairs)


@pytest.mark.parametrize("degraded", [False, True], ids=["clean", "degraded"])
@pytest.mark.parametrize(("size", "repeats"), [(32, 6), (64, 2)])
def test_reads_images(size: int, repeats: int, degraded: bool) -> None:
    """Colour and shape of single frames, for every colour and shape; one frame shows no motion."""
    rng = np.random.default_rng(size + degraded)
    pairs = []
    for color in world.COLORS:
        for shape in world.SHAPES:
            for _ in range(repeats):
                video = world.render(world.sample_image(rng, color=color, shape=shape), size)
                truth = {"color": color, "final_color": color, "shape": shape, "motion": "none"}
                pairs.append(("image", truth, reader.read_clip(degrade(video, rng) if degraded else video)))
    assert_accurate(pairs)


def test_reads_ends_of_long_clips() -> None:
    """In clips of three segments the colours are those of the first and last frame, and the shape that of all."""
    rng = np.random.default_rng(36)
    pairs = []
    for _ in range(40):
        scene = world.sample_scene(rng, **ALL)
        first, last = scene.segments[0], scene.segments[-1]
        truth = {"color": first.color, "final_color": last.final_color, "shape": first.shape}
        pairs.append(("clip", truth, reader.read_clip(degrade(world.render(scene, 32), rng))))
    assert_accurate(pairs)


def test_series_follow_the_poses() -> None:
    """Position is read to a pixel, radius to a tenth, colour to 25 / 255, and angle to five degrees."""
    rng = np.random.default_rng(5)
    for motion in world.MOTIONS:
        scene = world.sample_scene(rng, segments=1, first=("purple", "triangle", motion))
        reading = reader.read_clip(world.render(scene, 32))
        truth = {name: np.array([getattr(pose, name) for pose in scene.poses]) for name in ("x", "y", "radius", "rgb")}
        np.testing.assert_allclose(reading.x, truth["x"], atol=1 / 32)
        np.testing.assert_allclose(reading.y, truth["y"], atol=1 / 32)
        np.testing.assert_allclose(reading.radius, truth["radius"], rtol=0.1)
        np.testing.assert_allclose(reading.rgb, truth["rgb"], atol=25)
        turned = np.array([pose.angle for pose in scene.poses]) - reading.angle
        symmetric = np.angle(np.exp(3j * turned)) / 3
        np.testing.assert_allclose(symmetric, 0, atol=np.deg2rad(5))


def test_still_clips_have_no_motion() -> None:
    """Noise that differs from frame to frame is not taken for motion."""
    rng = np.random.default_rng(8)
    for _ in range(40):
        frame = render_window(world.sample_scene(rng, segments=1, **ALL), 0, 1, 32)
        assert reader.read_clip(degrade(np.repeat(frame, 11, axis=0), rng)).motion == "none"


def test_reads_clips_with_faults() -> None:
    """Patches of 8 x 8 that are tinted or a pixel out of place, differently in every frame, change no attribute."""
    rng = np.random.default_rng(88)
    pairs = []
    for scene, segment, start in sample_windows(rng, 11, 20):
        faulty = render_window(scene, start, 11, 32).astype(float)
        for frame in faulty:
            for row, column in np.ndindex(4, 4):
                patch = np.s_[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                shift = tuple(rng.integers(-1, 2, size=2)) if rng.random() < 0.3 else (0, 0)
                frame[patch] = np.roll(frame[patch], shift, axis=(0, 1)) + rng.normal(0, 6, size=3)
        truth = {"color": segment.color, "shape": segment.shape, "motion": segment.motion}
        pairs.append((f"frame {start}", truth, reader.read_clip(np.clip(faulty, 0, 255).astype(np.uint8))))
    assert_accurate(pairs)


def test_a_frame_without_the_shape_is_marked_and_ignored() -> None:
    """A shape that flickers out in one frame is still read, and the series say where it was missing."""
    scene = world.sample_scene(np.random.default_rng(3), segments=1, first=("blue", "cross", "moves left"))
    video = world.render(scene, 32)
    video[4] = video[4, 0, 0]
    reading = reader.read_clip(video)
    assert (reading.color, reading.shape, reading.motion) == ("blue", "cross", "moves left")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(reading.x)), [4])


@pytest.mark.parametrize("frames", [1, 2, 7, 11])
def test_background_alone_reads_none(frames: int) -> None:
    """A clip without a shape has no attributes to be counted as right."""
    rng = np.random.default_rng(frames)
    for _ in range(10):
        background = world.sample_background(rng)
        pose = world.Pose(x=5.0, y=5.0, radius=0.2, angle=0.0, rgb=(220.0, 40.0, 45.0))
        scene = world.Scene((world.Segment("red", "circle", "none"),), (pose,) * frames, background)
        reading = reader.read_clip(degrade(world.render(scene, 32), rng))
        assert {reading.color, reading.final_color, reading.shape, reading.motion} == {"none"}
        assert np.isnan(reading.x).all()


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 7, 11, 40])
@pytest.mark.parametrize("size", [16, 33, 64])
def test_garbage_does_not_crash(frames: int, size: int) -> None:
    """Noise, black and white frames give a reading of known names and as many frames as went in."""
    rng = np.random.default_rng(frames + size)
    noise = rng.integers(0, 256, size=(frames, size, size, 3), dtype=np.uint8)
    for video in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        reading = reader.read_clip(video)
        assert {reading.color, reading.final_color} <= {*world.COLORS, "none"}
        assert reading.shape in (*world.SHAPES, "none")
        assert reading.motion in (*world.MOTIONS, "none")
        assert reading.x.shape == (frames,)
        assert reading.rgb.shape == (frames, 3)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((7, 32, 32, 3), np.float32), "uint8"),
        (np.zeros((32, 32, 3), np.uint8), "frames, size, size, 3"),
        (np.zeros((7, 32, 48, 3), np.uint8), "frames, size, size, 3"),
        (np.zeros((7, 32, 32, 1), np.uint8), "frames, size, size, 3"),
        (np.zeros((0, 32, 32, 3), np.uint8), "at least one frame"),
        (np.zeros((7, 8, 8, 3), np.uint8), "16"),
    ],
)
def test_refuses_what_is_no_video(video: np.ndarray, message: str) -> None:
    """Another dtype or shape is the user's mistake, and the message names what is expected."""
    with pytest.raises(UserError, match=message):
        reader.read_clip(video)
