"""What images add (Phenaki, section 3.2): videos in colours that no video shows, by models with and without images.

    make bench BENCH=image_transfer ARGS="--demo demo"

The model with images is that of a finished demo. The one without has the same sizes and stands on the same tokenizer,
which has seen images; it begins anew and sees clips alone, for at least as long as the demo's two trainings together
(on images, then on both): two steps on images take less time than one on clips. Interrupted, the same command goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
from against import command, demos

from phenaki_jax import __version__
from phenaki_jax.cli.demonstration import measures
from phenaki_jax.inference.phenaki import Phenaki

# What the claim comes to: colours that no video showed are there, and without images they are not.
_AIMS = {"color_accuracy.with_images": ">= 0.7", "color_accuracy.without_images": "<= 0.35"}


def compare(demo: Path) -> dict[str, Any]:
    """Accuracies (shares of clips) on colours that only images show, by figure and model.

    Args:
      demo: folder of a finished demo; the other model goes to `without_images` in it.

    Raises:
      UserError: the demo is not finished.
    """
    settings = demos.settings_of(demo)
    without = demos.train(
        demo,
        "without_images",
        MIXTURE="moving_shapes_video_text",
        STEPS=settings.transformer_steps + settings.image_steps // 2,
    )
    figures = {}
    for name, folder in (("with_images", demo / "model"), ("without_images", without)):
        values, _ = measures.transfer(Phenaki.load(folder), settings)
        figures |= {f"{figure}.{name}": value for figure, value in values.items()}
    figure = "color_accuracy"
    without_images, with_images = (figures[f"{figure}.{model}"] for model in ("without_images", "with_images"))
    ratio = without_images / with_images if with_images else None
    return {
        "ratio": ratio,
        "ratio_of": f"{figure}, without over with images",
        "unit": "share of clips",
        "aims": _AIMS,
    } | figures


if __name__ == "__main__":
    versions = {"phenaki_jax": __version__, "jax": jax.__version__}
    folder = command.demo_asked(__doc__)
    sys.exit(command.tell("image_transfer", lambda: {**compare(folder), "versions": versions}))
