"""What is watched while a masked transformer trains."""

from __future__ import annotations

import jax.numpy as jnp
from clu import metrics
from jaxtyping import Array

from phenaki_jax.evaluation.metrics import Ratio
from phenaki_jax.training.rows import Rows
from phenaki_jax.transformer.objective import TokenLoss

# Of the tokens, how many hundredths are masked.
_QUARTERS = ("0_25", "25_50", "50_75", "75_100")
_KINDS = (
    "",
    "_video",
    "_image",
    "_prefixed",
    "_not_prefixed",
    "_null_text",
    *(f"_masked_{quarter}" for quarter in _QUARTERS),
    *(f"_null_text_masked_{quarter}" for quarter in _QUARTERS),
)
_MEANS = (
    *(f"{what}{kind}" for what in ("loss", "accuracy") for kind in _KINDS),
    "critic_loss",
    "critic_accuracy",
    "null_text_rate",
    "full_text_rate",
    "padding",
    "gradient_norm",
)
# What is watched while a masked transformer trains; losses in nats for each masked token.
TransformerMetrics = metrics.Collection.create(**{name: Ratio.from_output(name) for name in _MEANS})

# Captions that are just as long as there is room for are fewer, 2 % of the images of moving_shapes among them.
_MANY_FULL_TEXTS = 0.05

_SUMMARY = {
    "": {"all": "", "videos": "_video", "images": "_image", "null text": "_null_text"},
    " of videos": {"with given frames": "_prefixed", "without": "_not_prefixed"},
    " by share masked": {
        f"{25 * index}-{25 * index + 25} %": f"_masked_{quarter}" for index, quarter in enumerate(_QUARTERS)
    },
}


def summary(values: dict[str, float], expected: dict[str, float]) -> list[str]:
    """Losses and accuracies by kind of example and by how much is masked, beside what is to be expected."""
    lines = []
    for what in ("loss", "accuracy"):
        for part, kinds in _SUMMARY.items():
            names = {kind: f"{what}{ending}" for kind, ending in kinds.items() if f"{what}{ending}" in values}
            shown = [f"{kind} {_beside(values[name], expected.get(name))}" for kind, name in names.items()]
            if shown:
                lines.append(f"{what}{part}: {', '.join(shown)}")
    return lines


def advice(values: dict[str, float], text_length: int) -> list[str]:
    """What may be wrong, and what mends it; nothing of a training that goes well."""
    full = values.get("full_text_rate", 0.0)
    if full < _MANY_FULL_TEXTS:
        return []
    return [
        f"full_text_rate {full:.2g}: this share of captions has {text_length} tokens or more, with their end, and "
        "longer ones are cut. Begin another workdir with a larger TEXT_LENGTH, or prepare shorter captions"
    ]


def _beside(value: float, expected: float | None) -> str:
    return f"{value:.3f}" if expected is None else f"{value:.3f} (expected {expected:.3f})"


def outputs_by_kind(
    found: TokenLoss, masked: Array, rows: Rows, dropped: Array, share: Array
) -> dict[str, tuple[Array, Array]]:
    """Loss and accuracy of each kind of example, and of examples of which more or less is masked."""
    kinds = {
        "": jnp.ones_like(masked),
        "_video": rows.moving & ~dropped,
        "_image": ~rows.moving & ~dropped,
        "_prefixed": rows.prefixed & ~dropped,
        "_not_prefixed": rows.moving & ~rows.prefixed & ~dropped,
        "_null_text": dropped,
    }
    for quarter in range(4):
        within = (share > quarter / 4) & (share <= (quarter + 1) / 4)
        kinds[f"_masked_{_QUARTERS[quarter]}"] = within & ~dropped
        kinds[f"_null_text_masked_{_QUARTERS[quarter]}"] = within & dropped
    outputs = {}
    for kind, which in kinds.items():
        counted = masked & which
        outputs["loss" + kind] = (jnp.sum(found.cross_entropy * counted), jnp.sum(counted))
        outputs["accuracy" + kind] = (jnp.sum(found.correct * counted), jnp.sum(counted))
    return outputs
