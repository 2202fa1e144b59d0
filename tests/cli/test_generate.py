"""Prompts and stories become files with the frames that were asked for."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from phenaki_jax.cli.generate import preview_frames
from phenaki_jax.cli.main import main
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.video_files import square_frames, write_video
from phenaki_jax.inference.video_reader import read_video


def test_each_prompt_becomes_a_file(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", "a circle", "--prompt", "a square", "--seed", "3", "--out", str(tmp_path / "a.png"), "--json"]
    assert main(["generate", "--model", str(folder), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["seed"] for entry in told["written"]] == [3, 4]
    assert [pathlib.Path(entry["file"]).name for entry in told["written"]] == ["a-1.png", "a-2.png"]
    assert told["frames"] == 5
    drawn = Phenaki.load(folder).generate(["a circle", "a square"], seed=3)
    for entry, video in zip(told["written"], drawn, strict=True):
        strip = read_video(entry["file"])[0][0]
        np.testing.assert_array_equal(strip[::8, ::8], np.concatenate(list(video), axis=1))


def test_a_story_becomes_one_file(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """5 + 2 frames, then 3 of two windows' 4."""
    story, out = tmp_path / "story.yaml", tmp_path / "story.mp4"
    story.write_text("scenes: [{prompt: a circle, windows: 2}, {prompt: it grows, frames: 3}]")
    assert main(["generate", "--model", str(folder), "--story", str(story), "--fps", "5", "--out", str(out)]) == 0
    frames, fps = read_video(out)
    assert (len(frames), fps) == (10, 5)


def test_a_story_can_be_watched_while_it_is_told(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "a.mp4"
    words = ["--prompt", "a circle", "--frames", "7", "--growing", "--out", str(out)]
    assert main(["generate", "--model", str(folder), *words]) == 0
    assert len(read_video(out)[0]) == 7


def test_what_is_not_to_be_shown_and_how_codes_are_drawn_can_be_said(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    for words in ([], ["--negative_prompt", "a square"], ["--sampler", "halton", "--top_k", "3", "--top_p", ".9"]):
        out = ["--out", str(tmp_path / "a.png"), "--json"]
        assert main(["generate", "--model", str(folder), "--prompt", "a circle", *words, *out]) == 0
        told = json.loads(capsys.readouterr().out)
        drawn.append(read_video(tmp_path / "a.png")[0])
    assert told["sampling"]["sampler"] == "halton"
    assert (told["sampling"]["top_k"], told["sampling"]["top_p"]) == (3, 0.9)
    assert np.any(drawn[0] != drawn[1])
    assert np.any(drawn[0] != drawn[2])


def test_a_file_tells_how_it_was_made(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 frames and 2 more are shown in the preview, as it is of at most 8."""
    out, preview = tmp_path / "a.gif", tmp_path / "strip.png"
    words = ["--prompt", "a circle", "--seed", "3", "--guidance", "1", "--frames", "7", "--preview", str(preview)]
    assert main(["generate", "--model", str(folder), *words, "--out", str(out)]) == 0
    capsys.readouterr()
    for file, frames in ((out, 7), (preview, 1)):
        assert main(["inspect", str(file), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["kind"], told["frames"]) == ("video", frames)
        assert (told["making"]["prompts"], told["making"]["seed"]) == (["a circle"], 3)
        assert told["making"]["sampling"]["guidance"] == 1
        assert told["making"]["model"] == folder.name
        assert told["making"]["fingerprint"] == json.loads((folder / "model.json").read_text())["fingerprint"]
    assert read_video(preview)[0].shape == (1, 256, 7 * 256, 3)


@pytest.mark.parametrize(
    ("total", "shown"), [(1, [0]), (5, [0, 1, 2, 3, 4]), (15, [0, 2, 4, 6, 8, 10, 12, 14]), (0, [])]
)
def test_a_preview_spreads_over_the_whole_video(total: int, shown: list[int]) -> None:
    assert preview_frames(total) == shown


def test_a_preview_is_no_output(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = str(tmp_path / "a.png")
    assert main(["generate", "--model", str(folder), "--prompt", "a", "--out", same, "--preview", same]) == 2
    assert "as --out and as --preview, expected two files" in capsys.readouterr().err


def test_seconds_are_frames_at_the_frame_rate(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "a.gif"
    words = ["--prompt", "a circle", "--seconds", "0.7", "--fps", "10", "--out", str(out)]
    assert main(["generate", "--model", str(folder), *words]) == 0
    assert len(read_video(out)[0]) == 7


def test_seconds_of_a_story_are_seconds_of_the_file(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The model's rate is 8 frames per second; at 20, half a second is 10."""
    story, out = tmp_path / "story.yaml", tmp_path / "a.gif"
    story.write_text("scenes: [{prompt: a circle, seconds: .5}]")
    assert main(["generate", "--model", str(folder), "--story", str(story), "--fps", "20", "--out", str(out)]) == 0
    assert len(read_video(out)[0]) == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "1e9"], "found seconds 1000000000.0, expected above 0 to 1000000"),
        (["--seconds", "nan"], "found seconds nan, expected above 0 to 1000000"),
        (["--frames", "0"], "found frames 0, expected 1 to 1000000"),
        (["--steps", "0"], "found steps 0, expected at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_model_is_read(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["generate", "--model", f"{tmp_path}/none", "--prompt", "a", "--out", f"{tmp_path}/a.gif", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["generate", "reconstruct"])
def test_the_file_that_is_read_is_not_written(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    words = ["--video", f"{tmp_path}/clip.mp4", "--out", f"{tmp_path}/link.mp4"]
    prompt = ["--prompt", "a"] if command == "generate" else []
    assert main([command, "--model", f"{tmp_path}/none", *prompt, *words]) == 2
    assert "link.mp4: found the file that is read, expected another to write" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "given", "frames"), [("--image", 1, 5), ("--video", 4, 6)])
def test_a_video_begins_with_what_is_given(
    folder: pathlib.Path, tmp_path: pathlib.Path, option: str, given: int, frames: int
) -> None:
    """An image, or all 4 frames of which the window is given the last 3; then what is new of one window."""
    start = np.random.default_rng(0).integers(0, 256, (given, 32, 32, 3), dtype=np.uint8)
    start[..., 1:] = 0
    source, out = tmp_path / ("in.png" if given == 1 else "in.gif"), tmp_path / "out.png"
    write_video(source, start, fps=8.0, scale=8)
    assert main(["generate", "--model", str(folder), "--prompt", "a", option, str(source), "--out", str(out)]) == 0
    strip = read_video(out)[0][0, ::8, ::8]
    assert strip.shape == (32, 32 * frames, 3)
    shown = square_frames(read_video(source)[0], 32)
    assert len(shown) == given
    np.testing.assert_array_equal(strip[:, : 32 * given], np.concatenate(list(shown), axis=1))


def test_a_video_is_no_image(folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.gif"
    write_video(source, np.stack([np.full((32, 32, 3), index, np.uint8) for index in (0, 99)]), fps=8.0)
    words = ["--prompt", "a", "--image", str(source), "--out", str(tmp_path / "out.gif")]
    assert main(["generate", "--model", str(folder), *words]) == 2
    assert "use --video" in capsys.readouterr().err


@pytest.mark.parametrize(("fps", "kept"), [("5", [0, 2]), ("10", [0, 1, 2, 3]), ("20", [0, 0, 1, 1, 2, 2, 3, 3])])
def test_a_video_goes_on_at_the_rate_asked_for(
    folder: pathlib.Path, tmp_path: pathlib.Path, fps: str, kept: list[int]
) -> None:
    source, out = tmp_path / "in.gif", tmp_path / "out.png"
    start = np.arange(0, 160, 40, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 32, 32, 3), np.uint8)
    write_video(source, start, fps=10.0, scale=8)
    words = ["--prompt", "a", "--video", str(source), "--fps", fps, "--out", str(out)]
    assert main(["generate", "--model", str(folder), *words]) == 0
    strip = read_video(out)[0][0, ::8, ::8]
    np.testing.assert_array_equal(strip[:, : 32 * len(kept)], np.concatenate(list(start[kept]), axis=1))


def test_a_stop_leaves_nothing_half_written(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """SIGTERM, as `timeout` and job schedulers send it, while frames are being written."""
    words = ["generate", "--model", str(folder), "--prompt", "a", "--frames", "100000", "--out", f"{tmp_path}/a.mp4"]
    with subprocess.Popen([sys.executable, "-m", "phenaki_jax.cli.main", *words], stderr=subprocess.PIPE) as process:
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        told = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "phenaki: interrupted" in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
