"""A number tells what it depends on in its name and its json."""

import dataclasses
import json

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.bootstrap import Interval
from phenaki_jax.evaluation.measured import Measured, Settings

SHA256 = "0123456789abcdef" * 4
SETTINGS = Settings(
    generated=2048,
    real=2048,
    network="i3d",
    features=400,
    weights_sha256=SHA256,
    frames=16,
    size=(224, 224),
    resize="bilinear",
    seed=3,
)


@pytest.mark.parametrize(
    ("metric", "changes", "name"),
    [
        ("fvd", {}, "fvd_i3d_16f_224_n2048"),
        ("fvd", {"real": 10000, "size": (128, 224)}, "fvd_i3d_16f_128x224_r10000_n2048"),
        ("inception_score", {"real": 0, "frames": 1, "network": "inception"}, "inception_score_inception_224_n2048"),
        ("psnr", {"network": "", "weights_sha256": "", "features": 0}, "psnr_16f_224_n2048"),
    ],
)
def test_the_name_tells_numbers_apart(metric: str, changes: dict, name: str) -> None:
    assert Measured(metric, 1.5, dataclasses.replace(SETTINGS, **changes)).name == name


def test_the_json_has_everything() -> None:
    interval = Interval(low=90.0, high=110.0, level=0.95, replicates=1000, seed=3)
    settings = dataclasses.replace(SETTINGS, more=(("starts", "any"),))
    found = json.loads(json.dumps(Measured("fvd", 101.5, settings, interval).as_json()))
    assert found == {
        "name": "fvd_i3d_16f_224_n2048",
        "metric": "fvd",
        "value": 101.5,
        "interval": {"low": 90.0, "high": 110.0, "level": 0.95, "replicates": 1000, "seed": 3},
        "settings": {
            "generated": 2048,
            "real": 2048,
            "network": "i3d",
            "features": 400,
            "weights_sha256": SHA256,
            "frames": 16,
            "size": [224, 224],
            "resize": "bilinear",
            "seed": 3,
            "starts": "any",
        },
    }


def test_too_few_samples_come_with_a_caution() -> None:
    few = dataclasses.replace(SETTINGS, generated=256)
    found = Measured("fvd", 500.0, few).as_json()["caution"]
    assert found.startswith("fvd_i3d_16f_224_r2048_n256: found 256 generated samples for 400 features, expected more")
    assert "\n" not in found
    both = Measured("fvd", 500.0, dataclasses.replace(few, real=400)).caution
    assert both is not None
    assert "found 400 real and 256 generated samples" in both
    for metric, settings in (("fvd", SETTINGS), ("kvd", few)):
        assert Measured(metric, 1.0, settings).caution is None
        assert "caution" not in Measured(metric, 1.0, settings).as_json()


def test_a_kernel_distance_of_no_more_samples_than_a_subset_comes_with_a_caution() -> None:
    """Of those of subsets; that of all pairs was never meant to have a deviation."""
    sizes = (("subset_size_real", 1000), ("subset_size_generated", 256))
    few = dataclasses.replace(SETTINGS, generated=256, more=sizes)
    found = Measured("kvd", 0.1, few).caution
    assert found is not None
    assert found.startswith(
        "kvd_i3d_16f_224_r2048_n256: found 256 generated samples, expected more than the 1000 of a subset: each subset "
        "is the whole set, and no deviation of subsets tells how much of the value is chance"
    )
    assert "\n" not in found
    assert Measured("kvd", 0.1, dataclasses.replace(few, generated=1001)).caution is None
    assert Measured("kvd", 0.1, dataclasses.replace(few, more=())).caution is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generated": 0}, "found generated 0, expected at least 1"),
        ({"size": (224,)}, r"found size \(224,\), expected \(height, width\)"),
        ({"weights_sha256": "i3d.pt"}, "found weights_sha256 'i3d.pt' of i3d, expected 64 hexadecimal digits"),
        ({"frames": "16"}, "expected a whole number"),
    ],
)
def test_settings_that_say_nothing_are_refused(changes: dict, message: str, unchecked: None) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SETTINGS, **changes)
