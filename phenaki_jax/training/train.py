"""The entry of a gin-configured training: reads run files, then trains what they describe."""

from __future__ import annotations

import difflib
import inspect
import re
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gin

from phenaki_jax.errors import UserError
from phenaki_jax.training import hosts, loop, size

_REQUIRED = re.compile(r"^(\w+) = %gin\.REQUIRED$", re.MULTILINE)


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
        raise UserError(said) from error
    return settings


def configure(gin_files: Sequence[str], gin_bindings: Sequence[str], *, stand_ins: bool = False) -> None:
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
        in_files = [_macro_of(binding) for binding in gin_bindings]
        for binding in gin_bindings:
            _parse(binding)
        for binding, before in zip(gin_bindings, in_files, strict=True):
            _check_type(binding, before)
        for name in _REQUIRED.findall(gin.config_str()) if stand_ins else ():
            gin.parse_config(f"{name} = 'not set'")
        bound = _bindings_of_training()
        if missing := [name for name in ("learner", "optimizer", "data", "schedule") if name not in bound]:
            raise UserError(
                f"gin configuration: {' '.join(gin_files)} says nothing of a training, expected run files such as "
                f"gin_configs/runs/shapes_tokenizer.gin, with loop.train.{missing[0]}"
            )
        gin.finalize()
    except UserError:
        raise
    except (ValueError, SyntaxError, tokenize.TokenError, OSError, AttributeError, ImportError) as error:
        message = " ".join(str(error).split()).rstrip(".;")
        raise UserError(f"gin configuration: {message}; {_advice(message)}") from error


def _advice(message: str) -> str:
    """What to do about an error of gin's."""
    if found := re.match(r"No configurable matching '(.*?)'", message):
        bound = re.findall(r"^(?:\w+/)?([\w.]+)\.\w+ =", gin.config_str(), re.MULTILINE)
        return (
            f"{_near(found[1], bound)}a run file knows the settings of modules that it imports: name one that does, "
            "or import it in your own"
        )
    if found := re.match(r"Configurable '(.*?)' doesn't have a parameter named '(.*?)'", message):
        configurable = gin.get_configurable(found[1])
        call = configurable.__init__ if inspect.isclass(configurable) else configurable
        parameters = [name for name in inspect.signature(call).parameters if name != "self"]
        return f"{_near(found[2], parameters)}it has {', '.join(parameters)}"
    return (
        "set what a run file requires or changes with --gin.NAME=VALUE, texts in quotes of their own as in "
        "--gin.DATA_DIR=\"'folder'\""
    )


def _near(name: str, known: Iterable[str]) -> str:
    """Asks whether the nearest of the known names was meant, where one is near."""
    near = difflib.get_close_matches(name, sorted(set(known)), n=1)
    return f"did you mean {near[0]}? " if near else ""


def _macro_of(binding: str) -> Any:
    """What the files bind the macro to that a binding names; None where it names none but a parameter."""
    name = binding.partition("=")[0].strip()
    if "." in name:
        return None
    try:
        return gin.query_parameter(f"{name}/gin.macro.value")
    except ValueError as error:
        macros = re.findall(r"^(\w+) =", gin.config_str(), re.MULTILINE)
        raise UserError(
            f"gin configuration: no file has a macro {name} to set with --gin.{binding}; {_near(name, macros)}look in "
            "the run file"
        ) from error


def _parse(binding: str) -> None:
    try:
        gin.parse_config(binding)
    except (SyntaxError, tokenize.TokenError) as error:
        raise UserError(
            f"gin configuration: found --gin.{binding}, expected a value of Python: put texts in quotes of their own, "
            "as in --gin.DATA_DIR=\"'folder'\""
        ) from error


def _check_type(binding: str, before: Any) -> None:
    """Refuses text for a number and the like; what the files leave open or refer to may be anything."""
    accepted = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(type(before))
    if accepted is not None and type(now := _macro_of(binding)) not in accepted:
        raise UserError(
            f"gin configuration: found --gin.{binding}, a value of type {type(now).__name__}, expected "
            f"{type(before).__name__} as {before!r} in the run file"
        )


def _bindings_of_training() -> dict[str, Any]:
    try:
        return gin.get_bindings(loop.train, resolve_references=False)
    except ValueError:  # no file has imported it
        return {}
