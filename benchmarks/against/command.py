"""What commands of benchmarks have in common: arguments, one line of JSON, mistakes in one line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from against.process import SideError
from phenaki_jax.errors import INTERRUPTED, UserError


def tell(name: str, measure: Callable[[], Mapping[str, Any]]) -> int:
    """Prints what was measured, as the last line of the benchmark of this name; returns its exit code."""
    try:
        print(json.dumps({"name": name, **measure()}))
    except KeyboardInterrupt:
        return INTERRUPTED
    except (UserError, SideError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return UserError.exit_code
    return 0


def demo_asked(about: str | None) -> Path:
    """The folder of a finished demo, as the command's arguments say."""
    parser = parser_of(about)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of a finished demo (default: demo)")
    return parser.parse_args().demo


def turns_asked(about: str | None, usual: int, what: str) -> int:
    """How often each side has its turn, as the command's arguments say."""
    parser = parser_of(about)
    parser.add_argument("--turns", type=int, default=usual, help=f"{what} (default: {usual})")
    asked = parser.parse_args()
    if asked.turns < 1:
        parser.error(f"found --turns {asked.turns}, expected at least 1")
    return asked.turns


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring."""
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
