"""t5x trains, evaluates and infers with our learners, mixtures and gin files, and its losses are those of our loop."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.inference.video_files import write_video
from phenaki_jax.t5x.convert import convert

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("t5x") is None, reason="t5x is not installed: launch/install_t5x.sh"),
]

ROOT = pathlib.Path(__file__).parents[2]
# What `training.sharding` tells XLA on CPUs, so that both run the same arithmetic.
OPTIONS = "--xla_cpu_experimental_ynn_fusion_type="
# A process of t5x may hang after an exception.
LONGEST = 900
STEPS = 20
SMALL = {
    "BATCH_SIZE": 8,
    "FRAMES": 7,
    "WIDTH": 32,
    "CViViTConfig.width": 32,
    "CViViTConfig.mlp_width": 64,
    "TransformerConfig.layers": 2,
    "OptimizerConfig.warmup_steps": 2,
}
ALL_BUT_TRANSFORMER = {name: value for name, value in SMALL.items() if "Transformer" not in name}
# The paper's quantizer, whose codes begin anew where they are not used.
CODEBOOK = {
    "QuantizerConfig.kind": "cosine_vq",
    "QuantizerConfig.levels": (),
    "QuantizerConfig.codes": 64,
    "QuantizerConfig.code_width": 8,
}
OFTEN = {"STATS_PERIOD": 1, "EVAL_STEPS": 2}


def _run(*words: str, **settings: Any) -> None:
    """One process with one device."""
    bindings = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    environment = {**os.environ, "XLA_FLAGS": OPTIONS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *words, *bindings]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _t5x(what: str, model: str, data: pathlib.Path, **settings: Any) -> None:
    files = [f"--gin_file=gin_configs/t5x/{name}.gin" for name in (model, what)]
    _run(f"t5x.{what}", *files, f"--tfds_data_dir={data}", **settings)


def _ours(model: str, data: pathlib.Path, workdir: pathlib.Path, **settings: Any) -> pathlib.Path:
    words = ["--gin_file", f"gin_configs/runs/{model}.gin", "--workdir", str(workdir)]
    _run("phenaki_jax.train", *words, DATA_DIR=str(data), **settings)
    return workdir


def _losses_of_t5x(folder: pathlib.Path) -> list[float]:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return [float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors("loss")]


def _losses_of_ours(workdir: pathlib.Path) -> list[float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


def _largest_difference(found: list[float], wanted: list[float]) -> float:
    assert len(found) == len(wanted)
    differences = np.abs(np.subtract(found, wanted)) / np.abs(wanted)
    print(f"losses of {len(wanted)} steps differ by at most {differences.max():.2g} of their size")
    return float(differences.max())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder, size=32, train_videos=64, test_videos=62, train_images=40, test_images=40)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, data: pathlib.Path) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    return str(_ours("shapes_tokenizer", data, folder, STEPS=4, **ALL_BUT_TRANSFORMER))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, data: pathlib.Path, tokenizer: str) -> pathlib.Path:
    settings = {**SMALL, "STEPS": STEPS, "TOKENIZER_WORKDIR": tokenizer, "Schedule.log_every": 1}
    return _ours("shapes_transformer", data, tmp_path_factory.mktemp("ours"), **settings)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, data: pathlib.Path, tokenizer: str) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("theirs")
    periods = {"EVAL_PERIOD": STEPS, "CHECKPOINT_PERIOD": STEPS, "STEPS": STEPS}
    settings = {**SMALL, **OFTEN, **periods, "TOKENIZER_WORKDIR": tokenizer, "MODEL_DIR": str(folder)}
    _t5x("train", "shapes_transformer", data, **settings)
    return folder


def test_twenty_steps_of_the_transformer_are_those_of_our_loop(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    losses = _losses_of_ours(ours)
    assert len(losses) == STEPS
    assert _largest_difference(_losses_of_t5x(theirs / "train"), losses) < 1e-6


def test_a_tokenizer_trains_its_codebook_as_our_loop_does(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = {**ALL_BUT_TRANSFORMER, **CODEBOOK, "STEPS": 8}
    wanted = _ours("shapes_tokenizer", data, tmp_path / "ours", **settings, **{"Schedule.log_every": 1})
    periods = {"EVAL_PERIOD": 8, "CHECKPOINT_PERIOD": 8, "MODEL_DIR": str(tmp_path / "theirs")}
    _t5x("train", "shapes_tokenizer", data, **settings, **OFTEN, **periods)
    assert _largest_difference(_losses_of_t5x(tmp_path / "theirs" / "train"), _losses_of_ours(wanted)) < 1e-6


def test_a_prepared_dataset_is_known_by_its_name(tmp_path: pathlib.Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(24):
        frames = np.random.default_rng(index).integers(0, 256, (1, 8, 8, 3), np.uint8).repeat(5, 1).repeat(5, 2)
        write_video(videos / f"{index}.gif", np.stack([np.roll(frames[0], step, 1) for step in range(9)]), 8.0)
        (videos / f"{index}.txt").write_text(f"noise of seed {index}")
    data = tmp_path / "data"
    sizes = ["--size", "32", "--fps", "8", "--frames", "7", "--test_share", "0.5"]
    _run("phenaki_jax.cli.main", "prepare", str(videos), "--out", str(data), "--name", "mine", *sizes)
    settings = {**ALL_BUT_TRANSFORMER, "BATCH_SIZE": 4, "STEPS": 4}
    settings |= {"MIXTURE": "mine_video_text", "EVAL_MIXTURE": "mine_video_text"}
    often = {"Schedule.log_every": 1, "Schedule.eval_batches": 1}
    wanted = _ours("shapes_tokenizer", data, tmp_path / "ours", **settings, **often)
    periods = {"EVAL_PERIOD": 4, "CHECKPOINT_PERIOD": 4, "MODEL_DIR": str(tmp_path / "theirs")}
    _t5x("train", "shapes_tokenizer", data, **settings, **{**OFTEN, "EVAL_STEPS": 1}, **periods)
    assert _largest_difference(_losses_of_t5x(tmp_path / "theirs" / "train"), _losses_of_ours(wanted)) < 1e-6


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_both_sides_have_the_same_checkpoints(
    data: pathlib.Path, ours: pathlib.Path, theirs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    found, wanted = (
        ocp.PyTreeCheckpointer().restore(checkpoint / "state")
        for checkpoint in (convert(ours, tmp_path / "t5x"), theirs / f"checkpoint_{STEPS}")
    )
    jax.tree.map(lambda leaf, other: np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4), found, wanted)
    # Evaluated without the tokenizer's folder, since checkpoints are complete.
    settings = {**SMALL, "EVAL_STEPS": 2, "TOKENIZER_WORKDIR": "nowhere", "EVAL_OUTPUT_DIR": str(tmp_path / "eval")}
    _t5x("eval", "shapes_transformer", data, CHECKPOINT_PATH=str(tmp_path / "t5x" / f"checkpoint_{STEPS}"), **settings)
    while_training, afterwards = (
        _losses_of_t5x(folder / "training_eval" / "moving_shapes_video_text") for folder in (theirs, tmp_path / "eval")
    )
    assert _largest_difference(afterwards, while_training) < 1e-6
    _run("phenaki_jax.cli.main", "export", "--workdir", str(convert(theirs, tmp_path / "back").parents[1]), "--out",
         str(tmp_path / "model"))  # fmt: skip
    assert (tmp_path / "model" / "transformer.safetensors").exists()


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_t5x_goes_on_from_a_checkpoint_of_ours(
    data: pathlib.Path, tokenizer: str, ours: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    begun = convert(ours, tmp_path / "begun")
    periods = {"EVAL_PERIOD": STEPS + 2, "CHECKPOINT_PERIOD": STEPS + 2, "STEPS": STEPS + 2}
    settings = {**SMALL, **OFTEN, **periods, "TOKENIZER_WORKDIR": tokenizer, "SAVE_DATASET": False}
    _t5x("train", "shapes_transformer", data, INITIAL_CHECKPOINT=str(begun), MODEL_DIR=str(tmp_path / "on"), **settings)
    losses = _losses_of_t5x(tmp_path / "on" / "train")
    assert len(losses) == 2
    # Less than that of a uniform guess among 625 codes, which untrained parameters are above.
    assert max(losses) < np.log(625)
    # Before its first step it has saved what it has begun with: counts and moments of the optimizer too.
    found, wanted, after = (
        ocp.PyTreeCheckpointer().restore(checkpoint / "state")["state"]
        for checkpoint in (tmp_path / "on" / begun.name, begun, tmp_path / "on" / f"checkpoint_{STEPS + 2}")
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    moments, counts = (
        {path: leaf for path, leaf in flatten_dict(wanted["param_states"]).items() if is_count == (path[-1] == "count")}
        for is_count in (False, True)
    )
    assert any(np.any(leaf) for leaf in moments.values())
    assert set(map(int, counts.values())) == {STEPS}
    assert {int(flatten_dict(after["param_states"])[path]) for path in counts} == {STEPS + 2}


@pytest.mark.parametrize("mode", ["predict", "score"])
def test_infer_draws_videos_and_scores(
    mode: str, data: pathlib.Path, theirs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    settings = {**SMALL, "SAMPLING_STEPS": 2, "TOKENIZER_WORKDIR": "nowhere", "INFER_OUTPUT_DIR": str(tmp_path)}
    _t5x("infer", "shapes_transformer", data, CHECKPOINT_PATH=str(theirs / f"checkpoint_{STEPS}"), INFER_MODE=mode,
         **settings)  # fmt: skip
    [file] = tmp_path.glob(f"*{mode}.jsonl-00000-of-00001")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 62
    assert all(line["text"] for line in lines)
    if mode == "score":
        assert all(-20 < line["score"] < 0 for line in lines)
    else:
        videos = {line["video"] for line in lines}
        assert len(videos) == 62
        with Image.open(tmp_path / min(videos)) as video:
            assert getattr(video, "n_frames", 1) > 1
