"""What is watched while a tokenizer trains, and what it means where it is not well."""

from __future__ import annotations

import functools
import statistics

from clu import metrics

from phenaki_jax.evaluation.metrics import CodeCounts, CodePerplexity, Ratio
from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.cvivit import STEMS

_MEANS = (
    "loss",
    "reconstruction_loss",
    "quantizer_loss",
    "psnr",
    "psnr_first_frame",
    "frame_error",
    "image_perceptual",
    "video_perceptual",
    "commitment",
    "codebook",
    "token_entropy",
    "code_entropy",
    "codebook_restarts",
    "gradient_norm",
    *(f"gradient_norm_{name}" for name in STEMS),
)

_MEANS_OF_GAME = (
    "adversarial_loss",
    "adversarial_weight",
    "discriminator_loss",
    "discriminator_r1",
    "discriminator_lecam",
    "discriminator_accuracy",
    "logits_real",
    "logits_fake",
    "gradient_norm_discriminator",
)

# Share of the codes, of large codebooks that of the paper's number: some steps see no more tokens.
_LEAST_PERPLEXITY, _MOST_CODES = 0.02, 8192
_STARVED = 0.01
_FIRST_FRAME_WORSE = 2.0
_LAST_FRAMES_WORSE = 2.0
_LARGEST_LOGIT = 50.0
_SURE, _UNSURE = 0.99, 0.52


@functools.cache
def collection(*, adversarial: bool) -> type[metrics.Collection]:
    """All metrics of a tokenizer's training, with those of a discriminator or without."""
    return metrics.Collection.create(
        codebook_usage=CodeCounts,
        codebook_perplexity=CodePerplexity,
        **{name: Ratio.from_output(name) for name in (*_MEANS, *(_MEANS_OF_GAME if adversarial else ()))},
    )


def advice(values: dict[str, float], quantizer: QuantizerConfig) -> list[str]:
    """A line for each thing that is not well: what is seen, what it means, what to try.

    Args:
      values: metrics of the last steps, by name.
      quantizer: which codes there are.
    """
    return [*_of_codes(values, quantizer), *_of_frames(values), *_of_gradients(values), *_of_game(values)]


def summary(values: dict[str, float], codebook_size: int) -> list[str]:
    """How the codes, the frames, the first and later frames' layers and the game stand: a line for each.

    Args:
      values: metrics of the last steps, by name.
      codebook_size: number of codes.
    """
    lines = []
    if "codebook_usage" in values:
        used, perplexity = values["codebook_usage"], values["codebook_perplexity"]
        lines.append(f"codes: {used:.1%} of {codebook_size} used, perplexity {perplexity:.4g}")
    if errors := _frame_errors(values):
        lines.append("squared error by frame: " + " ".join(f"{error:.2g}" for error in errors.values()))
    if norms := [
        f"{name} {values[f'gradient_norm_{name}']:.2g}" for name in STEMS if f"gradient_norm_{name}" in values
    ]:
        lines.append("gradient norms: " + ", ".join(norms))
    if "discriminator_loss" in values:
        lines.append(
            f"discriminator: {values['discriminator_accuracy']:.1%} told right, logits of real "
            f"{values['logits_real']:.2f}, of fake {values['logits_fake']:.2f}, gradient norm "
            f"{values['gradient_norm_discriminator']:.2g}"
        )
    return lines


def _frame_errors(values: dict[str, float]) -> dict[str, float]:
    """The errors of frames by the names of their metrics, in the frames' order."""
    names = [name for name in values if name.startswith("frame_error_")]
    return {name: values[name] for name in sorted(names, key=lambda name: int(name.rpartition("_")[2]))}


def _of_codes(values: dict[str, float], quantizer: QuantizerConfig) -> list[str]:
    perplexity, codebook_size = values.get("codebook_perplexity"), quantizer.codebook_size
    if perplexity is None or perplexity >= max(2.0, _LEAST_PERPLEXITY * min(codebook_size, _MOST_CODES)):
        return []
    usage = values.get("codebook_usage", 0.0)
    restarts = "cosine_vq with its restart above 0"
    if quantizer.kind in ("lfq", "bsq"):
        other = f"a larger weight of entropy, or {restarts}"
    elif quantizer.has_codebook and quantizer.restart > 0:
        other = "a larger restart, or fewer codes"
    else:
        other = restarts
    return [
        f"codebook_perplexity {perplexity:.3g}, codebook_usage {usage:.2g} of {codebook_size} codes: a few codes carry "
        "nearly all tokens (collapse). Normal in the first hundreds of steps; later try a longer warmup_steps, a lower "
        f"learning_rate, {other}"
    ]


def _of_frames(values: dict[str, float]) -> list[str]:
    names, errors = list(found := _frame_errors(values)), list(found.values())
    if len(errors) < 3:
        return []
    later = statistics.median(errors[1:])
    told = []
    if errors[0] > _FIRST_FRAME_WORSE * later:
        told.append(
            f"frame_error_00 {errors[0]:.3g} against {later:.3g} of later frames: the first frame is drawn worse, as "
            "its layers see few tokens. Try tied_stems, or more images in the mixture"
        )
    if errors[-1] > _LAST_FRAMES_WORSE * errors[len(errors) // 2]:
        told.append(
            f"{names[-1]} {errors[-1]:.3g} against {errors[len(errors) // 2]:.3g} in the middle: the error grows along "
            "the clip. Few clips may reach this length (look at their lengths), or temporal_window may be too short"
        )
    return told


def _of_gradients(values: dict[str, float]) -> list[str]:
    told = []
    of_videos = len(_frame_errors(values)) > 1
    for pair in (("first_stem", "later_stem"), ("first_head", "later_head")):
        norms = {name: values.get(f"gradient_norm_{name}", 1.0) for name in pair}
        least, most = sorted(norms, key=lambda name: norms[name])
        if norms[least] < _STARVED * norms[most] and of_videos:
            whose, what = (
                ("first frame's", "tied_stems, or more images in the mixture")
                if least == pair[0]
                else ("later frames'", "more videos in the mixture, in which something moves")
            )
            told.append(
                f"gradient_norm_{least} {norms[least]:.2g} against gradient_norm_{most} {norms[most]:.2g}: the {whose} "
                f"layers starve. Normal in the first steps; later try {what}"
            )
    return told


def _of_game(values: dict[str, float]) -> list[str]:
    if "discriminator_loss" not in values:  # it has not started
        return []
    accuracy, real, fake = (values[name] for name in ("discriminator_accuracy", "logits_real", "logits_fake"))
    told = []
    if max(abs(real), abs(fake)) > _LARGEST_LOGIT:
        told.append(
            f"logits_real {real:.3g}, logits_fake {fake:.3g}: the discriminator explodes. Try a larger r1, a lower "
            "learning_rate of its own (discriminator_optimizer), or lecam 0.001"
        )
    elif accuracy > _SURE:
        told.append(
            f"discriminator_accuracy {accuracy:.3f}: it tells every reconstruction, whose gradient then says little. "
            "Normal while reconstructions are blurred; later try a larger r1, a lower weight, lecam 0.001, or a "
            "later start"
        )
    elif accuracy < _UNSURE:
        told.append(
            f"discriminator_accuracy {accuracy:.3f}, no better than chance: the tokenizer fools it, or it has not "
            "begun to learn. Normal in the first steps; later look at gradient_norm_discriminator, and try a lower r1, "
            "a higher learning_rate of its own, or a larger batch"
        )
    if values.get("gradient_norm_discriminator") == 0:
        told.append(
            "gradient_norm_discriminator 0: the discriminator is dead. Begin anew from a checkpoint before, with a "
            "lower learning_rate or in float32"
        )
    return told
