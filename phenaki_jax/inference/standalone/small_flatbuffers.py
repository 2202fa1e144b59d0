"""Reads the flatbuffers format, as far as jax.export needs it, where the package of that name is not installed."""

from __future__ import annotations

import struct
import sys
import types
from typing import Any

import numpy as np


class _Number:
    """A kind of number of the flatbuffers format.

    Args:
      kind: as `struct` and NumPy name it.
      py_type: what its values become.
    """

    def __init__(self, kind: str, py_type: type = int) -> None:
        self.kind, self.py_type, self.packer = kind, py_type, struct.Struct(kind)

    def read(self, content: bytearray, place: int) -> Any:
        return self.py_type(self.packer.unpack_from(content, place)[0])


_UINT16, _UINT32, _INT32 = _Number("<H"), _Number("<I"), _Number("<i")


class _Table:
    """A table of the flatbuffers format, with the names that jax.export asks for (https://flatbuffers.dev/internals).

    A table begins with the distance back to its vtable, which says where in the table each field lies; strings, vectors
    and other tables lie where an offset leads, strings and vectors behind their length.
    """

    def __init__(self, content: bytearray, place: int) -> None:
        self.Bytes, self.Pos = content, place

    def Get(self, number: _Number, place: int) -> Any:  # noqa: N802
        return number.read(self.Bytes, place)

    def Offset(self, field: int) -> int:  # noqa: N802
        vtable = self.Pos - _INT32.read(self.Bytes, self.Pos)
        return _UINT16.read(self.Bytes, vtable + field) if field < _UINT16.read(self.Bytes, vtable) else 0

    def Indirect(self, place: int) -> int:  # noqa: N802
        return place + _UINT32.read(self.Bytes, place)

    def Vector(self, field: int) -> int:  # noqa: N802
        return self.Indirect(self.Pos + field) + 4

    def VectorLen(self, field: int) -> int:  # noqa: N802
        return _UINT32.read(self.Bytes, self.Vector(field) - 4)

    def String(self, place: int) -> bytes:  # noqa: N802
        begin = self.Indirect(place)
        return bytes(self.Bytes[begin + 4 : begin + 4 + _UINT32.read(self.Bytes, begin)])

    def GetVectorAsNumpy(self, number: _Number, field: int) -> np.ndarray:  # noqa: N802
        return np.frombuffer(self.Bytes, number.kind, self.VectorLen(field), self.Vector(field))


def stand_in() -> None:
    """Makes `import flatbuffers` give what jax.export reads programs with."""
    kinds = {"Bool": _Number("?", bool), "UOffsetT": _UINT32}
    for name, codes in {"Int": "bhi", "Uint": "BHI"}.items():
        kinds |= {f"{name}{8 * size}": _Number(f"<{code}") for size, code in zip((1, 2, 4), codes, strict=True)}
    parts: dict[str, dict[str, Any]] = {
        "encode": {"Get": lambda number, content, place: number.read(content, place)},
        "packer": {"uoffset": _UINT32},
        "table": {"Table": _Table},
        "number_types": {f"{name}Flags": number for name, number in kinds.items()},
        "compat": {"import_numpy": lambda: np},
    }
    package = types.ModuleType("flatbuffers")
    for name, content in parts.items():
        module = types.ModuleType(f"flatbuffers.{name}")
        vars(module).update(content)
        setattr(package, name, module)
        sys.modules[module.__name__] = module
    sys.modules["flatbuffers"] = package
