"""phenaki export: makes a model for use from a training's checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from phenaki_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Writes model.json and safetensors files from a checkpoint: of a transformer's training the whole model, of a "
        "tokenizer's\ntraining the tokenizer alone."
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


def run(args: argparse.Namespace) -> int:
    """Exports; returns 0."""
    step, averaged = export_checkpoint(args.workdir, args.out, args.step, average=args.ema)
    which = "averages over the steps" if averaged else "as the last step left them"
    print(f"exported step {step} of {args.workdir} to {args.out}; parameters: {which}")
    return 0


def export_checkpoint(
    workdir: str | Path, out: str | Path, step: int | None = None, *, average: bool | None = None
) -> tuple[int, bool]:
    """Exports a training's checkpoint of this step, or its last one.

    Args:
      workdir: folder of the training.
      out: folder of the exported model.
      step: of the checkpoint; None for the last one.
      average: whether averages over the steps stand in for the parameters; None for where the training made them.

    Returns:
      The step, and whether averages stand in for the parameters.

    Raises:
      UserError: there is no such checkpoint, it is damaged or without the averages, or the folder cannot be written.
    """
    from phenaki_jax.inference.decoding import SamplingConfig
    from phenaki_jax.inference.export import check_export_folder, config_from_plain, export_model, usual_metadata
    from phenaki_jax.inference.parameters import parameter_shapes
    from phenaki_jax.inference.plain_data import from_plain
    from phenaki_jax.inference.window import PhenakiConfig
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
    params = {name: everything[name] for name in parameter_shapes(config)}
    rest = {name: value for name, value in description.items() if name not in (*models, "sampling")}
    known = {"trained_on": {"workdir": str(workdir), "step": step, **rest, "averaged": averaged}}
    if "sampling" in description:
        known["sampling"] = from_plain(SamplingConfig, description["sampling"], f"{checkpoint}, sampling")
    export_model(out, config, params, usual_metadata(config, **known))
    return step, averaged
