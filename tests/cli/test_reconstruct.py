"""Original and reconstruction stand side by side, and their distance is told."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from phenaki_jax.cli.main import main
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.video_files import write_video
from phenaki_jax.inference.video_reader import read_video


def test_both_stand_side_by_side(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 8 frames 7 fill tokens; the ratio is 10 log10 of the squared peak over the mean squared error."""
    video = np.zeros((8, 32, 32, 3), np.uint8)
    video[...] = 30 * np.arange(8, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / "in.gif", video, fps=10.0)
    words = ["--video", str(tmp_path / "in.gif"), "--out", str(tmp_path / "both.png"), "--json"]
    assert main(["reconstruct", "--model", str(folder), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    reconstruction = Phenaki.load(folder).reconstruct(video[:7])
    error = np.mean((video[:7].astype(float) - reconstruction) ** 2)
    assert (told["frames"], told["frames_found"]) == (7, 8)
    assert told["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
    both = np.concatenate([video[:7], reconstruction], axis=2)
    strip = read_video(tmp_path / "both.png")[0][0, ::8, ::8]
    np.testing.assert_array_equal(strip, np.concatenate(list(both), axis=1))


def test_a_rate_that_no_video_has_can_be_replaced(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three pictures of 200 seconds each, at a rate of .005 frames per second."""
    first, *others = (Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue"))
    first.save(tmp_path / "slow.gif", save_all=True, append_images=others, duration=200_000)
    words = ["--model", str(folder), "--video", str(tmp_path / "slow.gif"), "--out", str(tmp_path / "both.gif")]
    assert main(["reconstruct", *words]) == 2
    assert "found 0.005 frames per second, expected 0.01 to 1000, such as --fps 8" in capsys.readouterr().err
    assert main(["reconstruct", *words, "--fps", "5"]) == 0
    assert read_video(tmp_path / "both.gif")[1] == 5
