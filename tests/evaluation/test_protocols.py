"""Protocols: the published ones are what papers say, and what makes no sense is refused."""

import dataclasses
import pathlib
import re

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.examples import check_clips
from phenaki_jax.evaluation.measures import MEASURES
from phenaki_jax.evaluation.protocols import PROTOCOLS, protocol_named


def test_published_protocols_have_the_published_numbers_of_samples() -> None:
    """256 x 100 of BAIR, 50 000 x 4 of Kinetics-600, 10 000 x 4 of UCF-101."""
    bair, kinetics, ucf = (PROTOCOLS[name] for name in ("bair", "kinetics600", "ucf101"))
    assert (bair.given, bair.frames, bair.size, bair.videos_of_fold, bair.real_clips) == (1, 16, 64, 25_600, 256)
    assert (kinetics.given, kinetics.frames, kinetics.videos_of_fold, kinetics.folds) == (5, 16, 50_000, 4)
    assert (kinetics.size, kinetics.compared_size) == (128, 64)
    assert (ucf.kind, ucf.videos_of_fold, ucf.folds, ucf.split) == ("class_to_video", 10_000, 4, "train")
    # MAGVIT, appendix B.3: 256 x 15 windows of 16 in 30 frames.
    debiased = PROTOCOLS["bair_debiased"]
    assert debiased.examples == debiased.real_clips == 256 * 15 == 256 * debiased.windows


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_reported_number_is_of_a_measure_of_its_protocol(name: str) -> None:
    protocol = protocol_named(name)
    assert protocol.name == name
    assert {each.measure for each in protocol.reported} <= set(protocol.measures) <= set(MEASURES)
    assert all(each.source for each in protocol.reported)


@pytest.mark.parametrize("name", ["kinetics600", "kinetics400", "moments_in_time"])
def test_an_absent_dataset_is_told_with_the_command_that_docs_have(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tests alone, which a training's dataset is not."""
    docs = (pathlib.Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA_DIR").mkdir()
    with pytest.raises(UserError, match=rf"found no dataset {name}.* in DATA_DIR, .*--test_share 1") as error:
        check_clips(PROTOCOLS[name], "DATA_DIR")
    assert f"    {str(error.value).partition(' with: ')[2]}\n" in docs


def test_other_numbers_are_asked_for_by_name() -> None:
    assert protocol_named("bair", examples=8, samples=None).videos == 800
    with pytest.raises(
        UserError, match=r"found protocol 'bear', did you mean bair. expected one of moving_shapes, .*bair"
    ):
        protocol_named("bear")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bair", {"kind": "dreaming"}, "found kind 'dreaming' of bair, expected one of reconstruction"),
        ("bair", {"given": 16}, "found 16 given of 16 frames in bair"),
        ("bair", {"given": 0}, "found 0 given of 16 frames in bair"),
        ("bair", {"windows": 16}, "found 16 windows of 16 in 30 frames in bair, expected at most 15"),
        ("bair", {"measures": ("psnr",)}, "found psnr in bair, a prediction; expected it of reconstructions alone"),
        ("bair", {"measures": ("beauty",)}, "found measure 'beauty' in bair, expected some of fvd"),
        ("bair", {"measures": ()}, "found no measures in bair"),
        ("moments_in_time", {"samples": 2}, "found 2 samples of each clip in moments_in_time, expected 1"),
        ("ucf101", {"folds": 10**9}, "found 10000000000000 videos to draw for ucf101, expected at most 4294967296"),
        ("ucf101", {"examples": 0}, "found examples 0, expected at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(name: str, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(PROTOCOLS[name], **changes)
