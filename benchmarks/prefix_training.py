"""What training with given prefixes adds to stories: models of moving_shapes with and without it.

    make bench BENCH=prefix_training ARGS="--demo demo"

The paper's transformer never trains on the prefix that every window of a story but the first is given; the demo's does,
on half of its clips. The model without has the same sizes, tokenizer, training on images and steps, but begins all its
clips from nothing.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
from against import command, demos

from phenaki_jax import __version__
from phenaki_jax.cli.demonstration import measures
from phenaki_jax.data import tasks
from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.inference.phenaki import Phenaki

_MIXTURE = "moving_shapes_joint_of_openings"
_AIMS = {"ratio": "<= 1", "identity_kept.without_prefixes": "<= identity_kept.with_prefixes"}


def compare(demo: Path) -> dict[str, Any]:
    """Figures of generation and stories, by figure and model.

    Args:
      demo: folder of a finished demo; the other model goes to `without_prefixes` in it.

    Raises:
      UserError: the demo is not finished.
    """
    settings = demos.settings_of(demo)
    openings = tasks.joint_mixture(prefix_probability=0.0)
    seqio.MixtureRegistry.add_provider(_MIXTURE, openings)
    without = demos.train(
        demo,
        "without_prefixes",
        MIXTURE=_MIXTURE,
        INITIAL_WORKDIR=str((demo / "images").absolute()),
        STEPS=settings.transformer_steps,
        BATCH_SIZE=2 * settings.batch_size,
    )
    figures: dict[str, Any] = {}
    for name, folder in (("with_prefixes", demo / "model"), ("without_prefixes", without)):
        model = Phenaki.load(folder)
        for values, _ in (measures.generation(model, settings), measures.stories(model, settings)):
            figures |= {f"{figure}.{name}": value for figure, value in values.items()}
    figure = "prompt_accuracy"
    return {
        "ratio": figures[f"{figure}.without_prefixes"] / figures[f"{figure}.with_prefixes"],
        "ratio_of": f"{figure} of stories, without over with prefixes",
        "unit": "share of windows",
        "aims": _AIMS,
    } | figures


if __name__ == "__main__":
    versions = {"phenaki_jax": __version__, "jax": jax.__version__}
    folder = command.demo_asked(__doc__)
    sys.exit(command.tell("prefix_training", lambda: {**compare(folder), "versions": versions}))
