"""What images add (Phenaki, section 3.2): videos in colours that no video shows, by models with and without images.

    make bench BENCH=image_transfer ARGS="--demo demo"

The model with images is that of a finished demo. The one without begins anew, over the same tokenizer, and sees clips
alone for as many steps. It takes as long as the demo's transformer; interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from phenaki_jax.cli.demonstration import measures
from phenaki_jax.cli.demonstration.settings import DemoSettings
from phenaki_jax.cli.main import main
from phenaki_jax.errors import UserError
from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.training import train


def compare(demo: Path, out: Path) -> dict[str, float]:
    """Accuracies on colours that only images show, by figure and model.

    Args:
      demo: folder of a finished demo.
      out: where the model without images goes.

    Raises:
      UserError: the demo is not finished.
    """
    for needed in ("demo.json", "report.json"):
        if not (demo / needed).exists():
            raise UserError(
                f"found no {needed} in {demo}, expected a finished demo: run phenaki demo --out {demo} first"
            )
    stored = json.loads((demo / "demo.json").read_text())
    settings = DemoSettings(**{name: value for name, value in stored.items() if name != "motions"})
    train.run(
        ["gin_configs/runs/shapes_transformer.gin"],
        [
            f"DATA_DIR='{(demo / 'data').absolute()}'",
            f"TOKENIZER_WORKDIR='{(demo / 'tokenizer').absolute()}'",
            "MIXTURE='moving_shapes_video_text'",
            f"STEPS={settings.transformer_steps}",
            f"BATCH_SIZE={2 * settings.batch_size}",
            f"SAMPLING_STEPS={settings.sampling_steps}",
        ],
        str(out / "transformer"),
    )
    if main(["export", "--workdir", str(out / "transformer"), "--out", str(out / "model")]):
        raise UserError(f"the training in {out} could not be exported; see above")
    figures = {}
    for name, folder in (("with_images", demo / "model"), ("without_images", out / "model")):
        values, _ = measures.transfer(Phenaki.load(folder), settings)
        figures |= {f"{figure}.{name}": value for figure, value in values.items()}
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of a finished demo (default: demo)")
    parser.add_argument("--out", type=Path, default=Path(".bench/image_transfer"), help="where the other model goes")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    try:
        print(json.dumps(compare(arguments.demo, arguments.out)))
    except UserError as error:
        sys.exit(f"image_transfer: {error}")
