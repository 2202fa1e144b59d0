"""phenaki export: makes a model for use from a training's checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phenaki_jax.errors import UserError

if TYPE_CHECKING:
    from phenaki_jax.text.t5 import T5Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes model.json, safetensors files, a model card and StableHLO programs from a checkpoint: of a\n"
        "transformer's training the whole model, of a tokenizer's training the tokenizer alone."
    )
    parser.epilog = "example:\n  phenaki export --workdir runs/transformer --out model"
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the training's folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, or an exported model to replace")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step instead of the last one")
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="the averages of the parameters over the steps, or the last ones as they are (the averages, where the "
        "training made them)",
    )
    parser.add_argument(
        "--t5_checkpoint", metavar="PATH", help="of a frozen T5, where it is no longer where the training read it"
    )
    parser.add_argument("--t5_vocabulary", metavar="FILE", help="the same of its vocabulary")
    parser.add_argument(
        "--no_stablehlo", action="store_true", help="leave out the programs that run with jax alone, see docs/export.md"
    )


def run(args: argparse.Namespace) -> int:
    """Exports; returns 0."""
    moved = {"checkpoint": args.t5_checkpoint, "vocabulary": args.t5_vocabulary}
    text_files = {name: path for name, path in moved.items() if path}
    step, averaged = export_checkpoint(
        args.workdir, args.out, args.step, average=args.ema, text_files=text_files, stablehlo=not args.no_stablehlo
    )
    which = "averages over the steps" if averaged else "as the last step left them"
    print(f"exported step {step} of {args.workdir} to {args.out}; parameters: {which}")
    return 0


def export_checkpoint(
    workdir: str | Path,
    out: str | Path,
    step: int | None = None,
    *,
    average: bool | None = None,
    text_files: Mapping[str, str] | None = None,
    stablehlo: bool = False,
) -> tuple[int, bool]:
    """Exports a training's checkpoint of this step, or its last one.

    Args:
      workdir: folder of the training.
      out: folder of the exported model.
      step: of the checkpoint; None for the last one.
      average: whether averages over the steps stand in for the parameters; None for where the training made them.
      text_files: "checkpoint" and "vocabulary" of a frozen T5, where they are not where the training read them.
      stablehlo: whether to write programs that jax alone runs, too.

    Returns:
      The step, and whether averages stand in for the parameters.

    Raises:
      UserError: there is no such checkpoint, it is damaged or without the averages, or the folder cannot be written.
    """
    from phenaki_jax.inference.decoding import SamplingConfig
    from phenaki_jax.inference.export import check_export_folder, export_model
    from phenaki_jax.inference.model_file import config_from_plain, usual_metadata
    from phenaki_jax.inference.parameters import parameter_shapes
    from phenaki_jax.inference.plain_data import from_plain
    from phenaki_jax.inference.window import PhenakiConfig
    from phenaki_jax.text.t5 import T5Config
    from phenaki_jax.training import checkpoints

    check_export_folder(out)
    checkpoint = checkpoints.latest_checkpoint(workdir, step)
    step = int(checkpoint.name)
    description = checkpoints.read_description(workdir, step)
    made = description.pop("average_decay", "0") != "0"
    if average and not made:
        raise UserError(
            f"{checkpoint}: found no averages of the parameters, which --ema asks for; leave it out, or train with "
            "StepConfig.average_decay above 0"
        )
    averaged = made if average is None else average
    fields = [field.name for field in dataclasses.fields(PhenakiConfig)]
    models = fields if description["kind"] == "transformer" else ["tokenizer"]
    config = config_from_plain({name: description[name] for name in models}, str(checkpoint))
    read = checkpoints.read_params(workdir, step, average=averaged)
    everything = read["params"] | read["frozen"]
    vocabulary = None
    text = config.text if isinstance(config, PhenakiConfig) else None
    t5 = text if isinstance(text, T5Config) else None
    if text_files and t5 is None:
        raise UserError(
            f"found --t5_{next(iter(text_files))}, but {checkpoint} has no frozen T5: leave it out, or name another "
            "--workdir"
        )
    if t5 is not None:
        files = {**description["text_files"], **(text_files or {})}
        everything["text"], vocabulary = _read_t5(t5, files, description["text_encoder"], checkpoint)
    params = {name: everything[name] for name in parameter_shapes(config)}
    rest = {name: value for name, value in description.items() if name not in (*models, "sampling")}
    trained_on = {"workdir": str(workdir), "step": step, **rest, "averaged": averaged}
    known = {"trained_on": trained_on | _evaluation(Path(workdir), step)}
    if "sampling" in description:
        known["sampling"] = from_plain(SamplingConfig, description["sampling"], f"{checkpoint}, sampling")
    export_model(out, config, params, usual_metadata(config, **known), vocabulary, stablehlo=stablehlo)
    return step, averaged


def _evaluation(workdir: Path, step: int) -> dict[str, Any]:
    """The metrics of the last evaluation up to a step; nothing where there was none."""
    from phenaki_jax.training.log import read_metrics

    made = [entry for entry in read_metrics(workdir) if entry["kind"] == "eval" and entry["step"] <= step]
    return {"evaluation": {name: value for name, value in made[-1].items() if name != "kind"}} if made else {}


def _read_t5(config: T5Config, files: Mapping[str, str], fingerprint: str, checkpoint: Path) -> tuple[Any, str]:
    """Parameters and vocabulary of the frozen T5 that a training read."""
    from phenaki_jax.text.t5_checkpoints import check_t5, load_t5

    if absent := [name for name in ("checkpoint", "vocabulary") if not files[name]]:
        raise UserError(
            f"{checkpoint}: found that the T5's {absent[0]} is not known, as the training read precomputed embeddings; "
            f"name it with --t5_{absent[0]}"
        )
    found = check_t5(files["checkpoint"], config)
    if found != fingerprint:
        raise UserError(
            f"{files['checkpoint']}: found the encoder {found}, expected {fingerprint}, with which {checkpoint} was "
            "trained: name that with --t5_checkpoint"
        )
    return load_t5(files["checkpoint"], config), files["vocabulary"]
