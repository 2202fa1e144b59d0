"""Checkpoints of t5x into workdirs of this package, and back; needs no t5x.

    python -m phenaki_jax.t5x.convert --from runs/t5x --to runs/converted      by what is in the first folder
    python -m phenaki_jax.t5x.convert --from runs/transformer --to runs/t5x

t5x:    MODEL_DIR/checkpoint_<step>/state           "target", "flax_mutables", and "state" with step and "param_states"
        MODEL_DIR/phenaki_jax.json                  what is trained, written by `runs.summarize`
ours:   WORKDIR/checkpoints/<step>/{state,description}
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.files import make_folder, told_unwritable, write_text
from phenaki_jax.inference.model_file import config_from_plain
from phenaki_jax.inference.parameters import parameter_shapes
from phenaki_jax.inference.window import PhenakiConfig
from phenaki_jax.training.checkpoints import FORMAT, latest_checkpoint, read_description, read_params
from phenaki_jax.training.checksums import write_checksums
from phenaki_jax.training.transformer_learner import TransformerLearner

DESCRIPTION = "phenaki_jax.json"
_CHECKPOINT = re.compile(r"checkpoint_(\d+)")
_PREFIX = "checkpoint"


def convert(source: str | Path, target: str | Path, step: int | None = None, *, average: bool = False) -> Path:
    """Writes a checkpoint in the form of the other side.

    Of t5x the parameters are taken, with statistics and the frozen tokenizer, for another training to begin with
    (`initial_workdir`) or to export; of ours all that t5x goes on from, but the position in the data.

    Args:
      source: a model_dir or checkpoint_N of t5x, or a workdir.
      target: a new folder.
      step: of the checkpoint; None for the last one.
      average: whether averages over the steps, which t5x has not, stand in for the parameters; the optimizer's state is
        then left out.

    Returns:
      The checkpoint's folder.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or not what its description says; or the folder cannot be
        written, or is not empty; or averages of t5x are asked for.
    """
    source, target = Path(source).absolute(), Path(target).absolute()
    if target.exists() and not target.is_dir():
        raise UserError(f"found a file {target}, expected a new folder: name another one")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"found files in {target}, expected a new folder: name another one")
    named = _CHECKPOINT.fullmatch(source.name)
    if named and step not in (None, int(named[1])):
        raise UserError(
            f"found step {step} and {source}, expected one of both: leave the step out, or name {source.parent}"
        )
    if average and (named or not (source / "checkpoints").is_dir()):
        raise UserError(
            f"found --average of {source}, expected a workdir of phenaki train: t5x keeps no averages; leave it out"
        )
    if named:
        return _from_t5x(source, target)
    if (source / "checkpoints").is_dir():
        return _into_t5x(source, target, step, average=average)
    steps = sorted(int(found[1]) for path in source.glob("*") if (found := _CHECKPOINT.fullmatch(path.name)))
    if not steps or (step is not None and step not in steps):
        which = f"one of step {', '.join(map(str, steps))}" if steps else "checkpoint_N of t5x, or checkpoints/ of ours"
        raise UserError(
            f"found no checkpoint{'' if step is None else f' of step {step}'} in {source}, expected {which}"
        )
    return _from_t5x(source / f"{_PREFIX}_{steps[-1] if step is None else step}", target)


def _from_t5x(checkpoint: Path, workdir: Path) -> Path:
    file = checkpoint.parent / DESCRIPTION
    try:
        description = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({reason_of(error)}), expected what the training is: train with "
            "gin_configs/t5x/train.gin, which writes it, or copy it from there"
        ) from error
    if not isinstance(description, dict) or description.get("kind") not in ("tokenizer", "transformer"):
        raise UserError(
            f'{file} does not say what the training is, expected "kind": "tokenizer" or "transformer": copy it from '
            "the folder of that training"
        )
    if description.get("format") != FORMAT:
        raise UserError(
            f"{file} has format {description.get('format')!r}, expected {FORMAT}: convert with the phenaki_jax that "
            "wrote it"
        )
    tree = _read(checkpoint / "state", "target", "state", "flax_mutables")
    mutables = tree.get("flax_mutables", {})
    kept = TransformerLearner.kept_frozen if description["kind"] == "transformer" else ()
    frozen = {name: tree for name, tree in mutables.get("frozen", {}).items() if name in kept}
    state = {
        "step": np.int32(tree["state"]["step"]),
        "params": tree["target"],
        "statistics": mutables.get("statistics", {}),
        "frozen": frozen,
    }
    _check_parameters(description, {**state["params"], **frozen}, checkpoint)
    step = int(state["step"])
    arguments = {"state": ocp.args.StandardSave(state), "description": ocp.args.JsonSave(description)}
    return _write(workdir, step, arguments, f"checkpoints/{step}")


def _into_t5x(workdir: Path, model_dir: Path, step: int | None, *, average: bool) -> Path:
    checkpoint = latest_checkpoint(workdir, step)
    step = int(checkpoint.name)
    description = read_description(workdir, step)
    if description.get("discriminator"):
        raise UserError(
            f"{checkpoint} is of a training with a discriminator, expected one without, all that t5x can go on with"
        )
    read = read_params(workdir, step, average=average)
    # A converted checkpoint has none.
    optimizer = {} if average else _read(checkpoint / "state", "step", "optimizer").get("optimizer", {})
    tree = {
        "target": read["params"],
        "state": {"step": np.int32(step), "param_states": _as_t5x(optimizer)},
        "flax_mutables": {name: _as_t5x(read[name]) for name in ("frozen", "statistics")},
    }
    _check_parameters(description, {**read["params"], **read["frozen"]}, checkpoint)
    written = _write(model_dir, step, {"state": ocp.args.PyTreeSave(_as_t5x(tree))}, f"{_PREFIX}_{step}")
    write_text(model_dir / DESCRIPTION, json.dumps(description, indent=2))
    return written


def _as_t5x(tree: Any) -> Any:
    """Sequences are dicts by index, and nothing is empty."""
    if isinstance(tree, list | tuple):
        tree = {str(index): each for index, each in enumerate(tree)}
    if not isinstance(tree, dict):
        return tree
    made = {name: _as_t5x(each) for name, each in tree.items()}
    return {name: each for name, each in made.items() if each is not None and not (isinstance(each, dict) and not each)}


def _read(folder: Path, *names: str) -> dict[str, Any]:
    """Parts of a tree as NumPy arrays; of those that are there."""
    try:
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
            known = handler.metadata(folder).tree
        wanted = {name: known[name] for name in names if known.get(name)}
        with ocp.PyTreeCheckpointer() as checkpointer:
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
            tree: dict[str, Any] = checkpointer.restore(folder, args=arguments)
            return tree
    except Exception as error:
        raise UserError(
            f"the checkpoint {folder} cannot be read ({reason_of(error)}), expected one of orbax with all its files: "
            "restore it, or name another one"
        ) from error


def _check_parameters(description: dict[str, Any], found: dict[str, Any], checkpoint: Path) -> None:
    """Refuses parameters of other names or shapes than the description's."""
    models = [field.name for field in dataclasses.fields(PhenakiConfig)]
    models = models if description.get("kind") == "transformer" else ["tokenizer"]
    config = config_from_plain({name: description.get(name) for name in models}, str(checkpoint))
    spec = parameter_shapes(config)
    if isinstance(config, PhenakiConfig) and config.has_frozen_text:
        spec.pop("text", None)
    wanted, there = (
        {"/".join(path): tuple(leaf.shape) for path, leaf in flatten_dict(tree).items()} for tree in (spec, found)
    )
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            has, expects = (each.get(name, "no such parameter") for each in (there, wanted))
            raise UserError(
                f"the checkpoint {checkpoint} has {name}: {has}, expected {expects}, as {DESCRIPTION} or its "
                "description says: name a checkpoint with the description of its own training"
            )


def _write(root: Path, step: int, arguments: dict[str, Any], name: str) -> Path:
    folder = make_folder(root / Path(name).parent)
    prefix = _PREFIX if folder == root else None
    with told_unwritable(folder, errors=Exception):
        options = ocp.CheckpointManagerOptions(step_prefix=prefix, enable_async_checkpointing=False)
        with ocp.CheckpointManager(folder, options=options) as manager:
            manager.save(step, args=ocp.args.Composite(**arguments))
    if prefix is None:
        write_checksums(root, step, {name: root / name})
    return root / name


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m phenaki_jax.t5x.convert",
        description="Converts a checkpoint of t5x into a workdir of phenaki train, or one of phenaki train into t5x's.",
    )
    parser.add_argument(
        "--from", dest="source", required=True, metavar="DIR", help="a model_dir or checkpoint_N of t5x, or a workdir"
    )
    parser.add_argument("--to", required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step instead of the last one")
    parser.add_argument(
        "--average", action="store_true", help="of ours: the averages over the steps, without the optimizer's state"
    )
    args = parser.parse_args(argv)
    try:
        print(f"wrote {convert(args.source, args.to, args.step, average=args.average)}")
    except (UserError, OSError) as error:
        print(f"phenaki: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
