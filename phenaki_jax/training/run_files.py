"""Run files of gin and bindings over them, whose mistakes are told in one line each."""

from __future__ import annotations

import codecs
import inspect
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gin
from gin import resource_reader

from phenaki_jax.errors import UserError, near
from phenaki_jax.training import loop

_ROOT = Path(__file__).parents[2]
_EXAMPLE = "gin_configs/runs/shapes_tokenizer.gin"
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_MACRO = re.compile(r"^([\w/]+) *=", re.MULTILINE)
_USED = re.compile(r"%([\w/]+)(?![\w/.])")
# Of STPES and STEPS.
_LIKENESS = 0.8
_REQUIRED = re.compile(r"^(\w+) = %gin\.REQUIRED$", re.MULTILINE)
_QUOTES = "put texts in quotes of their own, as in --gin.DATA_DIR=\"'folder'\""
_IMPORTS = "a run file knows the settings of modules that it imports: name one that does, or import it in your own"
_OF_GIN = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    OSError,
    AttributeError,
    ImportError,
    NameError,
)


def configure(gin_files: Sequence[str], gin_bindings: Sequence[str], *, stand_ins: bool = False) -> None:
    """Fills gin with run files and bindings.

    Args:
      gin_files: paths of run files, from the working directory or the repository's root.
      gin_bindings: "NAME=VALUE", over what the files say.
      stand_ins: whether a word stands for each macro that is required and not set.

    Raises:
      UserError: what gin refuses, in one line; a binding of a macro that no file has; a macro of a file that nothing
        uses, and that is nearly the name of one that is used.
    """
    gin.clear_config()
    gin.add_config_file_search_path(str(_ROOT))
    files = [_read(file) for file in gin_files]
    _check_training(gin_files)
    in_files = [_macro_of(binding) for binding in gin_bindings]
    for binding in gin_bindings:
        _parse(binding)
    for binding, before in zip(gin_bindings, in_files, strict=True):
        _check_type(binding, before)
    for name in _REQUIRED.findall(gin.config_str()) if stand_ins else ():
        gin.parse_config(f"{name} = 'not set'")
    _check_required()
    _check_unused(files)
    with _told():
        gin.finalize()


def _read(file: str) -> Path:
    path = next((each for each in (Path(file), _ROOT / file) if each.exists()), None)
    if path is None:
        ours = (str(each.relative_to(_ROOT)) for each in (_ROOT / "gin_configs").rglob("*.gin"))
        raise UserError(f"found no gin file {file}, {near(file, ours)}expected a run file such as {_EXAMPLE}")
    if not path.is_file():
        raise UserError(f"found {file}, which is no file, expected a run file such as {_EXAMPLE}")
    if path.read_bytes().startswith(codecs.BOM_UTF8):
        raise UserError(f"found a byte order mark at the beginning of {file}, expected UTF-8 without one: save it so")
    with _told(f" in {file}"), _files_alone():
        gin.parse_config_file(str(path))
    return path


@contextmanager
def _told(where: str = "") -> Iterator[None]:
    """Tells what gin refuses as a user's mistake.

    Args:
      where: where it was found, for errors that do not say it themselves.
    """
    try:
        yield
    except UserError:
        raise
    except RecursionError:
        # Whose text, with each place that it came through, cannot be put together.
        told = f"gin configuration: found a file that includes itself{where}; take that include out"
        raise UserError(told) from None
    except _OF_GIN as error:
        message = " ".join(str(error).split()).rstrip(" ^.;")
        message = re.sub(r"\.? In bindings string line 1 ", " in --gin.", re.sub(r"\.? In file ", " in file ", message))
        raise UserError(f"gin configuration: {_in_words(error, message, where)}") from error


def _in_words(error: Exception, message: str, where: str) -> str:
    """What was found, and what to do about it."""
    if isinstance(error, UnicodeDecodeError):
        return f"found bytes that are no text{where} ({error.reason} at byte {error.start}), expected UTF-8"
    if isinstance(error, tokenize.TokenError):
        return f"found a bracket or quote that is not closed{where}; close it"
    if isinstance(error, SyntaxError):
        # Of a value that is none of Python's, the last line names it.
        said = error.msg.splitlines()[-1].strip().rstrip(".")
        place = where if error.filename == "<tokenize>" else f" in {error.filename}"
        return f"{said[0].lower()}{said[1:]}{place}, line {error.lineno}; values are of Python, texts in quotes"
    if found := re.match(r"Unable to open file: (.*?)\. Searched config paths: \[.*?\](.*)", message):
        return f"found no file {found[1]}{found[2]}; files are looked for from the working directory and from {_ROOT}"
    return _of_names(error, message)


def _of_names(error: Exception, message: str) -> str:
    if found := re.match(r"No bindings specified for '(.*?)/gin.macro' in config string", message):
        macros = _MACRO.findall(gin.config_str())
        return f"found %{found[1]}, which no file sets; {near(found[1], macros)}set it or mend its name"
    if found := re.match(r"No configurable matching '(.*?)'", message):
        bound = re.findall(r"^(?:\w+/)?([\w.]+)\.\w+ =", gin.config_str(), re.MULTILINE)
        return f"{message}; {near(found[1], bound)}{_IMPORTS}"
    if found := re.match(r"Configurable '(.*?)' doesn't have a parameter named '(.*?)'", message):
        call = gin.get_configurable(found[1])
        call = call.__init__ if inspect.isclass(call) else call
        parameters = [name for name in inspect.signature(call).parameters if name != "self"]
        return f"{message}; {near(found[2], parameters)}it has {', '.join(parameters)}"
    if found := re.search(r"<module '([\w.]+)'.*> has no attribute (\w+)(.*)", message):
        return f"{found[1]} has no {found[2]}{found[3]}; {near(found[2], vars(sys.modules[found[1]]))}mend the name"
    if isinstance(error, NameError | ImportError) or "matching reference" in message:
        return f"{message}; {_IMPORTS}"
    return f"{message}; set what a run file requires or changes with --gin.NAME=VALUE, texts in quotes of their own"


@contextmanager
def _files_alone() -> Iterator[None]:
    """Keeps gin from files in Python's packages: it logs as an error each that is none, and fails at namespaces."""
    readers = gin.config._FILE_READERS
    before = list(readers)
    readers[:] = [each for each in before if each[0] is not resource_reader.system_path_reader]
    try:
        yield
    finally:
        readers[:] = before


def _check_training(gin_files: Sequence[str]) -> None:
    try:
        bound: dict[str, Any] = gin.get_bindings(loop.train, resolve_references=False)
    except ValueError:  # no file has imported it
        bound = {}
    if missing := [name for name in ("learner", "optimizer", "data", "schedule") if name not in bound]:
        raise UserError(
            f"gin configuration: {' '.join(gin_files)} says nothing of a training, expected run files such as "
            f"{_EXAMPLE}, with loop.train.{missing[0]}"
        )


def _check_required() -> None:
    if required := sorted(_REQUIRED.findall(gin.config_str())):
        raise UserError(
            f"gin configuration: {', '.join(required)} must be set, which the run file leaves open: "
            f"--gin.{required[0]}=VALUE; {_QUOTES}"
        )


def _check_unused(files: Sequence[Path]) -> None:
    """Refuses macros that are in all likelihood another's name misspelt.

    That is one that nothing uses, here or in our files, as files that go over several runs set what some of these do
    not use; and nearly the name of one that is used, of as many words, and that its file does not set.
    """
    used, ours = set(_USED.findall(_TEXT.sub("", gin.config_str()))), _macros_of_ours()
    for file in files:
        own = set(_MACRO.findall(file.read_text()))
        for name in sorted(own - used - ours):
            others = [each for each in used - own if each.count("_") == name.count("_")]
            if guess := near(name, others, _LIKENESS):
                raise UserError(
                    f"gin configuration: found {name} in {file}, which nothing uses; {guess}mend its name, or take it "
                    "out"
                )


def _macros_of_ours() -> set[str]:
    return {name for file in (_ROOT / "gin_configs").rglob("*.gin") for name in _USED.findall(file.read_text())}


def _macro_of(binding: str) -> Any:
    """What the files bind the macro to that a binding names; None where it names none but a parameter."""
    name = binding.partition("=")[0].strip()
    if not name:
        raise UserError(f"found --gin.{binding}, expected --gin.NAME=VALUE")
    if "." in name:
        return None
    try:
        return gin.query_parameter(f"{name}/gin.macro.value")
    except ValueError as error:
        raise UserError(
            f"gin configuration: no file has a macro {name} to set with --gin.{binding}; "
            f"{near(name, _MACRO.findall(gin.config_str()))}look in the run file"
        ) from error


def _parse(binding: str) -> None:
    try:
        with _told():
            gin.parse_config(binding)
    except UserError as error:
        if not isinstance(error.__cause__, SyntaxError | tokenize.TokenError):
            raise
        raise UserError(f"gin configuration: found --gin.{binding}, expected a value of Python: {_QUOTES}") from error


def _check_type(binding: str, before: Any) -> None:
    """Refuses text for a number and the like; what the files leave open or refer to may be anything."""
    accepted = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(type(before))
    if accepted is not None and type(now := _macro_of(binding)) not in accepted:
        raise UserError(
            f"gin configuration: found --gin.{binding}, a value of type {type(now).__name__}, expected "
            f"{type(before).__name__} as {before!r} in the run file"
        )
