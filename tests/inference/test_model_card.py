"""The model card says what is known of a model, and nothing else."""

import pathlib

from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.fingerprint import model_fingerprint
from phenaki_jax.inference.model_card import is_model_card, model_card, settings_of
from phenaki_jax.inference.model_file import ModelMetadata, make_model_file
from phenaki_jax.inference.testing import tiny_config

# As gin writes it.
CONFIGURATION = """\
# Macros:
# =====
BATCH_SIZE = 8
MIXTURE = 'moving_shapes_joint'

# Parameters for data_config.DataConfig:
# =====
data_config.DataConfig.batch_size = %BATCH_SIZE
data_config.DataConfig.mixture = %MIXTURE
loop.Schedule.steps = 20
loop.train.seed = 3
"""
SIZES = {"tokenizer": 27028, "text": 7536, "transformer": 3680}
NETWORKS = {"tokenizer": "c187b26bfb14e7e1", "text": "bc73f96d9c4251d2", "transformer": "0123456789abcdef"}


def card_of(trained_on: dict) -> str:
    """The card of the tiny model."""
    metadata = ModelMetadata(SamplingConfig(steps=2), prefix_frames=3, trained_on=trained_on)
    return model_card(
        "tiny", tiny_config(), make_model_file(tiny_config(), metadata, "", NETWORKS), SIZES, stablehlo=True
    )


def test_what_is_known_is_told() -> None:
    told = card_of(
        {
            "step": 20,
            "averaged": True,
            "configuration": CONFIGURATION,
            "evaluation": {"step": 16, "loss": 1.23456, "note": "text"},
        }
    )
    for line in (
        "# tiny",
        "| C-ViViT tokenizer | 27,028 |",
        "| mixture | moving_shapes_joint |",
        "| batch size | 8 |",
        "| seed | 3 |",
        "| steps | 20 of 20 |",
        "| parameters | averages over the steps |",
        "| loss (held-out, step 16) | 1.235 |",
        "| guidance | 2.0 |",
        "- A prompt has at most 23 bytes.",
    ):
        assert line in told.splitlines()
    assert f"; parameters {model_fingerprint(NETWORKS)}." in told
    assert "`python tiny/stablehlo/run.py --help`" in told


def test_what_is_unknown_is_left_out() -> None:
    told = card_of({})
    assert "## Training" not in told
    assert "None" not in told


def test_a_tokenizer_draws_nothing() -> None:
    config = tiny_config().tokenizer
    file = make_model_file(config, ModelMetadata(prefix_frames=3), "", {"tokenizer": NETWORKS["tokenizer"]})
    told = model_card("tiny", config, file, {"tokenizer": 27028}, stablehlo=False)
    assert told.startswith("# tiny\n\nA C-ViViT tokenizer: videos of 32 x 32 pixels")
    for word in ("generate", "prompt", "guidance", "stablehlo"):
        assert word not in told


def test_a_card_that_somebody_has_written_is_none_of_ours(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(card_of({}))
    assert is_model_card(file)
    file.write_text("# mine\n")
    assert not is_model_card(file)


def test_settings_are_read_with_their_macros() -> None:
    found = settings_of(CONFIGURATION)
    assert found["DataConfig.mixture"] == "moving_shapes_joint"
    assert found["DataConfig.batch_size"] == "8"
    assert found["train.seed"] == "3"
