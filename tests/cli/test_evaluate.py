"""phenaki evaluate: a file of numbers with what they are of, from models and checkpoints; mistakes told in one line."""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from phenaki_jax.cli import evaluate
from phenaki_jax.cli.main import main
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.inference.testing import random_params, tiny_config

from .conftest import write_checkpoint

FEW = ["--examples", "4", "--samples", "1", "--real", "4", "--batch_size", "4"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("shapes")
    prepare(folder, size=32, train_videos=1, test_videos=4, train_images=1, test_images=1)
    return folder


@pytest.mark.slow
def test_numbers_are_written_with_all_that_they_are_of(
    folder: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(folder), "--data_dir", str(data_dir), "--out", str(tmp_path / "new"), *FEW]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "moving_shapes: 4 videos, 4 real clips" in printed.out
    assert "obeyed_shapes_11f_32_n4" in printed.out
    assert "found 4 real and 4 generated samples for 64 features" in printed.err
    result = tmp_path / "new" / "moving_shapes.json"
    told = json.loads(result.read_text())
    assert told["model"]["folder"] == str(folder)
    assert told["model"]["parameters"] == json.loads((folder / "model.json").read_text())["fingerprint"]
    assert (told["seed"], told["sampling"]["steps"], told["protocol"]["task"]) == (0, 2, "moving_shapes_openings")
    assert {number["name"] for number in told["numbers"]} >= {"frechet_shapes_11f_32_n4", "obeyed_shapes_11f_32_n4"}
    assert (tmp_path / "new" / told["picture"]).is_file()
    # The same once more, as JSON, from what is there.
    content = result.read_bytes()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(result), **told}
    assert result.read_bytes() == content


@pytest.mark.slow
def test_a_tokenizers_checkpoint_is_evaluated_by_its_reconstructions(
    tokenizer_workdir: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs files of weights is left out and named."""
    out = tmp_path / "tokenizer.json"
    command = ["evaluate", "--workdir", str(tokenizer_workdir), "--protocol", "moving_shapes_reconstruction"]
    assert main([*command, "--data_dir", str(data_dir), "--out", str(out), *FEW]) == 0
    assert "left out: lpips (needs --vgg16_file, --lpips_file)\n" in capsys.readouterr().err
    told = json.loads(out.read_text())
    assert told["left_out"] == {"lpips": "needs --vgg16_file, --lpips_file"}
    assert (told["model"]["step"], told["model"]["averaged"]) == (7, False)
    assert told["clips"] == {"test": {"stored": 4, "windows": 3}}
    assert [number["metric"] for number in told["numbers"]] == ["psnr", "ssim", "frechet", "kernel", "obeyed"]


@pytest.mark.slow
def test_a_dataset_of_ones_own_is_measured_by_its_task(
    folder: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its test clips, in the model's frames and size."""
    command = ["evaluate", "--model", str(folder), "--protocol", "reconstruction", "--task", "moving_shapes_openings"]
    assert main([*command, "--data_dir", str(data_dir), "--out", str(tmp_path), "--batch_size", "4"]) == 0
    assert "left out: fid, kid, fid_infinity (needs --inception_file)" in capsys.readouterr().err
    told = json.loads((tmp_path / "moving_shapes_openings_reconstruction.json").read_text())
    frames, size = told["config"]["tokenizer"]["frames"], told["config"]["tokenizer"]["frame_size"]
    assert [number["name"] for number in told["numbers"]] == [
        f"{name}_{frames}f_{size}_n4" for name in ("psnr", "ssim")
    ]


@pytest.mark.slow
def test_a_checkpoint_that_takes_the_place_of_another_is_the_one_that_is_evaluated(tmp_path: pathlib.Path) -> None:
    """Of a training that was begun again in its folder, and came to the same step."""
    config = tiny_config().tokenizer
    description = {"kind": "tokenizer", "tokenizer": dataclasses.asdict(config), "phenaki_jax": "0.1.0"}
    args = argparse.Namespace(
        model=None, workdir=str(tmp_path / "run"), step=None, ema=None, t5_checkpoint=None, t5_vocabulary=None
    )
    found = []
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        params = random_params(config, seed)
        write_checkpoint(tmp_path / "run", description, params, {})
        model, of = evaluate._model(args, tmp_path / "work")
        jax.tree.map(np.testing.assert_array_equal, dict(model.params)["tokenizer"], params["tokenizer"])
        assert of == {"workdir": args.workdir, "step": 7, "averaged": False}
        found.append(sorted(path.name for path in (tmp_path / "work").glob("model-7-*")))
    assert [len(names) for names in found] == [1, 2]
    # What was exported is taken again.
    before = (tmp_path / "work").stat().st_mtime_ns
    evaluate._model(args, tmp_path / "work")
    assert (tmp_path / "work").stat().st_mtime_ns == before


@pytest.mark.slow
def test_processes_that_begin_together_find_what_one_does(
    transformer_workdir: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Two of them, of which the first exports the checkpoint, and the last to end writes the result."""
    results = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        command = [sys.executable, "-m", "phenaki_jax.cli.main", "evaluate", "--workdir", str(transformer_workdir)]
        command += [
            "--data_dir",
            str(data_dir),
            "--cache",
            str(out / "real"),
            "--out",
            str(out / "found.json"),
            "--json",
        ]
        command += ["--examples", "4", "--samples", "3", "--real", "8", "--batch_size", "4"]
        begun = [
            subprocess.Popen(
                [*command, "--process", str(index), "--processes", str(processes)], stdout=subprocess.PIPE, text=True
            )
            for index in range(processes)
        ]
        told = [json.loads(process.communicate()[0]) for process in begun]
        assert [process.returncode for process in begun] == [0] * processes
        assert any(each["file"] for each in told)
        results.append(json.loads((out / "found.json").read_text()))
        assert len(list((out / "found").glob("model-7-*"))) == 1
    assert results[0]["numbers"] == results[1]["numbers"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "bear"], "found protocol 'bear', did you mean bair? expected one of moving_shapes, "),
        (["--examples", "0"], "found examples 0, expected at least 1"),
        (["--examples", "4", "--step", "3"], "found --step without --workdir"),
        (["--no-ema"], "found --ema without --workdir"),
        (["--seed", "4294967296"], "found seed 4294967296, expected 0 to 4294967295"),
        (["--samples", "99999999999"], "found 30999999999690 videos to draw for moving_shapes, expected at most"),
        (["--real", "1"], "found 1 real clip to compare, expected at least 2 for frechet_shapes"),
        (["--inception_resize", "lanczos"], "found inception_resize 'lanczos', expected one of "),
        (["--protocol", "bair"], "found no weights for any measure of bair, expected --i3d_file for fvd"),
        (
            ["--protocol", "bair", "--i3d_file", "no.pt"],
            "I3D weights: found nothing at no.pt, expected a file; download",
        ),
        (["--i3d_file", "no.pt"], "found --i3d_file, which no measure of moving_shapes reads"),
        (
            ["--protocol", "reconstruction", "--task", "moving_shapes_openings", "--i3d_file", ""],
            "found an empty --i3d_file, expected a path",
        ),
        (
            ["--protocol", "reconstruction", "--task", "moving_shapes_openings", "--samples", "2"],
            "found 2 samples of each clip in moving_shapes_openings_reconstruction, expected 1 reconstruction",
        ),
        (["--protocol", "prediction"], "found protocol prediction without --task, expected the task of your dataset"),
        (["--task", "my_videos_video_text"], "found --task with protocol moving_shapes, which has a task of its own"),
        (["--fvd", "new"], "found fvd 'new', expected one of original, cd-fvd"),
        (["--process", "1"], "found process 1 of 1, expected 0 to 0"),
        (["--batch_size", "3"], "found batch_size 3, expected a multiple of"),
        (["--data_dir", "nowhere"], "found no test files in nowhere/moving_shapes/video_32/1.0.0, expected a dataset"),
        (["--out", "numbers.csv"], "numbers.csv: found suffix '.csv', expected .json, or a folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: pathlib.Path,
    data_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    usual = ["--model", str(folder), "--data_dir", str(data_dir), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *usual, *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") - told.count("left out: ") == 1


def test_what_is_left_out_is_told_before_drawing_with_what_it_costs_later(
    folder: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here before the file of another measure turns out not to be there."""
    command = ["evaluate", "--model", str(folder), "--data_dir", str(data_dir), "--out", str(tmp_path / "out")]
    assert main([*command, "--protocol", "moments_in_time", "--i3d_file", "no.pt"]) == 2
    *left_out, cost, mistake = capsys.readouterr().err.splitlines()
    assert left_out == [
        "left out: lpips (needs --vgg16_file, --lpips_file)",
        "left out: fid, kid, fid_infinity (needs --inception_file)",
    ]
    assert cost.startswith("what is left out can be measured later only by making all videos anew, under another")
    assert "found nothing at no.pt" in mistake


def test_a_task_that_is_not_there_is_told_before_a_checkpoint_is_exported(
    tokenizer_workdir: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--workdir", str(tokenizer_workdir), "--protocol", "reconstruction", "--task", "nope"]
    assert main([*command, "--data_dir", str(data_dir), "--out", str(tmp_path / "out")]) == 2
    assert "found mixture 'nope'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["out", "out/moving_shapes.json"])
def test_a_folder_in_the_results_place_is_told_before_drawing(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    result = tmp_path / "out" / "moving_shapes.json"
    result.mkdir(parents=True)
    assert main(["evaluate", "--model", str(folder), "--data_dir", "nowhere", "--out", str(tmp_path / out)]) == 2
    expected = f"{result}: found a folder, expected the name of a file to write; choose another --out"
    assert capsys.readouterr().err == f"phenaki: error: {expected}\n"


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_to_the_same_file(
    folder: pathlib.Path, data_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """SIGKILL as soon as there are so many batches, and then the same command again."""
    results = []
    for name, kills in (("straight", ()), ("killed", (1, 3, 5))):
        out = tmp_path / name
        command = [sys.executable, "-m", "phenaki_jax.cli.main", "evaluate", "--model", str(folder)]
        command += ["--data_dir", str(data_dir), "--cache", str(out / "real"), "--out", str(out / "found.json")]
        command += ["--examples", "12", "--samples", "2", "--real", "8", "--batch_size", "4"]
        for kill in kills:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            while process.poll() is None and len(list(out.glob("**/*.npz"))) < kill:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results.append((out / "found.json").read_bytes())
    assert results[0].replace(b"straight", b"killed") == results[1]
