"""What a folder holds is told, to people and to programs."""

import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from phenaki_jax import __version__
from phenaki_jax.cli.inspect import _lines
from phenaki_jax.cli.main import main
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.inference.export import export_model
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.testing import random_params, tiny_config
from phenaki_jax.inference.video_reader import read_video

PARAMETERS = sum(array.size for array in jax.tree.leaves(random_params(tiny_config())))


def inspect(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """What the command tells programs."""
    assert main(["inspect", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_exported_model(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = inspect(capsys, folder)
    assert told["kind"] == "exported model"
    assert told["parameters"] == PARAMETERS
    assert told["shapes"]["tokenizer/first_stem"] == [192, 16]
    assert told["config"]["transformer"] == json.loads(json.dumps(dataclasses.asdict(tiny_config().transformer)))
    assert told["prefix_frames"] == 3
    assert told["fingerprint"] == Phenaki.load(folder).fingerprint
    assert (told["phenaki_jax"], told["format"]) == (__version__, 6)


def test_people_read_lines(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "kind: exported model"
    assert f"parameters: {PARAMETERS:,}" in lines


def test_a_text_of_several_lines_is_indented_below_its_name() -> None:
    assert list(_lines({"a": {"configuration": "\n# one\n\nb = 2\n"}})) == [
        "a:",
        "  configuration:",
        "    # one",
        "",
        "    b = 2",
    ]


def test_what_is_empty_is_left_out_and_long_lines_are_wrapped() -> None:
    """As the file that a video begins with, and the steps of a long training."""
    found = {"making": {"seed": 0, "begins_with": ""}, "trained_on": {}, "steps": [*range(1000, 1100)]}
    lines = list(_lines(found))
    assert lines[:2] == ["making:", "  seed: 0"]
    assert lines[2].startswith("steps: [1000, 1001, ")
    assert all(line.startswith("  1") and len(line) <= 120 for line in lines[3:])
    assert " ".join(map(str.strip, lines[2:])) == f"steps: {found['steps']}"


def test_a_tokenizer_alone_is_not_sampled(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config().tokenizer
    export_model(tmp_path / "tokenizer", config, random_params(config))
    told = inspect(capsys, tmp_path / "tokenizer")
    assert told["codebook_size"] == 16
    assert not {"sampling", "prefix_frames"} & told.keys()


def test_a_training_and_its_checkpoint(transformer_workdir: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = inspect(capsys, transformer_workdir)
    assert told["step"] == 7
    assert told["steps"] == [7]
    assert told["codebook_size"] == 16
    assert told["averaged"] is False
    assert told["parameters"] == PARAMETERS
    assert told == inspect(capsys, transformer_workdir / "checkpoints" / "7")


def test_a_dataset_and_its_first_videos(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"train_videos": 3, "test_videos": 31, "train_images": 3, "test_images": 2}
    prepare(tmp_path, size=32, seed=0, **counts)
    told = inspect(capsys, tmp_path / "moving_shapes" / "video_32" / "1.0.0", "--out", tmp_path / "grid.png")
    assert {name: split["examples"] for name, split in told["splits"].items()} == {"train": 3, "test": 31}
    assert "frames" in told["features"]
    assert told["picture"] == str(tmp_path / "grid.png")
    (grid,), _ = read_video(tmp_path / "grid.png")
    assert grid.shape[1:] == (36 * 32, 3)
    assert grid.shape[0] in (3 * 32, 8 * 32)
    assert np.ptp(grid) > 0
    for file in tmp_path.rglob("*.tfrecord-*"):
        file.write_bytes(file.read_bytes()[:99])
    words = ["inspect", tmp_path / "moving_shapes" / "video_32" / "1.0.0", "--out", tmp_path / "other.png"]
    assert main(list(map(str, words))) == 2
    assert "examples cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "other.png").exists()


def test_tensors_are_told_without_their_model(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = inspect(capsys, folder / "tokenizer.safetensors")
    assert (told["kind"], told["types"]) == ("tensors", ["F32"])
    assert told["shapes"]["first_stem"] == [192, 16]
    tokenizer = random_params(tiny_config())["tokenizer"]
    assert told["parameters"] == sum(array.size for array in jax.tree.leaves(tokenizer))
    assert told["tensors"] == len(jax.tree.leaves(tokenizer))


def dataset_folder(folder: pathlib.Path) -> pathlib.Path:
    """What TFDS writes of a dataset without examples."""
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"name": "clips", "version": "1.0.0"}')
    (folder / "features.json").write_text('{"featuresDict": {"features": {"video": {}}}}')
    return folder


def test_what_is_beside_or_above_what_is_meant_will_do(
    folder: pathlib.Path,
    transformer_workdir: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = dataset_folder(tmp_path / "clips" / "video_32" / "1.0.0")
    meant = {
        folder / "model.json": folder,
        transformer_workdir / "checkpoints": transformer_workdir,
        transformer_workdir / "checkpoints" / "7" / "state": transformer_workdir / "checkpoints" / "7",
        dataset / "features.json": dataset,
        tmp_path / "clips" / "video_32": dataset,
        tmp_path: dataset,
    }
    for asked, place in meant.items():
        assert inspect(capsys, asked) == {"inspected": str(place), **inspect(capsys, place)}


def test_where_one_stands_is_what_is_meant(
    transformer_workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a checkpoint, whose own name is its step."""
    checkpoint = transformer_workdir / "checkpoints" / "7"
    monkeypatch.chdir(checkpoint)
    expected = inspect(capsys, checkpoint)
    assert expected["step"] == 7
    assert inspect(capsys, pathlib.Path(".")) == expected
    assert inspect(capsys, pathlib.Path("../7")) == expected
    monkeypatch.chdir(checkpoint / "state")
    assert inspect(capsys, pathlib.Path("..")) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run.gin", "found a gin file, expected .* read it as a text, or inspect the workdir of its training"),
        ("clips.tar", "found an archive, expected .* make a dataset of it with phenaki prepare"),
        ("clips.tfrecord-00000-of-00016", "found a file of examples, expected .* inspect the folder of its dataset"),
        ("report.json", "found a text, expected the folder of an exported model, .* read it as it is"),
        ("what", "found a file with the suffix '', expected the folder of an exported model"),
        ("model/README.md", "found a text, expected .* inspect .*/model, to which it belongs"),
        (
            "a/1.0.0/a.tfrecord-00000-of-00001",
            r"found a file of examples, .* inspect .*/a/1\.0\.0, to which it belongs",
        ),
        ("empty", "empty: found none of dataset_info.json, model.json, precomputed.json and checkpoints, expected"),
        ("", r"expected the folder of an exported model, .*; inspect one in it: a/1\.0\.0, b/1\.0\.0, model"),
        ("none", "found nothing at .*none"),
        ("wrong.safetensors", "wrong.safetensors cannot be read .*expected safetensors; copy it again"),
        ("empty.mp4", "empty.mp4 cannot be read .the file is empty"),
    ],
)
def test_what_cannot_be_inspected_is_told_with_what_can(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    for each in ("run.gin", "clips.tar", "clips.tfrecord-00000-of-00016", "report.json", "what", "empty.mp4"):
        (tmp_path / each).touch()
    (tmp_path / "wrong.safetensors").write_text("anything at all")
    for each in ("model", "empty"):
        (tmp_path / each).mkdir()
    for each in ("model/README.md", "model/model.json"):
        (tmp_path / each).touch()
    for each in ("a", "b"):
        (dataset_folder(tmp_path / each / "1.0.0") / "a.tfrecord-00000-of-00001").touch()
    assert main(["inspect", str(tmp_path / name)]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_dataset_with_damaged_descriptions_is_told(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = dataset_folder(tmp_path / "1.0.0")
    for content in ("", "[]", '{"splits": [{}]}', '{"splits": 1}'):
        (dataset / "dataset_info.json").write_text(content)
        assert main(["inspect", str(dataset)]) == 2
        assert "1.0.0: dataset_info.json or features.json cannot be read" in capsys.readouterr().err


def test_a_dataset_that_is_not_finished_is_none(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = dataset_folder(tmp_path / "clips" / "incomplete.1.0.0" / "dataset")
    assert main(["inspect", str(unfinished)]) == 2
    assert "found incomplete.1.0.0, a dataset that is not finished: run the same phenaki prepare" in (
        capsys.readouterr().err
    )
    finished = dataset_folder(tmp_path / "clips" / "1.0.0")
    assert inspect(capsys, tmp_path / "clips")["inspected"] == str(finished)


def test_a_prepared_dataset_of_which_files_are_gone_is_told(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As phenaki prepare tells it."""
    dataset = dataset_folder(tmp_path / "1.0.0")
    splits = [{"name": "train", "shardLengths": ["1", "2"], "numBytes": "9"}]
    (dataset / "dataset_info.json").write_text(json.dumps({"name": "clips", "version": "1.0.0", "splits": splits}))
    (dataset / "statistics.json").write_text('{"splits": {}}')
    (dataset / "prepare.json").write_text('{"name": "clips", "size": 32, "frames": 17}')
    assert main(["inspect", str(dataset)]) == 2
    told = capsys.readouterr().err
    assert "is damaged: found 0 of 2 train files, expected also clips-train.tfrecord-00000-of-00002: delete" in told
