"""Original and reconstruction stand side by side, and their distance is told."""

import json
import pathlib

import numpy as np
import pytest

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
