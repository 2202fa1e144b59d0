"""What quantizer, loss and positions change: tokenizers of one size, trained alike on moving_shapes at 32 px.

    make bench BENCH=tokenizer_ablations ARGS="--out ablations"

Every combination takes the same steps on the same batches from the same seed; codes that never begin anew are tried
with one loss alone. Figures are of held-out clips: PSNR; the Fréchet distance of every second frame in a feature space
that needs no download, that of a VGG16 with random weights (relu3_3, averaged over positions, 256 features; other
weights than those that the perceptual loss sees); share of the codes in use; and, to see whether positions carry, PSNR
at 64 px, which no training saw. Seconds are those that the process had of all cores together, so that other work does
not count. A combination that is finished is a line of `table.jsonl` in the folder, and is not run again; several such
commands, of other combinations each, may share a folder whose data is made.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from against import command

from phenaki_jax import __version__
from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.evaluation.frechet import frechet_distance
from phenaki_jax.evaluation.metrics import psnr
from phenaki_jax.features.random_weights import random_vgg16
from phenaki_jax.features.vgg16 import VGG16
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.config import POSITIONS, CViViTConfig, QuantizerConfig
from phenaki_jax.tokenizer.discriminator import DiscriminatorConfig
from phenaki_jax.tokenizer.objective import ObjectiveConfig
from phenaki_jax.tokenizer.perceptual import PerceptualConfig
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.compiled import CompiledStep
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner

# About as many codes in each.
_NO_RESTART = "cosine_vq without restart"
_QUANTIZERS = {
    _NO_RESTART: QuantizerConfig("cosine_vq", codes=625, code_width=16, restart=0.0),
    "cosine_vq": QuantizerConfig("cosine_vq", codes=625, code_width=16),
    "cosine_vq_ema": QuantizerConfig("cosine_vq_ema", codes=625, code_width=16),
    "fsq": QuantizerConfig("fsq", levels=(5, 5, 5, 5)),
    "lfq": QuantizerConfig("lfq", bits=9),
    "bsq": QuantizerConfig("bsq", bits=9),
}
_LOSSES: dict[str, dict[str, Any]] = {
    "l2": {},
    "l1": {"objective": ObjectiveConfig(l2=0.0, l1=1.0)},
    "l2 + adversarial": {"adversarial": AdversarialConfig(DiscriminatorConfig(most_channels=32), r1_every=16)},
    "l2 + perceptual": {"perceptual": PerceptualConfig(0.1, 0.0, "random", "random", "random")},
}
_ROWS = [
    (quantizer, loss, positions)
    for quantizer, loss, positions in itertools.product(_QUANTIZERS, _LOSSES, POSITIONS)
    if quantizer != _NO_RESTART or loss == "l2"
]
_DISCRIMINATORS = OptimizerConfig("adamw", 1e-4, warmup_steps=20)
_COLUMNS = (
    *("quantizer", "loss", "positions"),
    *("PSNR, dB", "Fréchet distance", "codes used", "PSNR at 64 px", "CPU s / step"),
)
_BATCH = 4
_EVAL_CLIPS = 120


def learner_of(quantizer: str, loss: str, positions: str) -> TokenizerLearner:
    """The tokenizer of moving_shapes at 32 px with these choices."""
    model = CViViTConfig(
        frame_size=32,
        width=128,
        heads=4,
        mlp_width=512,
        spatial_layers=1,
        temporal_layers=1,
        quantizer=_QUANTIZERS[quantizer],
        positions=positions,
        tied_stems=True,
    )
    game = "adversarial" in _LOSSES[loss]
    return TokenizerLearner(model, discriminator_optimizer=_DISCRIMINATORS if game else None, **_LOSSES[loss])


def measure(learner: TokenizerLearner, data: Path, steps: int) -> dict[str, float]:
    """Trains a tokenizer and gives its figures."""
    layout = MeshConfig().make()
    optimizer = OptimizerConfig(
        "muon", 0.01, warmup_steps=min(80, steps // 4), decay_steps=steps, final_share=0.05, weight_decay=0.0, clip=1.0
    )
    config = state_lib.StepConfig()
    transform = state_lib.transform_of(learner, optimizer)
    spec = state_lib.state_spec(learner, transform, layout, config)
    state = state_lib.initial_state(learner, transform, 0, spec)
    step = CompiledStep(learner, transform, config, spec, layout)
    settings = DataConfig("moving_shapes_joint", "moving_shapes_video_text", str(data), _BATCH)
    feed, seconds = settings.train_feed(learner, layout, 0), []
    with layout.applied():
        for _ in range(steps):
            batch = next(feed)
            begun = time.process_time()
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            seconds.append(time.process_time() - begun)
        true, drawn, ratios, indices = _redrawn(
            learner, state.used["tokenizer"], settings.eval_feeds(learner, layout, 0)[""]
        )
        larger = dataclasses.replace(learner, model=dataclasses.replace(learner.model, frame_size=64))
        at_64 = DataConfig("moving_shapes_joint_64", "moving_shapes_video_text_64", str(data), _BATCH)
        _, _, ratios_at_64, _ = _redrawn(larger, state.used["tokenizer"], at_64.eval_feeds(larger, layout, 0)[""])
    return {
        "psnr": float(ratios.mean()),
        "frechet_distance": frechet_distance(_seen(true), _seen(drawn)),
        "codebook_usage": len(np.unique(indices)) / learner.model.quantizer.codebook_size,
        "psnr_at_64": float(ratios_at_64.mean()),
        "seconds_per_step": float(np.median(seconds)),
    }


def _redrawn(learner: TokenizerLearner, tokenizer: Any, feed: Any) -> tuple[np.ndarray, ...]:
    """Test clips, their reconstructions (both uint8), PSNR of each in dB, and their codes."""

    @jax.jit
    def redraw(tokenizer: Any, video: Any, frame_mask: Any) -> tuple[Any, ...]:
        true = pixels.to_float(video)
        reconstruction, quantized = apply(learner.module, tokenizer, true)
        return video, pixels.to_uint8(reconstruction), psnr(true, reconstruction, frame_mask), quantized.indices

    batches = (batch for _, batch in zip(range(_EVAL_CLIPS // _BATCH), feed, strict=False))
    found = [jax.device_get(redraw(tokenizer, batch["video"], batch["frame_mask"])) for batch in batches]
    return tuple(np.concatenate(each) for each in zip(*found, strict=True))


def _seen(videos: np.ndarray) -> np.ndarray:
    """Features [clips * 6, 256] of every second frame."""
    vgg16 = random_vgg16(1)
    return np.concatenate([_features(vgg16, video[::2]) for video in videos])


@jax.jit
def _features(vgg16: Any, frames: Any) -> Any:
    return jnp.mean(apply(VGG16(), vgg16, pixels.to_float(frames))["relu3_3"], axis=(1, 2))


def table(out: Path, steps: int, wanted: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The rows of all combinations, those that are not in the folder yet measured first."""
    out.mkdir(parents=True, exist_ok=True)
    data, file = out / "data", out / "table.jsonl"
    for size in (32, 64):
        prepare(data, size=size)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["quantizer"], row["loss"], row["positions"], row["steps"]): row for row in rows}
    for choice in wanted:
        if (*choice, steps) in done:
            continue
        named = dict(zip(("quantizer", "loss", "positions"), choice, strict=True))
        row = {**named, "steps": steps, **measure(learner_of(*choice), data, steps)}
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        done[(*choice, steps)] = row
        print(_line(row), flush=True)
    return [done[(*choice, steps)] for choice in wanted]


def _line(row: dict[str, Any]) -> str:
    shown = [
        *(row[name] for name in ("quantizer", "loss", "positions")),
        f"{row['psnr']:.2f}",
        f"{row['frechet_distance']:.2f}",
        f"{100 * row['codebook_usage']:.3g}%",
        f"{row['psnr_at_64']:.2f}",
        f"{row['seconds_per_step']:.2f}",
    ]
    return f"| {' | '.join(shown)} |"


def _arguments() -> argparse.Namespace:
    parser = command.parser_of(__doc__)
    parser.add_argument("--out", type=Path, default=Path("ablations"), help="folder of data and table")
    parser.add_argument("--steps", type=int, default=300, help="of every training (default: 300)")
    for name, choices in (("quantizers", _QUANTIZERS), ("losses", _LOSSES), ("positions", POSITIONS)):
        parser.add_argument(f"--{name}", nargs="+", choices=list(choices), default=list(choices), help="of these alone")
    return parser.parse_args()


def _measure(asked: argparse.Namespace) -> dict[str, Any]:
    narrowed = [asked.quantizers, asked.losses, asked.positions]
    wanted = [row for row in _ROWS if all(part in parts for part, parts in zip(row, narrowed, strict=True))]
    rows = table(asked.out, asked.steps, wanted)
    print(f"\n| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}", *map(_line, rows), sep="\n")
    best = max(rows, key=lambda row: row["psnr"], default=None)
    return {
        "ratio": None,
        "best": best,
        "rows": rows,
        "versions": {"phenaki_jax": __version__, "jax": jax.__version__},
    }


if __name__ == "__main__":
    asked = _arguments()
    sys.exit(command.tell("tokenizer_ablations", lambda: _measure(asked)))
