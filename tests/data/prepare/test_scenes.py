"""Scenes begin where frames change all at once, and clips lie within scenes."""

import pytest
from PIL import Image

from phenaki_jax.data.prepare.scenes import Change, clip_starts, difference, scene_starts, thumbnail


def test_differences_are_shares_of_black_to_white() -> None:
    black, white = (thumbnail(Image.new("RGB", (70, 50), name)) for name in ("black", "white"))
    half = Image.new("RGB", (64, 64), "black")
    half.paste("white", (0, 0, 64, 32))
    assert difference(black, black) == 0
    assert difference(black, white) == pytest.approx(1)
    assert difference(black, thumbnail(half)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("differences", "starts"),
    [
        ([0.0, 0.01, 0.01, 0.3, 0.01, 0.02], [0, 3]),
        ([0.0, 0.3, 0.01, 0.01, 0.01, 0.3], [0, 1, 5]),
        # A pan, a flash that nothing else is like, and what is below the threshold.
        ([0.0, 0.12, 0.13, 0.12, 0.14, 0.12], [0]),
        ([0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0], [0, 3, 4]),
        ([0.0, 0.0, 0.09, 0.0, 0.0], [0]),
        ([0.0], [0]),
    ],
)
def test_a_scene_begins_where_a_frame_differs_far_more_than_those_around_it(
    differences: list[float], starts: list[int]
) -> None:
    changes = [Change(frame, each) for frame, each in enumerate(differences) if frame]
    assert scene_starts(changes, 0.1, reach=5) == starts
    assert scene_starts(changes, 0.0, reach=5) == [0]


def test_pictures_that_stand_for_some_frames_are_compared_with_the_pictures_around_them() -> None:
    """Each of four frames: something moves, and there is one cut."""
    changes = [Change(4 * index, 0.4 if index == 5 else 0.12) for index in range(1, 10)]
    assert scene_starts(changes, 0.1, reach=5) == [0, 20]
    # What stands as long as a clip is a slide.
    assert scene_starts(changes, 0.1, reach=4) == list(range(0, 40, 4))


def test_clips_lie_within_a_scene() -> None:
    assert clip_starts([0, 10, 14], 30, frames=5, step=5, most=0) == [0, 5, 14, 19, 24]
    assert clip_starts([0, 10], 15, frames=5, step=3, most=0) == [0, 3, 10]
    assert clip_starts([0], 4, frames=5, step=5, most=0) == []


@pytest.mark.parametrize(("most", "starts"), [(1, [50]), (2, [20, 70]), (5, [10, 30, 50, 70, 90]), (20, None)])
def test_few_clips_are_spread_over_a_video(most: int, starts: list[int] | None) -> None:
    everything = list(range(0, 100, 10))
    assert clip_starts([0], 100, frames=10, step=10, most=most) == (starts or everything)
