"""Each thing that is not well is told with what it means; what is well is not."""

import pytest

from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.training.tokenizer_health import advice, summary

FSQ = QuantizerConfig("fsq", levels=(5, 5, 5, 5))
WELL = {
    "codebook_usage": 0.5,
    "codebook_perplexity": 160.0,
    "frame_error_00": 0.010,
    "frame_error_01": 0.009,
    "frame_error_02": 0.011,
    "gradient_norm_first_stem": 0.1,
    "gradient_norm_later_stem": 0.2,
    "gradient_norm_first_head": 0.1,
    "gradient_norm_later_head": 0.2,
    "discriminator_loss": 1.2,
    "discriminator_accuracy": 0.7,
    "logits_real": 0.8,
    "logits_fake": -0.4,
    "gradient_norm_discriminator": 0.3,
}


def test_nothing_is_told_of_a_training_that_is_well() -> None:
    assert advice(WELL, FSQ) == []


def test_nothing_is_told_of_a_discriminator_that_has_not_begun() -> None:
    begun = {name: value for name, value in WELL.items() if "discriminator" not in name and "logits" not in name}
    assert advice(begun, FSQ) == []


@pytest.mark.parametrize(
    ("found", "told", "tried"),
    [
        ({"codebook_perplexity": 3.0}, "codebook_perplexity 3, codebook_usage 0.5 of 625 codes", "restart above 0"),
        ({"frame_error_00": 0.03}, "frame_error_00 0.03 against 0.01 of later frames", "tied_stems"),
        ({"frame_error_02": 0.05}, "frame_error_02 0.05 against 0.009 in the middle", "temporal_window"),
        ({"gradient_norm_first_stem": 1e-3}, "gradient_norm_first_stem 0.001", "images in the mixture"),
        ({"gradient_norm_later_stem": 1e-4}, "gradient_norm_later_stem 0.0001", "videos in the mixture"),
        ({"gradient_norm_first_head": 1e-3}, "gradient_norm_first_head 0.001", "images in the mixture"),
        ({"logits_real": 400.0}, "logits_real 400", "r1"),
        ({"discriminator_accuracy": 1.0}, "discriminator_accuracy 1.000", "later start"),
        ({"discriminator_accuracy": 1.0, "discriminator_loss": 0.0}, "discriminator_accuracy 1.000", "later start"),
        ({"discriminator_accuracy": 0.5}, "discriminator_accuracy 0.500", "lower r1"),
        ({"gradient_norm_discriminator": 0.0}, "gradient_norm_discriminator 0", "learning_rate"),
    ],
)
def test_what_is_not_well_is_told_with_what_to_try(found: dict[str, float], told: str, tried: str) -> None:
    (line,) = advice({**WELL, **found}, FSQ)
    assert line.startswith(told)
    assert tried in line


@pytest.mark.parametrize(
    ("quantizer", "tried"),
    [
        (QuantizerConfig("cosine_vq", restart=0.0), "learning_rate, cosine_vq with its restart above 0"),
        (QuantizerConfig("cosine_vq"), "learning_rate, a larger restart, or fewer codes"),
        (QuantizerConfig("bsq", bits=10), "learning_rate, a larger weight of entropy, or cosine_vq with"),
    ],
)
def test_what_to_try_against_collapse_is_something_else_than_what_there_is(
    quantizer: QuantizerConfig, tried: str
) -> None:
    (line,) = advice({**WELL, "codebook_perplexity": 3.0}, quantizer)
    assert tried in line


def test_images_alone_starve_nobody() -> None:
    images = {name: value for name, value in WELL.items() if name not in ("frame_error_01", "frame_error_02")}
    assert advice({**images, "gradient_norm_later_stem": 0.0, "gradient_norm_later_head": 0.0}, FSQ) == []


def test_frames_are_told_in_their_order_beyond_a_hundred() -> None:
    """As text, frame_error_100 would come before frame_error_11."""
    errors = {f"frame_error_{index:02}": 0.01 for index in range(101)}
    (line,) = advice({**errors, "frame_error_100": 0.5}, FSQ)
    assert line.startswith("frame_error_100 0.5")


def test_a_summary_has_every_part_in_numbers() -> None:
    assert summary(WELL, 625) == [
        "codes: 50.0% of 625 used, perplexity 160",
        "squared error by frame: 0.01 0.009 0.011",
        "gradient norms: first_stem 0.1, later_stem 0.2, first_head 0.1, later_head 0.2",
        "discriminator: 70.0% told right, logits of real 0.80, of fake -0.40, gradient norm 0.3",
    ]


def test_a_large_codebook_is_not_held_to_all_of_its_codes() -> None:
    """Two per cent of 2 ** 18 codes would be 5243; a step may see no more tokens than that."""
    assert advice({**WELL, "codebook_perplexity": 1000.0}, QuantizerConfig("lfq", bits=18)) == []
