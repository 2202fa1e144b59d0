"""Plain data, as JSON and YAML hold it, to frozen dataclasses, refused where it is not what they declare."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from phenaki_jax.errors import UserError

_IN_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def from_plain(kind: Any, value: Any, place: str) -> Any:
    """Turns what `dataclasses.asdict` and JSON made of a value back into it.

    Args:
      kind: a dataclass, a union of some, `tuple[X, ...]`, `X | None`, int, float, str, bool; anything else is taken as
        it is.
      value: mappings, lists and scalars; fields that have defaults may be absent.
      place: where the value comes from, for errors.

    Raises:
      UserError: names the place, what was found and what is expected.
    """
    if dataclasses.is_dataclass(kind):
        return _dataclass_from(kind, value, place)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{place}: found {_shown(value)}, expected a list")
        item = typing.get_args(kind)[0]
        return tuple(from_plain(item, each, f"{place}, item {index + 1}") for index, each in enumerate(value))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        choices = [each for each in typing.get_args(kind) if each is not type(None)]
        # Of several dataclasses the first that has all the fields.
        fits = (each for each in choices if isinstance(value, Mapping) and set(value) <= _fields_of(each))
        return None if value is None else from_plain(next(fits, choices[0]), value, place)
    if kind not in _IN_WORDS:
        return value
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        quotes = "; put it in quotes" if kind is str and value is not None else ""
        raise UserError(f"{place}: found {_shown(value)}, expected {_IN_WORDS[kind]}{quotes}")
    return kind(value)


def _fields_of(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()


def _dataclass_from(kind: Any, value: Any, place: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: found {_shown(value)}, expected {', '.join(fields)} with their values")
    if unknown := [name for name in value if name not in fields]:
        raise UserError(f"{place}: found the unknown key {unknown[0]!r}, expected only {', '.join(fields)}")
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if absent := [name for name in required if name not in value]:
        raise UserError(f"{place}: found no {absent[0]}, expected {', '.join(required)}; add it")
    hints = typing.get_type_hints(kind)
    values = {name: from_plain(hints[name], each, f"{place}, {name}") for name, each in value.items()}
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
