"""Stories from YAML, refused where they do not say one thing."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from phenaki_jax.errors import UserError
from phenaki_jax.inference.plain_data import from_plain
from phenaki_jax.inference.story import Story

_EXPECTED = "expected YAML as phenaki generate --help shows it, with each key once"


def read_story(path: str | Path) -> Story:
    """Reads a story from YAML: the fields of `Story`, with `scenes` a list of the fields of `Scene`.

    Raises:
      UserError: names the file, the place in it, what was found and what is expected.
    """
    path = Path(path)
    if not path.is_file():
        found = "found a folder" if path.is_dir() else "found no file"
        raise UserError(f"{path}: {found}, expected a file with a story in YAML; check the path")
    try:
        plain = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "found no YAML"
        raise UserError(f"{path}{line}: {problem}; {_EXPECTED}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found bytes that are no UTF-8 text, expected a story in YAML") from error
    except RecursionError as error:
        raise UserError(f"{path}: found lists in lists in lists; {_EXPECTED}") from error
    except ValueError as error:  # a date that cannot be
        raise UserError(f"{path}: {error}; put prompts that look like dates or numbers in quotes") from error
    if plain is None:
        raise UserError(
            f"{path}: found no story in it, expected scenes with their prompts; see phenaki generate --help"
        )
    return from_plain(Story, plain, str(path))


class _Loader(yaml.SafeLoader):
    """YAML 1.1, of which mappings have each key once; and numbers such as 1e3, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    problem = f"found the key {key.value!r} a second time, after line {lines[key.value]}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
