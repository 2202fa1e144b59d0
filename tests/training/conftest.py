"""A dataset and learners small enough to train in seconds."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import sentencepiece

from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.text.testing import TINY
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.loop import Schedule, train
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.training.transformer_learner import TransformerLearner

STEPS = 6
T5_FIXTURE = Path(__file__).parents[1] / "text" / "fixtures" / "transformers_t5.safetensors"
# Two frames more than a continuation is given.
CONFIG = dataclasses.replace(tiny_config(), tokenizer=dataclasses.replace(tiny_config().tokenizer, frames=7))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder, size=32, train_videos=12, test_videos=8, train_images=8, test_images=8)
    return DataConfig("moving_shapes_joint", "moving_shapes_video_text", str(folder), batch_size=4)


@pytest.fixture(scope="session")
def optimizer() -> OptimizerConfig:
    return OptimizerConfig("muon", learning_rate=1e-2, warmup_steps=1, decay_steps=STEPS, clip=1.0)


@pytest.fixture(scope="session")
def schedule() -> Schedule:
    return Schedule(STEPS, log_every=1, checkpoint_every=4, eval_every=STEPS, images_every=STEPS, eval_batches=2)


@pytest.fixture(scope="session")
def tokenizer_learner() -> TokenizerLearner:
    return TokenizerLearner(CONFIG.tokenizer)


@pytest.fixture(scope="session")
def tokenizer_workdir(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer_learner: TokenizerLearner,
    optimizer: OptimizerConfig,
    data: DataConfig,
    schedule: Schedule,
) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "tokenizer"
    train(tokenizer_learner, optimizer, data, schedule, workdir)
    return workdir


@pytest.fixture(scope="session")
def transformer_learner(tokenizer_workdir: Path) -> TransformerLearner:
    return TransformerLearner(CONFIG, str(tokenizer_workdir), null_text_rate=0.5)


@pytest.fixture(scope="session")
def t5_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small T5 that transformers wrote, and a vocabulary of its size."""
    folder = tmp_path_factory.mktemp("t5")
    checkpoint = shutil.copy(T5_FIXTURE, folder / "model.safetensors")
    with open(folder / "sentencepiece.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(
                ["a red circle moves right", "the square is blue and grows", "a green triangle"] * 9
            ),
            model_writer=file,
            vocab_size=TINY.vocabulary_size,
            hard_vocab_limit=False,
            minloglevel=2,
            **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        )
    return {"text_checkpoint": str(checkpoint), "text_vocabulary": str(folder / "sentencepiece.model")}


@pytest.fixture(scope="session")
def t5_learner(tokenizer_workdir: Path, t5_files: dict[str, str]) -> TransformerLearner:
    """Over a frozen T5."""
    text = dataclasses.replace(TINY, length=24)
    transformer = dataclasses.replace(CONFIG.transformer, text_width=TINY.width)
    model = dataclasses.replace(CONFIG, text=text, transformer=transformer)
    return TransformerLearner(model, str(tokenizer_workdir), **t5_files)
