"""The entry of a gin-configured training: reads run files, then trains what they describe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from phenaki_jax.errors import UserError
from phenaki_jax.training import hosts, loop, size
from phenaki_jax.training.run_files import configure

_VALUE = re.compile(r"found [\w.]+ ('.*?'|\S+), a value of type")


def run(
    gin_files: Sequence[str], gin_bindings: Sequence[str], workdir: str, *, dry_run: bool = False
) -> dict[str, float]:
    """Trains as run files and bindings say, from the last checkpoint in `workdir` where there is one.

    Args:
      gin_files: paths of run files, from the working directory or the repository's root.
      gin_bindings: "NAME=VALUE", over what the files say.
      workdir: where checkpoints, metrics and pictures go.
      dry_run: print what would be trained, its parameters, how they lie and what a device would hold, instead.

    Raises:
      UserError: a file or a name in it that does not exist, or settings that do not fit.
    """
    settings = settings_of(gin_files, gin_bindings)
    if dry_run:
        loop.check_settings(**settings)
        print(gin.config_str(max_line_length=120))
        print("\n".join(size.lines(settings)))
        # The files that it stands on, whose absence is told after the rest.
        settings["learner"].check_files()
        return {}
    configuration = gin.config_str(max_line_length=120)
    with hosts.told_lost():
        hosts.check_agreement(f"{configuration}\nworkdir = {Path(workdir).absolute()}")
        return loop.train(**settings, workdir=workdir, configuration=configuration)


def settings_of(gin_files: Sequence[str], gin_bindings: Sequence[str], *, stand_ins: bool = False) -> dict[str, Any]:
    """What run files and bindings say of a training: arguments of `loop.train`.

    Args:
      gin_files: see `run`.
      gin_bindings: see `run`.
      stand_ins: whether a word stands for each folder and mixture that is required and not set, as where none is read.

    Raises:
      UserError: see `run`.
    """
    configure(gin_files, gin_bindings, stand_ins=stand_ins)
    try:
        settings: dict[str, Any] = gin.get_bindings(loop.train)
    except (UserError, TypeError) as error:
        # Gin adds to an error in whose call it came up.
        said, _, where = " ".join(str(error).split()).partition(" In call to configurable ")
        if isinstance(error, TypeError):
            said = f"gin configuration: found a value of a wrong type ({said}) in {where}; see the run file"
        raise UserError(f"{said}{_macros_of_value(said)}") from error
    return settings


def _macros_of_value(said: str) -> str:
    """Where a value that is refused comes from: the parameter that is told is rarely what a user set."""
    found = _VALUE.match(said)
    lines = gin.config_str(max_line_length=10_000).splitlines()
    macros = [line for line in lines if found and re.fullmatch(rf"\w+ = {re.escape(found[1])}", line)]
    return f"; the configuration has {' and '.join(macros)}" if macros else ""
