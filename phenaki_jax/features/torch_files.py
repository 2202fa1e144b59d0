"""State dicts that torch.save wrote, as NumPy arrays, without torch and without running anything that a file says.

Two formats are in use. Since torch 1.6 a file is a zip archive with a pickle (`<name>/data.pkl`) and one record for
each storage (`<name>/data/<key>`). Before, it was four pickles (a magic number, the version, the machine, the object),
the list of storage keys, and then each storage as its length and its values. In both, the pickle holds no values: a
tensor is a call of a rebuild function with a storage, an offset, sizes and strides. Unpickling makes descriptions of
such calls and nothing else; every other function or class that a pickle asks for is refused.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from phenaki_jax.errors import UserError, kind_of, reason_of

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGE_TYPES = {
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "IntStorage": np.dtype(np.int32),
    "LongStorage": np.dtype(np.int64),
    "ShortStorage": np.dtype(np.int16),
}


# Both are tuples, which a pickle cannot change after they were checked.
class _Storage(NamedTuple):
    """A row of values, and which part of it is meant: files of old have views of storages."""

    key: str
    dtype: np.dtype
    length: int
    start: int = 0


class _Tensor(NamedTuple):
    """Which of a storage's values it has; offset and strides are counted in values."""

    storage: _Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a file that holds a dict of tensors.

    Args:
      path: a `.pt` or `.pth` file of either format, from a machine of little-endian byte order, as all usual ones are.

    Returns:
      The arrays by name, in the file's order and types; they cannot be written to.

    Raises:
      UserError: the file cannot be read, is damaged, is none of torch's, or holds something else than tensors. It says
        what was found and expected; only who asked for the file knows what to do.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if start == b"PK":
                return _read_archive(path, file)
            if start[:1] == b"\x80":
                return _read_legacy(path, file)
            start = file.read(16)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}), expected a file that can") from error
    except Exception as error:  # a damaged pickle or archive raises almost anything
        raise UserError(f"{path} is damaged ({reason_of(error)}), expected a file that torch.save wrote") from error
    raise UserError(f"{path}: found {what_begins_with(start)}, expected one that torch.save wrote")


def what_begins_with(start: bytes) -> str:
    """A file that is none of the expected ones, by its first bytes."""
    return f"a file that begins with {start!r}" if start else "an empty file"


def _read_archive(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        folder = next((name.removesuffix("data.pkl") for name in records if name.split("/")[1:] == ["data.pkl"]), None)
        if folder is None or f"{folder}constants.pkl" in records:
            found = "a TorchScript program" if folder else "a zip archive without data.pkl"
            raise UserError(f"{path}: found {found}, expected a state dict that torch.save wrote")

        def record(name: str) -> bytes:
            info = records.get(folder + name)
            if info is None:
                raise UserError(f"{path}: found no {name} in it, expected it beside data.pkl")
            if info.compress_type != zipfile.ZIP_STORED:  # a small file must not become a large one in memory
                raise UserError(f"{path}: found {name} compressed, expected what torch.save writes")
            return archive.read(info)

        if f"{folder}byteorder" in records:
            _check_byte_order(path, record("byteorder") == b"little")
        tensors = _state_dict(path, _Unpickler(path, io.BytesIO(record("data.pkl"))).load())
        return _arrays(path, tensors, lambda storage: np.frombuffer(record(f"data/{storage.key}"), storage.dtype))


def _read_legacy(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    if _Unpickler(path, file).load() != _MAGIC:
        raise UserError(f"{path}: found a pickle of another program, expected a file that torch.save wrote")
    _Unpickler(path, file).load()  # the version of the format, the same since 2016
    machine = _Unpickler(path, file).load()
    _check_byte_order(path, machine["little_endian"])
    tensors = _state_dict(path, _Unpickler(path, file).load())
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    rows = {}
    for key in _Unpickler(path, file).load():
        if key not in storages:
            raise UserError(f"{path}: found values that belong to no tensor, expected a state dict alone")
        (length,) = np.frombuffer(file.read(8), "<i8")
        rows[key] = _mapped(file, storages[key].dtype, int(length))
    return _arrays(path, tensors, lambda storage: rows[storage.key])


def _mapped(file: BinaryIO, dtype: np.dtype, length: int) -> np.ndarray:
    """The next values of the file, mapped to memory: most of VGG16's are never looked at."""
    if not length:
        return np.zeros(0, dtype)
    start = file.tell()
    values = np.memmap(file, dtype, "r", start, (length,))
    file.seek(start + values.nbytes)
    return values


class _Unpickler(pickle.Unpickler):
    """Knows OrderedDict, what rebuilds a tensor, and types of storages."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file, encoding="utf-8")  # of the strings of Python 2
        self._path = path

        # Made anew for each file, which could set attributes of functions.
        def rebuild(storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> _Tensor:
            return _checked_tensor(storage, offset, sizes, strides)

        def rebuild_parameter(tensor: Any, *_: Any) -> Any:
            return tensor

        self._known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
            ("torch._utils", "_rebuild_tensor"): rebuild,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild,
        }

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name."""
        if module == "torch" and name in _STORAGE_TYPES:
            return name
        if (module, name) in self._known:
            return self._known[module, name]
        raise UserError(
            f"{self._path}: found {module}.{name} in it, of which nothing was run, expected a state dict, which is "
            "tensors alone, as torch.save(model.state_dict(), path) saves it"
        )

    def persistent_load(self, reference: Any) -> _Storage:
        """What stands for a storage: ("storage", type, key, device, length), in old files with a view as the sixth."""
        kind, storage_type, key, _, length, *views = reference
        start = views[0][1] if views and views[0] is not None else 0
        if kind != "storage" or not isinstance(key, str) or not _is_count(length) or not _is_count(start):
            raise pickle.UnpicklingError(f"no storage: {reference!r}")
        return _Storage(key, _STORAGE_TYPES[storage_type], length, start)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _checked_tensor(storage: Any, offset: Any, sizes: Any, strides: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not _is_count(offset):
        raise pickle.UnpicklingError("a tensor without a storage")
    if not all(isinstance(each, tuple) and all(map(_is_count, each)) for each in (sizes, strides)):
        raise pickle.UnpicklingError("a tensor whose sizes are no whole numbers")
    last = storage.start + offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if math.prod(sizes) and last >= storage.length:
        raise pickle.UnpicklingError(f"a tensor of {list(sizes)} in a storage of {storage.length} values")
    return _Tensor(storage, offset, sizes, strides)


def _state_dict(path: Path, content: Any) -> dict[str, _Tensor]:
    """Refuses what is no dict of tensors by their names."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: found {kind_of(content)}, expected a state dict")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise UserError(
                f"{path}: found {name!r} to be {kind_of(value)}, expected tensors alone, as "
                "torch.save(model.state_dict(), path) saves them"
            )
    return dict(content)


def _arrays(
    path: Path, tensors: Mapping[str, _Tensor], values_of: Callable[[_Storage], np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors as views of their storages, each of which is read once."""
    rows: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage.key not in rows:
            rows[storage.key] = values_of(storage)
        row = rows[storage.key]
        if row.dtype != storage.dtype or row.size != storage.length:
            raise UserError(
                f"{path}: found {row.dtype}[{row.size}] for {name}, expected {storage.dtype}[{storage.length}] as it "
                "says itself"
            )
        first = row[storage.start + tensor.offset :]
        strides = [stride * row.itemsize for stride in tensor.strides]
        arrays[name] = np.lib.stride_tricks.as_strided(first, tensor.sizes, strides, writeable=False)
    return arrays


def _check_byte_order(path: Path, little_endian: Any) -> None:
    if little_endian is not True:
        raise UserError(f"{path}: found values of big-endian byte order, expected little-endian")
