"""A dataset has a name by which a training finds it and nothing else."""

import pytest

from phenaki_jax.data.prepare.names import check_name
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.errors import UserError

TAKEN = "expected one by which nothing is read yet: "


@pytest.mark.parametrize(
    ("name", "fps", "told"),
    [
        (
            "moving_shapes",
            8,
            f"^found name 'moving_shapes', {TAKEN}moving_shapes_image_text is .* such as my_moving_shapes$",
        ),
        ("moving_shapes_joint_64", 8, f"{TAKEN}moving_shapes_joint_64 is of this package"),
        ("moving_shapes_openings", 8, f"{TAKEN}moving_shapes_openings is of this package"),
        ("video_image_80_20", 8, f"{TAKEN}video_image_80_20 is of this package"),
        (
            "kinetics600_video_text",
            25,
            r"expected one that does not end as those of tasks do \(_video_text, _image_text\)",
        ),
        ("my_videos_image_text_64", 8, "expected one that does not end as those of tasks do"),
        (
            "kinetics600",
            8,
            "^found fps 8 of kinetics600, expected 25, the rate of .*: set --fps 25, or choose another --name$",
        ),
        ("kinetics600_128", 24.5, "found fps 24.5 of kinetics600_128, expected 25"),
        ("ucf101", 8, "found fps 8 of ucf101, expected 25"),
    ],
)
def test_a_name_that_trainings_read_otherwise_is_refused(name: str, fps: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_name(PrepareSettings(name=name, fps=float(fps)))


@pytest.mark.parametrize(
    ("name", "fps"),
    [
        ("my_videos", 8),
        ("my_moving_shapes", 8),
        ("video_text", 8),
        ("kinetics600", 25),
        ("kinetics600_128", 25),
        ("webvid", 8),
        ("laion", 8),
        ("moving_mnist", 3),
    ],
)
def test_others_are_not(name: str, fps: float) -> None:
    check_name(PrepareSettings(name=name, fps=float(fps)))
