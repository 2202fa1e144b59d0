"""A transformer over a frozen T5: what is trained, kept, read anew, divided over devices, exported and drawn."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from phenaki_jax.cli.export import export_checkpoint
from phenaki_jax.errors import UserError
from phenaki_jax.inference import Phenaki
from phenaki_jax.text.t5_checkpoints import load_t5
from phenaki_jax.text.testing import TINY
from phenaki_jax.training import checkpoints, loop
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.state import StepConfig
from phenaki_jax.training.transformer_learner import TransformerLearner


@pytest.fixture(scope="module")
def workdir(
    t5_learner: TransformerLearner,
    optimizer: OptimizerConfig,
    data: DataConfig,
    schedule: loop.Schedule,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "t5"
    loop.train(t5_learner, optimizer, data, dataclasses.replace(schedule, steps=2), folder)
    return folder


@pytest.fixture(scope="module")
def exported(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    export_checkpoint(workdir, folder)
    return folder


def test_the_text_encoder_is_no_part_of_a_checkpoint_and_is_read_anew(
    t5_learner: TransformerLearner, optimizer: OptimizerConfig, data: DataConfig, schedule: loop.Schedule, workdir: Path
) -> None:
    read = checkpoints.read_params(workdir)
    assert set(read["params"]) == {"transformer"}
    assert set(read["frozen"]) == {"tokenizer"}
    metrics = loop.train(t5_learner, optimizer, data, dataclasses.replace(schedule, steps=3), workdir)
    assert np.isfinite(metrics["loss"])


def test_another_text_encoder_is_refused_on_resuming(
    t5_learner: TransformerLearner,
    optimizer: OptimizerConfig,
    data: DataConfig,
    schedule: loop.Schedule,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phenaki_jax.training.transformer_learner.check_t5", lambda *_: "0123456789abcdef")
    with pytest.raises(UserError, match=r"has text_encoder = '[0-9a-f]{16}', not '0123456789abcdef'"):
        loop.train(t5_learner, optimizer, data, dataclasses.replace(schedule, steps=9), workdir)


def test_the_text_encoder_is_divided_over_devices_as_it_is_read(t5_learner: TransformerLearner) -> None:
    layout = MeshConfig(data=2, model=2, rules="fully_sharded").make()
    boxed = jax.eval_shape(t5_learner.init_params, jax.random.key(0))
    transform = t5_learner.transform(OptimizerConfig(), boxed)
    spec = state_lib.state_spec(t5_learner, transform, layout, StepConfig())
    read = t5_learner.load_frozen(spec.frozen)["text"]
    query = read["layers"]["query"]
    assert len({str(shard.index) for shard in query.addressable_shards}) == 4
    whole = load_t5(t5_learner.text_checkpoint, dataclasses.replace(TINY, length=24))
    jax.tree.map(np.testing.assert_array_equal, read, whole)


def test_an_exported_model_has_its_text_encoder_and_vocabulary(
    t5_learner: TransformerLearner, exported: Path, tmp_path: Path
) -> None:
    vocabulary = (exported / "sentencepiece.model").read_bytes()
    assert vocabulary == Path(t5_learner.text_vocabulary).read_bytes()
    model = Phenaki.load(exported)
    assert model.vocabulary_fingerprint == json.loads((exported / "model.json").read_text())["vocabulary"]
    whole = load_t5(t5_learner.text_checkpoint, dataclasses.replace(TINY, length=24))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, model.params["text"]), whole)
    video = model.generate("a red circle moves right", seed=1)
    assert video.shape == (1, 7, 32, 32, 3)
    # Replacing it replaces the vocabulary with the rest.
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "sentencepiece.model").write_bytes(b"")
    with pytest.raises(UserError, match="no vocabulary of sentencepiece"):
        Phenaki.load(copy)
    description = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**description, "vocabulary": "0123456789abcdef"}))
    (copy / "sentencepiece.model").write_bytes(vocabulary)
    with pytest.raises(UserError, match=r"found the vocabulary [0-9a-f]{16}, expected 0123456789abcdef"):
        Phenaki.load(copy)


def test_a_prompt_that_is_too_long_tells_how_long_and_is_cut_where_asked(exported: Path) -> None:
    prompt = "a red circle moves right and the square is blue and grows and the triangle is green"
    with pytest.raises(
        UserError, match=r"found a prompt of \d+ tokens \(its pieces and the end of text\), expected at most 24"
    ):
        Phenaki.load(exported).generate(prompt)
    assert Phenaki.load(exported, truncate_prompts=True).generate(prompt).shape == (1, 7, 32, 32, 3)


def test_an_encoder_of_another_size_is_refused(t5_learner: TransformerLearner) -> None:
    text = dataclasses.replace(t5_learner.model.text, layers=3)
    learner = dataclasses.replace(t5_learner, model=dataclasses.replace(t5_learner.model, text=text))
    with pytest.raises(
        UserError, match=r"found no encoder.block.2.*expected it in an encoder of this T5Config.*layers=2"
    ):
        learner.describe()


def test_a_vocabulary_of_another_encoder_is_refused(t5_learner: TransformerLearner, exported: Path) -> None:
    model = Phenaki.load(exported)
    text = dataclasses.replace(t5_learner.model.text, vocabulary_size=1000)
    config = dataclasses.replace(t5_learner.model, text=text)
    with pytest.raises(UserError, match="pieces for an embedding of 1000 rows, expected 616 to 1000"):
        Phenaki(config, model.params, model.metadata, t5_learner.text_vocabulary)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_checkpoint": ""}, "found a T5 without text_checkpoint: set it to a file or folder"),
        ({"text_vocabulary": ""}, "found a T5 without text_vocabulary"),
    ],
)
def test_a_text_encoder_without_its_files_is_refused(
    t5_learner: TransformerLearner, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(t5_learner, **changes)


def test_files_of_a_text_encoder_that_is_trained_are_refused(transformer_learner: TransformerLearner) -> None:
    with pytest.raises(UserError, match="found text_checkpoint t5 without a T5"):
        dataclasses.replace(transformer_learner, text_checkpoint="t5")


def test_an_encoder_that_has_moved_is_named_anew(workdir: Path, t5_files: dict[str, str], tmp_path: Path) -> None:
    files = {"checkpoint": str(tmp_path / "nowhere"), "vocabulary": t5_files["text_vocabulary"]}
    with pytest.raises(UserError, match=r"found nothing at .*nowhere"):
        export_checkpoint(workdir, tmp_path / "model", text_files=files)
    moved = shutil.copy(t5_files["text_checkpoint"], tmp_path / "moved.safetensors")
    export_checkpoint(workdir, tmp_path / "model", text_files={**files, "checkpoint": str(moved)})
    assert Phenaki.load(tmp_path / "model").generate("a red circle").any()


def test_averages_are_of_what_is_trained(t5_learner: TransformerLearner) -> None:
    assert t5_learner.averaged == ("transformer",)
    params = jax.eval_shape(t5_learner.init_params, jax.random.key(0))
    assert set(params) == {"transformer"}
    state_lib.state_spec(t5_learner, optax.identity(), MeshConfig().make(), StepConfig(average_decay=0.9))
