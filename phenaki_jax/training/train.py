"""The entry of a gin-configured training: reads run files, then trains what they describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin
import jax
import numpy as np

from phenaki_jax.errors import UserError
from phenaki_jax.training import loop


def run(
    gin_files: Sequence[str], gin_bindings: Sequence[str], workdir: str, *, dry_run: bool = False
) -> dict[str, float]:
    """Trains as run files and bindings say, from the last checkpoint in `workdir` where there is one.

    Args:
      gin_files: paths of run files, from the working directory or the repository's root.
      gin_bindings: "NAME=VALUE", over what the files say.
      workdir: where checkpoints, metrics and pictures go.
      dry_run: print what would be trained, and its size, instead.

    Raises:
      UserError: a file or a name in it that does not exist, or settings that do not fit.
    """
    configure(gin_files, gin_bindings)
    if dry_run:
        _describe(gin.get_bindings(loop.train))
        return {}
    try:
        return gin.get_configurable(loop.train)(workdir=workdir, configuration=gin.config_str(max_line_length=120))
    except UserError as error:
        # Gin adds to an error in whose call it came up.
        raise UserError(str(error).partition("\n  In call to configurable")[0]) from error


def configure(gin_files: Sequence[str], gin_bindings: Sequence[str]) -> None:
    """Fills gin with run files and bindings.

    Raises:
      UserError: what gin refuses, in one line; a binding of a macro that no file has.
    """
    gin.clear_config()
    root = Path(__file__).parents[2]
    gin.add_config_file_search_path(str(root))
    for file in gin_files:
        if not Path(file).exists() and not (root / file).exists():
            raise UserError(
                f"found no gin file {file}, expected a run file such as gin_configs/runs/shapes_tokenizer.gin"
            )
    try:
        gin.parse_config_files_and_bindings(list(gin_files), None, finalize_config=False)
        for binding in gin_bindings:
            _check_macro(binding)
        gin.parse_config(list(gin_bindings))
        gin.finalize()
    except UserError:
        raise
    except (ValueError, SyntaxError, OSError, AttributeError, ImportError) as error:
        message = " ".join(str(error).split()).rstrip(".;")
        raise UserError(
            f"gin configuration: {message}; set what a run file requires or changes with --gin.NAME=VALUE, texts in "
            "quotes of their own as in --gin.DATA_DIR=\"'folder'\""
        ) from error


def _check_macro(binding: str) -> None:
    name = binding.partition("=")[0].strip()
    if "." in name:
        return
    try:
        gin.query_parameter(f"{name}/gin.macro.value")
    except ValueError as error:
        raise UserError(
            f"gin configuration: no file has a macro {name} to set with --gin.{binding}; look in the run file"
        ) from error


def _describe(bindings: dict[str, Any]) -> None:
    learner = bindings["learner"]
    shapes = jax.eval_shape(learner.init_params, jax.random.key(0))
    sizes = {name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    print(gin.config_str(max_line_length=120))
    for name, size in sizes.items():
        print(f"{name:24} {size:>14,} parameters")
    print(f"{'in all':24} {sum(sizes.values()):>14,} parameters")
