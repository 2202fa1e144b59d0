"""Precomputed: each example once, whatever ends a process, and the losses of training on the fly."""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from phenaki_jax.data.precomputed import encode_example
from phenaki_jax.data.precomputed_metadata import Precomputed
from phenaki_jax.data.tensorflow_stack import tf
from phenaki_jax.errors import UserError
from phenaki_jax.training import loop
from phenaki_jax.training import precompute as precompute_lib
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.precompute import PrecomputeConfig, precompute
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.state import frozen_spec
from phenaki_jax.training.transformer_learner import TransformerLearner

# As many as there are devices.
BATCH = 4
ONE_FILE = PrecomputeConfig(batch_size=BATCH, shards=1)


@pytest.fixture(scope="module", params=["bytes", "t5"])
def learner(request: pytest.FixtureRequest) -> TransformerLearner:
    name = "t5_learner" if request.param == "t5" else "transformer_learner"
    found: TransformerLearner = request.getfixturevalue(name)
    return dataclasses.replace(found, null_text_rate=0.25)


def records(folder: pathlib.Path) -> dict[str, list[bytes]]:
    """By the name of a task's split."""
    found: dict[str, list[bytes]] = {}
    for file in sorted(folder.glob("*/*.tfrecord-*")):
        split = f"{file.parent.name}/{file.name.partition('.')[0]}"
        found.setdefault(split, []).extend(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    return found


def frozen_of(learner: TransformerLearner) -> Any:
    return learner.load_frozen(frozen_spec(learner, MeshConfig().make()))


@pytest.mark.parametrize(
    ("learner", "pack_images"),
    [
        ("t5", True),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("t5", False), ("bytes", True), ("bytes", False))),
    ],
    indirect=["learner"],
)
def test_losses_and_gradients_are_those_on_the_fly(
    learner: TransformerLearner, data: DataConfig, tmp_path: pathlib.Path, pack_images: bool
) -> None:
    data = dataclasses.replace(data, eval_mixture="moving_shapes_joint", pack_images=pack_images)
    precompute(learner, data, tmp_path, ONE_FILE)
    stored = dataclasses.replace(learner, precomputed=str(tmp_path))
    layout, rng = MeshConfig().make(), jax.random.key(1)
    params = nn.unbox(learner.init_params(jax.random.key(0)))
    found, rows = [], []
    for each in (learner, stored):
        frozen = frozen_of(each)
        (feed,) = data.eval_feeds(each, layout, 0).values()
        learn = jax.jit(jax.grad(each.loss, has_aux=True))
        batches = list(feed)
        rows.append(len(batches))
        found.append([learn(params, frozen, batch, rng) for batch in batches])
    assert rows[0] == rows[1] > 1
    assert ("text" in frozen_of(learner)) == (learner.text_checkpoint != "")
    assert "text" not in frozen_of(stored)
    for (gradients, outputs), (stored_gradients, stored_outputs) in zip(*found, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), outputs, stored_outputs)
        difference = optax.tree.norm(optax.tree.sub(gradients, stored_gradients))
        assert difference <= 1e-5 * optax.tree.norm(gradients)
        assert float(outputs["loss"][1]) > 0


def test_processes_write_each_example_once_in_each_pass(
    learner: TransformerLearner, data: DataConfig, tmp_path: pathlib.Path
) -> None:
    config = PrecomputeConfig(batch_size=BATCH, shards=3, passes=2, processes=2)
    done = [precompute(learner, data, tmp_path, dataclasses.replace(config, process=process)) for process in (0, 1)]
    # Two passes over videos and images for training, one over videos for evaluation.
    assert [each.files for each in done] == [8, 7]
    assert sum(each.examples for each in done) == 2 * (12 + 8) + 8
    counts = {name: len(found) for name, found in records(tmp_path).items()}
    assert counts == {
        "moving_shapes_image_text/train": 16,
        "moving_shapes_video_text/train": 24,
        "moving_shapes_video_text/test": 8,
    }
    again = precompute(learner, data, tmp_path, dataclasses.replace(config, processes=1))
    assert again == precompute_lib.Done(0, 15, 0)


def test_what_is_not_there_is_completed(learner: TransformerLearner, data: DataConfig, tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(ONE_FILE, shards=2)
    precompute(learner, data, tmp_path, config)
    before = records(tmp_path)
    lost = next(tmp_path.glob("*/train.tfrecord-00001-of-00002"))
    lost.unlink()
    leftover = lost.with_name(".train.elsewhere-12345-0.tfrecord-00001-of-00002")
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    stored = dataclasses.replace(learner, precomputed=str(tmp_path))
    with pytest.raises(UserError, match=r"found 1 of 2 files of the train split, expected all of them: go on with the"):
        data.train_feed(stored, MeshConfig().make(), 0)
    assert precompute(learner, data, tmp_path, config).files == 1
    assert records(tmp_path) == before
    assert not leftover.exists()


KILLED = """
import sys, time
from phenaki_jax.cli.main import main
from phenaki_jax.training import precompute
usual = precompute.encode_example
def slow(*arguments):
    time.sleep(0.2)
    return usual(*arguments)
precompute.encode_example = slow
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_files_alone(
    transformer_learner: TransformerLearner, data: DataConfig, tmp_path: pathlib.Path
) -> None:
    run_file = tmp_path / "run.gin"
    run_file.write_text(RUN_FILE.format(data=data, workdir=transformer_learner.tokenizer_workdir))
    command = ["precompute", "--gin_file", str(run_file), "--batch_size", "4", "--shards", "4", "--json", "--out"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *command, str(tmp_path / "killed")])
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("killed/*/*.tfrecord-*"))) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = {file: file.read_bytes() for file in tmp_path.glob("killed/*/[!.]*")}
    assert 0 < len(left) < 12
    found = {}
    for folder in ("killed", "whole"):
        ended = subprocess.run(
            [sys.executable, "-m", "phenaki_jax.cli.main", *command, str(tmp_path / folder)],
            stdout=subprocess.PIPE,
            check=True,
        )
        found[folder] = json.loads(ended.stdout)
    assert found["killed"]["found"] == len(left)
    assert all(file.read_bytes() == content for file, content in left.items())
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    assert not [
        name for _, _, names in os.walk(tmp_path / "killed") for name in names if name[0] == "." and "0" in name
    ]


RUN_FILE = """
from __gin__ import dynamic_registration
from phenaki_jax.inference import window
from phenaki_jax.text import encoder
from phenaki_jax.tokenizer import config as tokenizer_config
from phenaki_jax.training import data_config
from phenaki_jax.training import loop
from phenaki_jax.training import optimizers
from phenaki_jax.training import transformer_learner
from phenaki_jax.transformer import config as transformer_config

tokenizer_config.QuantizerConfig:
    codes = 16
    code_width = 4
tokenizer_config.CViViTConfig:
    frames = 7
    frame_size = 32
    patch = 8
    width = 16
    heads = 2
    mlp_width = 32
    spatial_layers = 1
    temporal_layers = 1
    quantizer = @tokenizer_config.QuantizerConfig()
encoder.TextEncoderConfig:
    length = 24
    layers = 1
    width = 16
    heads = 2
    mlp_width = 32
transformer_config.TransformerConfig:
    codebook_size = 16
    text_width = 16
    layers = 1
    width = 16
    heads = 2
    mlp_width = 32
window.PhenakiConfig:
    tokenizer = @tokenizer_config.CViViTConfig()
    text = @encoder.TextEncoderConfig()
    transformer = @transformer_config.TransformerConfig()
transformer_learner.TransformerLearner:
    model = @window.PhenakiConfig()
    tokenizer_workdir = "{workdir}"
data_config.DataConfig:
    mixture = "{data.mixture}"
    eval_mixture = "{data.eval_mixture}"
    data_dir = "{data.data_dir}"
    batch_size = 4
loop.Schedule.steps = 2
loop.train:
    learner = @transformer_learner.TransformerLearner()
    optimizer = @optimizers.OptimizerConfig()
    data = @data_config.DataConfig()
    schedule = @loop.Schedule()
"""


@pytest.fixture(scope="module")
def stored(t5_learner: TransformerLearner, data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("precomputed")
    precompute(t5_learner, data, folder, ONE_FILE)
    return folder


@pytest.mark.slow
def test_a_training_goes_on_from_what_was_precomputed_and_without_its_text_encoder(
    t5_learner: TransformerLearner,
    data: DataConfig,
    optimizer: OptimizerConfig,
    schedule: loop.Schedule,
    stored: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    short = dataclasses.replace(schedule, steps=2)
    loop.train(t5_learner, optimizer, data, short, tmp_path)
    without = dataclasses.replace(t5_learner, precomputed=str(stored), text_checkpoint="", text_vocabulary="")
    metrics = loop.train(
        without, optimizer, dataclasses.replace(data, pack_images=False), schedule, tmp_path / "stored"
    )
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "holds what was precomputed with seed 0, expected 1: go on with the settings"),
        ({"shards": 2}, "holds what was precomputed with shards 1, expected 2"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    t5_learner: TransformerLearner, data: DataConfig, stored: pathlib.Path, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        precompute(t5_learner, data, stored, dataclasses.replace(ONE_FILE, **changes))


def test_a_folder_of_another_tokenizer_is_refused(
    t5_learner: TransformerLearner, stored: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = shutil.copytree(stored, tmp_path / "copy")
    info = dataclasses.replace(Precomputed.read(copy), tokenizer="0123456789abcdef")
    (copy / "precomputed.json").write_text(info.text())
    learner = dataclasses.replace(t5_learner, precomputed=str(copy))
    with pytest.raises(
        UserError, match=r"are of tokenizer 0123456789abcdef, expected [0-9a-f]{16}, that of .*tokenizer"
    ):
        learner.check_frozen(frozen_of(learner))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_length": 30}, "has text_length 30, expected 24"),
        ({"text_width": 0}, "has text_width 0, expected 16"),
        ({"vocabulary": "other"}, "has vocabulary other, expected [0-9a-f]{16}"),
        ({"frames": 9}, "has frames 9, expected 7"),
        ({"grids": {"moving_shapes_image_text": [8, 8]}}, r"has grid of .* \[8, 8\], expected \[4, 4\]"),
        ({"mixtures": {}}, "found no mixture 'moving_shapes_joint', expected one of"),
        (
            {"splits": {f"moving_shapes_{what}_text": ["test"] for what in ("video", "image")}},
            "found no train split",
        ),
        ({"format": 9}, "found format 9, expected 1"),
    ],
)
def test_data_of_other_sizes_is_refused(
    t5_learner: TransformerLearner,
    data: DataConfig,
    stored: pathlib.Path,
    tmp_path: pathlib.Path,
    changes: dict,
    message: str,
) -> None:
    info = dataclasses.replace(Precomputed.read(stored), **changes)
    if "grids" in changes:
        info = dataclasses.replace(info, grids={**Precomputed.read(stored).grids, **changes["grids"]})
    (tmp_path / "precomputed.json").write_text(info.text())
    learner = dataclasses.replace(t5_learner, precomputed=str(tmp_path))
    with pytest.raises(UserError, match=message):
        data.train_feed(learner, MeshConfig().make(), 0)


@pytest.mark.parametrize(
    ("tokens", "embedding", "message"),
    [
        (0, np.nan, "found NaN or infinity in a precomputed text embedding"),
        (16, 1.0, "found codes beyond the codebook of 16"),
    ],
)
def test_damaged_records_are_told(
    t5_learner: TransformerLearner,
    data: DataConfig,
    stored: pathlib.Path,
    tmp_path: pathlib.Path,
    tokens: int,
    embedding: float,
    message: str,
) -> None:
    copy = shutil.copytree(stored, tmp_path / "copy")
    record = encode_example(
        np.full((1, 4, 4), tokens), 0, np.array([3, 1]), np.full((2, 16), embedding, dtype=np.float32)
    )
    with tf.io.TFRecordWriter(str(copy / "moving_shapes_image_text" / "train.tfrecord-00000-of-00001")) as writer:
        writer.write(record)
    learner = dataclasses.replace(t5_learner, precomputed=str(copy))
    feed = data.train_feed(learner, MeshConfig().make(), 0)
    with pytest.raises(UserError, match=message):
        collections.deque(itertools.islice(feed, 20))


def test_a_text_encoder_that_gives_no_numbers_is_told(
    t5_learner: TransformerLearner, data: DataConfig, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = precompute_lib.encode_text
    monkeypatch.setattr(precompute_lib, "encode_text", lambda *arguments: usual(*arguments) * np.nan)
    with pytest.raises(
        UserError, match=r"found NaN or infinity in the embedding of a text with the tokens \[.*float32"
    ):
        precompute(t5_learner, data, tmp_path, ONE_FILE)
    assert not list(tmp_path.glob("*/*"))
