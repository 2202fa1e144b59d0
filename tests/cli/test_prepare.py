"""phenaki prepare: from a folder to a dataset that the other commands read, and what it refuses."""

import json
import pathlib
import re

import pytest

from phenaki_jax.cli import prepare as command
from phenaki_jax.cli.main import main
from phenaki_jax.data.prepare import preparation
from tests.data.prepare.files import make_image, make_video

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(3):
        make_video(folder / f"{index}.mp4", filters=f"hue=h={60 * index}")
        (folder / f"{index}.txt").write_text(f"video {index}")
    make_image(folder / "3.png")
    (folder / "broken.mp4").touch()
    (folder / "broken.txt").write_text("nothing")
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["prepare", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_folder_becomes_a_dataset_and_is_left_alone_then(
    videos: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", videos, "--out", tmp_path, "--name", "own", "--size", 16, "--frames", 5, "--workers", 1]
    assert main([*map(str, words), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["folder"] == str(tmp_path / "own" / "1.0.0")
    assert sum(split["examples"] for split in found["splits"].values()) == 12
    assert found["reasons"] == {"has no caption": 1, "is empty (0 bytes)": 1}
    assert captured.err == ""
    assert main([*map(str, words)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{tmp_path / 'own' / '1.0.0'} was there: ")
    assert "2 set aside, see" in line
    assert main(["inspect", found["folder"], "--out", str(tmp_path / "grid.png")]) == 0
    assert (tmp_path / "grid.png").exists()
    capsys.readouterr()
    make_image(videos / "4.png", seed=4)
    (videos / "3.png").unlink()
    (videos / "2.mp4").rename(videos / "5.mp4")
    assert main([*map(str, words)]) == 0
    told_changes = (
        "; since it was begun 2 files came (not in it) and 2 files went: another --version or --name is made of the"
    )
    assert told_changes in capsys.readouterr().out
    assert main([*map(str, words), "--json"]) == 0
    assert json.loads(capsys.readouterr().out).items() >= {"came": 2, "gone": 2}.items()
    assert "made with other settings (quality 95, now 50)" in told(capsys, *words[1:], "--quality", 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "16"], "found frames 16, expected 1 + k * 2, such as 15 or 17"),
        (["--name", "My videos"], "found name 'My videos', expected lower-case letters"),
        (["--size", "4"], "found size 4, expected 16 to 2048"),
        (["--on_missing_caption", "drop"], "found on_missing_caption 'drop', expected one of skip, empty"),
        (["--workers", "-1"], "error: found workers -1, expected at least 1, or 0 for one on each core\n"),
        (["--time_limit", "0"], "error: found time_limit 0, expected seconds above 0, such as 60\n"),
        (["--time_limit", "-3"], "found time_limit -3"),
        (["--time_limit", "nan"], "found time_limit nan"),
        (["--memory_limit", "0.1"], "error: found memory_limit 0.1, expected 0.25 to 1048576 GiB, such as 4\n"),
        (["--memory_limit", "inf"], "found memory_limit inf"),
        (["--memory_limit", "nan"], "found memory_limit nan"),
        (["--memory_limit", "1e300"], "found memory_limit 1e+300"),
        (["--shard_mb", "0"], "found shard_mb 0, expected at least 1"),
        (["--fps", "0"], "found fps 0, expected"),
        (["--name", "moving_shapes"], "found name 'moving_shapes', expected one by which nothing is read yet"),
        (["--name", "kinetics600"], "found fps 8 of kinetics600, expected 25"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in told(capsys, tmp_path, "--out", tmp_path / "data", *arguments)
    assert not (tmp_path / "data").exists()


def words_of(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    splits: dict[str, int],
    *options: str,
    sources: int = 2,
) -> str:
    """What the command says in the end of a dataset of so many examples in its splits."""
    counts = {split: {"examples": count, "sources": sources} for split, count in splits.items()}
    done = preparation.Prepared(pathlib.Path("data"), False, {"splits": counts, "set_aside": 0})
    monkeypatch.setattr(preparation, "prepare", lambda *_: done)
    assert main(["prepare", "videos", "--out", "data", *options]) == 0
    return capsys.readouterr().out


NO_TESTS = "; nothing is for tests, which a training evaluates on:"


@pytest.mark.parametrize(
    ("splits", "sources", "share", "told"),
    [
        (["train", "test"], 1, "0.02", "\n"),
        (["train"], 1, "0.02", f"{NO_TESTS} prepare more files, or name another dataset as its EVAL_MIXTURE\n"),
        (["train"], 2, "0.02", f"{NO_TESTS} name some for tests in the table's column split, or name another"),
        (["train"], 2, "0", f"{NO_TESTS} prepare with a --test_share above 0, or name another dataset as its EVAL"),
        (["test_images"], 1, "0.02", "; nothing is for training"),
    ],
)
def test_a_split_that_is_absent_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    splits: list[str],
    sources: int,
    share: str,
    told: str,
) -> None:
    line = words_of(monkeypatch, capsys, dict.fromkeys(splits, 64), "--test_share", share, sources=sources)
    shares = ", ".join(f"64 {split} of {'1 source' if sources == 1 else '2 sources'}" for split in splits)
    assert line.startswith(f"data: {shares}{told}")


def test_splits_that_fill_no_batch_are_told_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words_of(monkeypatch, capsys, {"train": 9, "test": 3}) == (
        "data: 9 train of 2 sources, 3 test of 2 sources; 3 clips for tests: a batch of an evaluation must not be "
        "larger, so train with --gin.EVAL_BATCH_SIZE=3 (or prepare more, or with a larger --test_share, under another "
        "--version); 9 clips for training: a larger batch takes some of them several times, so train with "
        "--gin.BATCH_SIZE=9 or less, or prepare more\n"
    )
    both = words_of(monkeypatch, capsys, {"train": 64, "test": 90, "test_images": 1})
    assert "; 1 image for tests: " in both
    assert "--gin.EVAL_BATCH_SIZE=1, or name the others alone as its EVAL_MIXTURE (or prepare" in both
    alone = words_of(monkeypatch, capsys, {"test": 3}, "--test_share", "1")
    assert alone.endswith("--gin.EVAL_BATCH_SIZE=3 (or prepare more under another --version)\n")
    enough = words_of(monkeypatch, capsys, {"train": 40, "train_images": 24, "test": 8})
    assert enough == "data: 40 train of 2 sources, 24 train_images of 2 sources, 8 test of 2 sources\n"


def test_what_is_few_is_what_the_run_files_of_own_videos_take_at_once() -> None:
    read = (ROOT / "gin_configs" / "runs" / "videos_transformer.gin").read_text()
    macros = dict(re.findall(r"^(BATCH_SIZE|EVAL_BATCH_SIZE) = (\d+)$", read, re.MULTILINE))
    assert {name: int(value) for name, value in macros.items()} == {
        "BATCH_SIZE": command._BATCH_SIZE,
        "EVAL_BATCH_SIZE": command._EVAL_BATCH_SIZE,
    }


def test_a_folder_of_nothing_is_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    assert "found no video and no image in" in told(capsys, tmp_path / "videos", "--out", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_least_memory_is_enough_to_decode(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", size="640x360")
    make_image(tmp_path / "videos" / "b.webp")
    words = [tmp_path / "videos", "--out", tmp_path / "data", "--frames", 5, "--on_missing_caption", "empty"]
    assert main(["prepare", *map(str, words), "--workers", "1", "--memory_limit", "0.25", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["set_aside"] == 0
    assert {split: each["examples"] for split, each in found["splits"].items()} == {"train": 4, "train_images": 1}
