"""The `phenaki` command: one module of this folder per subcommand, imported when it is asked for.

Each has `add_arguments(parser)` and `run(args)`, which returns the exit code; what is slow to import, `run` imports.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from phenaki_jax import __version__
from phenaki_jax.errors import INTERRUPTED, TEMPORARY, Interrupt, Stopped, UserError, may_pass, near, raise_interrupt

COMMANDS = {
    "demo": "dataset, both trainings, export, a story and a report, on one CPU, from nothing",
    "train": "train what a gin run file describes",
    "compile": "tell what a training would cost on a TPU pod that is not there",
    "prepare": "make a dataset of your own videos and images",
    "precompute": "compute tokens and text embeddings of a mixture once",
    "evaluate": "measure a model by a published protocol",
    "export": "make a model for use from a training's checkpoint",
    "generate": "draw videos from prompts or a story",
    "reconstruct": "show what a tokenizer keeps of a video",
    "inspect": "tell what a checkpoint, an exported model or a dataset holds",
}
# What they have done is kept where nothing tells of it.
_RESUMED = ("demo", "precompute", "evaluate")

# What the extra `train` installs.
_OF_TRAINING = ("clu", "gin", "matplotlib", "optax", "orbax", "seqio", "tensorflow", "tensorflow_datasets")
# What arguments that are paths are called in their help.
_PATHS = ("DIR", "FILE", "INPUT", "PATH")
_TUNABLES = "GLIBC_TUNABLES"
_AS_MODULE = (["-m", "phenaki_jax.cli.main"], ["-m", "phenaki_jax.train"])


class _Parser(argparse.ArgumentParser):
    """Mistakes in arguments are told in one line, as all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}{' ' if message.endswith('?') else '; '}see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: arguments after `phenaki`; those of the process where None.

    Returns:
      0, also where SIGTERM has stopped a training that saved all; 2 for a user's mistake, told in one line on stderr;
      75 where other processes are gone or storage fails, so that another attempt may go well; 130 where it was
      interrupted. Bugs keep their traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    # Orbax warns of a metadata file that single items of a checkpoint never have.
    logging.getLogger("absl").setLevel(logging.ERROR)
    command = ""
    try:
        with _reliable_interrupts():
            command, args = _parse(argv)
            return _module(command).run(args)
    except Stopped as stopped:
        return _tell(" ".join(str(stopped).split()), stopped.exit_code)
    except KeyboardInterrupt as interrupt:
        rest = "; the same command goes on" if command in _RESUMED else ""
        return _tell(" ".join(str(interrupt).split()) or f"interrupted{rest}", INTERRUPTED)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _OF_TRAINING:
            raise
        told = f"{error.name} is not installed, which this command needs: install phenaki_jax with all it depends on"
        return _tell(f"error: {told}", UserError.exit_code)
    except (UserError, OSError) as error:
        return _tell(f"error: {' '.join(str(error).split())}", _code_of(error))


@contextlib.contextmanager
def _reliable_interrupts() -> Iterator[None]:
    """Signals that nobody else handles or ignores, as shells do Ctrl-C in the background, become KeyboardInterrupt."""
    tell = sys.unraisablehook

    def tell_others(unraisable: sys.UnraisableHookArgs) -> None:
        # An interrupt that nobody can raise comes again.
        if not isinstance(unraisable.exc_value, Interrupt):
            tell(unraisable)

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    with contextlib.ExitStack() as restored:
        if threading.current_thread() is threading.main_thread():
            for number, handler in usual.items():
                if signal.getsignal(number) == handler:
                    signal.signal(number, raise_interrupt)
                    restored.callback(signal.signal, number, handler)
        sys.unraisablehook = tell_others
        restored.callback(setattr, sys, "unraisablehook", tell)
        yield


def _parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    parser = _Parser(prog="phenaki", description="Train and run Phenaki: video from text.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"phenaki_jax {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == asked:
            _module(name).add_arguments(subparser)
    # t5x writes bindings as --gin.NAME=VALUE; argparse wants one name for all of them.
    prefix = "--gin."
    words = [f"--gin_binding={word.removeprefix(prefix)}" if word.startswith(prefix) else word for word in argv]
    if asked is not None and asked not in COMMANDS:
        parser.error(f"found command {asked!r}, {near(asked, COMMANDS)}expected one of {', '.join(COMMANDS)}")
    of_command = subparsers.choices.get(asked or "", parser)
    _check_options(of_command, words)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        of_command.error(f"unrecognized arguments: {' '.join(unknown)}")
    _check_paths(of_command, args)
    return asked or "", args


def _check_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Tells a misspelt option before those that are missing, which it may have been meant for."""
    known = [option for action in parser._actions for option in action.option_strings]
    for word in itertools.takewhile(lambda word: word != "--", words):
        name = word.partition("=")[0]
        # A word with a space in it is a value, as argparse has it.
        if name.startswith("--") and name not in known and " " not in word:
            meant = near(name, known)
            parser.error(f"unrecognized argument {name}{f'; {meant}'.rstrip() if meant else ''}")


def _check_paths(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses paths without a name, as of a shell's variable that is not set: they would mean the current folder."""
    for action in parser._actions:
        given = getattr(args, action.dest, None)
        paths = given if isinstance(given, list) else [given]
        if str(action.metavar).partition(".")[0] in _PATHS and "" in paths:
            name = action.option_strings[-1] if action.option_strings else action.metavar
            parser.error(f"found an empty {name}, expected a path; name one, . for the current folder")


def _module(command: str) -> Any:
    return importlib.import_module(f"phenaki_jax.cli.{command}")


def _code_of(error: UserError | OSError) -> int:
    if isinstance(error, UserError):
        return error.exit_code
    return TEMPORARY if may_pass(error) else UserError.exit_code


def _tell(message: str, exit_code: int) -> int:
    print(f"phenaki: {message}", file=sys.stderr)
    return exit_code


def _begin_with_large_pages() -> None:
    """Starts this process anew, before anything is loaded, with huge pages for what malloc gives out.

    XLA on CPU takes the memory of a step from malloc and gives it back, each time: in pages of 4 KiB that is 60 000
    page faults in a step of the demo, an eighth of its time. glibc reads its tunables only when a process begins. A
    process that is more than the command is left alone, and so is one that was begun anew, whose first word is -X.
    """
    words = sys.orig_argv[1:]
    is_command = words[:2] in _AS_MODULE or (words and Path(words[0]).name == "phenaki")
    if sys.platform == "linux" and is_command and _TUNABLES not in os.environ:
        os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
        with contextlib.suppress(OSError):  # then it goes on as it is
            os.execv(sys.executable, [sys.executable, "-X", "phenaki_begun_anew", *words])


def run_process(argv: Sequence[str] | None = None) -> NoReturn:
    """The `phenaki` command as a process: it ends with the exit code of `main`, or 1 after the traceback of a bug."""
    _begin_with_large_pages()
    try:
        exit_code = main(argv)
    except Exception:
        traceback.print_exc()
        exit_code = 1
    if exit_code:
        # A program of XLA may still run in its own threads; what it needs must not be torn down under it. And other
        # processes of a training are not to wait for this one, as they would where it takes leave of them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    # All is done, and what takes leave would tell of an interruption with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(exit_code)


if __name__ == "__main__":
    run_process()
