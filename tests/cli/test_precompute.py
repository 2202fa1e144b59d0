"""phenaki precompute: what it refuses before any work, and what inspect tells of its folder."""

import json
import pathlib

import pytest

from phenaki_jax.cli.main import main
from phenaki_jax.data.precomputed_metadata import Precomputed

TRANSFORMER = "gin_configs/runs/shapes_transformer.gin"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["precompute", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gin_file", "nowhere.gin"], "found no gin file nowhere.gin"),
        (
            ["--gin_file", "gin_configs/runs/shapes_tokenizer.gin", "--gin.DATA_DIR='data'"],
            "trains a tokenizer, expected a run file of a masked transformer",
        ),
        (["--gin_file", TRANSFORMER, "--shards", "0"], "shards"),
        (["--gin_file", TRANSFORMER, "--process", "2", "--processes", "2"], "found process 2 of 2, expected 0 to 1"),
        (
            ["--gin_file", TRANSFORMER, "--gin.DATA_DIR='data'", "--gin.TOKENIZER_WORKDIR='nowhere'"],
            "found no train files in",
        ),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in told(capsys, *arguments, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_inspect_tells_what_a_folder_holds(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = Precomputed(
        mixtures={"shapes": {"videos": 0.8}},
        grids={"videos": [4, 4]},
        splits={"videos": ["train"]},
        frames=11,
        temporal_patch=2,
        codebook_size=16,
        text_length=24,
        text_width=0,
        tokenizer="0123456789abcdef",
        text_encoder="",
        vocabulary="",
        shards=1,
        passes=1,
        seed=0,
    )
    (tmp_path / "precomputed.json").write_text(info.text())
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "precomputed data"
    assert (found["files"], found["frames"], found["mixtures"]) == (0, 11, {"shapes": {"videos": 0.8}})
