"""Arrays of checkpoints by their names, of which no more is read than the slices that are asked for.

Three kinds are known. Safetensors: one file, or several that an index tells of. Older checkpoints of t5x: a msgpack
file `checkpoint` with the small arrays, beside a zarr folder for each large one. What orbax writes, newer t5x included:
zarr arrays in an OCDBT database or, beside each other, in folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict
from safetensors import safe_open

from phenaki_jax.errors import UserError, kind_of, reason_of

INDEX = "model.safetensors.index.json"
TENSORS = "model.safetensors"
AGAIN = "copy or download it again"

Index = tuple[slice, ...]

# What t5x keeps its state in, and the usual name of the only item of a CheckpointManager of orbax.
_ORBAX_FOLDERS = (".", "state", "default")
_FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


class StoredArray(NamedTuple):
    """An array of a checkpoint, or a view of one.

    Attributes:
      shape: of the whole array.
      read: gives the part between slices, which have a start and a stop, as floats; raises a UserError where the file
        is damaged or the values are no numbers.
    """

    shape: tuple[int, ...]
    read: Callable[[Index], np.ndarray]


def transposed(array: StoredArray, axes: tuple[int, ...]) -> StoredArray:
    """With its axes in this order."""

    def read(index: Index) -> np.ndarray:
        return array.read(tuple(index[axes.index(axis)] for axis in range(len(axes)))).transpose(axes)

    return StoredArray(tuple(array.shape[axis] for axis in axes), read)


def split(array: StoredArray, axis: int, width: int) -> StoredArray:
    """With an axis divided in two, the second of this width."""

    def read(index: Index) -> np.ndarray:
        outer, inner = index[axis : axis + 2]
        rows = slice(outer.start * width, outer.stop * width)
        values = array.read((*index[:axis], rows, *index[axis + 2 :]))
        values = values.reshape(*values.shape[:axis], outer.stop - outer.start, width, *values.shape[axis + 1 :])
        return values[(*[slice(None)] * (axis + 1), inner)]

    shape = (*array.shape[:axis], array.shape[axis] // width, width, *array.shape[axis + 1 :])
    return StoredArray(shape, read)


def lifted(array: StoredArray) -> StoredArray:
    """With an axis of length 1 in front."""
    return StoredArray((1, *array.shape), lambda index: array.read(index[1:])[None][index[0]])


def open_arrays(path: Path) -> dict[str, Callable[[], StoredArray]]:
    """What opens each array of a checkpoint.

    Args:
      path: a folder of any kind, a `.safetensors` file, or the index of several.

    Returns:
      By name: "encoder/layers_0/mlp/wo/kernel" and the like from trees, and as they are from safetensors.

    Raises:
      UserError: there is no checkpoint, or it is damaged. Opening an array raises this too.
    """
    if not path.exists():
        raise UserError(f"found nothing at {path}, expected a T5 checkpoint: download one and name it")
    if path.is_file():
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
        if path.name.endswith(".safetensors.index.json"):
            return _open_index(path)
    elif (path / TENSORS).is_file():
        return _open_safetensors(path / TENSORS)
    elif (path / INDEX).is_file():
        return _open_index(path / INDEX)
    elif (path / "checkpoint").is_file():
        return {**_open_msgpack(path / "checkpoint"), **_open_zarr_folders(path)}
    else:
        for folder in (path / name for name in _ORBAX_FOLDERS):
            if arrays := _open_ocdbt(folder) if (folder / "manifest.ocdbt").exists() else _open_zarr_folders(folder):
                return arrays
    found = "a file" if path.is_file() else ", ".join(sorted(each.name for each in path.iterdir())[:5]) or "nothing"
    raise UserError(
        f"{path}: found {found}, expected a T5 checkpoint: a folder of t5x or orbax, or safetensors (a file, the index "
        f"of several, or a folder with {TENSORS} or {INDEX})"
    )


def _stored(path: Path, name: str, shape: Any, dtype: str, read: Callable[[Index], np.ndarray]) -> StoredArray:
    """An array that is refused where it is damaged or holds what is no number."""
    if dtype not in _FLOATS.values():
        raise UserError(f"{path}: found {name} of type {dtype}, expected one of {', '.join(_FLOATS.values())}")

    def checked(index: Index) -> np.ndarray:
        try:
            values = read(index)
        except Exception as error:  # tensorstore and safetensors raise errors of many kinds
            raise UserError(f"{path}: {name} is damaged ({reason_of(error)}); {AGAIN}") from error
        if not np.isfinite(values).all():
            raise UserError(f"{path}: found NaN or infinity in {name}, expected numbers; {AGAIN}")
        return values

    return StoredArray(tuple(shape), checked)


def _open_safetensors(path: Path) -> dict[str, Callable[[], StoredArray]]:
    try:
        file = safe_open(path, "numpy")
        names = list(file.keys())
    except Exception as error:  # the library's, the system's, and of another kind for an unknown type
        raise UserError(f"{path} is damaged ({reason_of(error)}), expected safetensors; {AGAIN}") from error

    def opener(name: str) -> Callable[[], StoredArray]:
        def open_array() -> StoredArray:
            values = file.get_slice(name)
            dtype = _FLOATS.get(values.get_dtype(), values.get_dtype())
            return _stored(path, name, values.get_shape(), dtype, lambda index: values[index])

        return open_array

    return {name: opener(name) for name in names}


def _open_index(path: Path) -> dict[str, Callable[[], StoredArray]]:
    try:
        files = json.loads(path.read_text())["weight_map"]
        places = {name: path.parent / file for name, file in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({reason_of(error)}), expected the index of safetensors files; {AGAIN}"
        ) from error
    if absent := sorted(file for file in set(places.values()) if not file.is_file()):
        raise UserError(f"{path}: found no {absent[0].name} beside it, expected all files that it names; {AGAIN}")
    opened = {file: _open_safetensors(file) for file in sorted(set(places.values()))}
    for name, file in places.items():
        if name not in opened[file]:
            raise UserError(f"{file}: found no {name}, which {path.name} says is in it; {AGAIN}")
    return {name: opened[file][name] for name, file in places.items()}


def _open_msgpack(path: Path) -> dict[str, Callable[[], StoredArray]]:
    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # msgpack raises errors of many kinds
        raise UserError(f"{path} is damaged ({reason_of(error)}), expected a checkpoint of t5x; {AGAIN}") from error
    if not isinstance(content, dict) or not isinstance(content.get("optimizer"), dict):
        found = f"a dict of {', '.join(map(str, content))}" if isinstance(content, dict) else kind_of(content)
        raise UserError(f"{path}: found {found}, expected a checkpoint of t5x, a dict with an optimizer")

    def opener(name: str, values: np.ndarray) -> Callable[[], StoredArray]:
        return lambda: _stored(path, name, values.shape, str(values.dtype), lambda index: values[index])

    # Beside arrays there are the specifications of zarr folders, which are found without them.
    arrays = {name: leaf for name, leaf in flatten_dict(content["optimizer"], sep="/").items() if _is_array(leaf)}
    return {name: opener(name, values) for name, values in arrays.items()}


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, np.ndarray)


def _open_zarr_folders(folder: Path) -> dict[str, Callable[[], StoredArray]]:
    """A folder for each array, its place in the tree being its name with dots."""
    places = {each.name: each for each in folder.iterdir()} if folder.is_dir() else {}
    return {
        name.replace(".", "/"): _zarr_opener(folder, name, version, {"driver": "file", "path": f"{place.absolute()}/"})
        for name, place in places.items()
        for version, metadata in _ZARR.items()
        if (place / metadata).is_file()
    }


def _open_ocdbt(folder: Path) -> dict[str, Callable[[], StoredArray]]:
    import tensorstore

    database = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.absolute()}/"}}
    try:
        keys = [key.decode() for key in tensorstore.KvStore.open(database).result().list().result()]
    except Exception as error:  # tensorstore raises errors of many kinds
        raise UserError(f"{folder} is damaged ({reason_of(error)}), expected a checkpoint of orbax; {AGAIN}") from error
    names = [
        (key.rpartition("/")[0], version) for key in keys for version in _ZARR if key.endswith(f"/{_ZARR[version]}")
    ]
    return {
        name.replace(".", "/"): _zarr_opener(folder, name, version, {**database, "path": f"{name}/"})
        for name, version in names
    }


_ZARR = {"zarr": ".zarray", "zarr3": "zarr.json"}


def _zarr_opener(folder: Path, name: str, version: str, place: Mapping[str, Any]) -> Callable[[], StoredArray]:
    def open_array() -> StoredArray:
        import tensorstore

        # Where a file is absent, its part would otherwise read as zeros.
        spec = {"driver": version, "kvstore": dict(place), "fill_missing_data_reads": False}
        try:
            values = tensorstore.open(spec, read=True).result()
        except Exception as error:  # tensorstore raises errors of many kinds
            raise UserError(f"{folder}: {name} is damaged ({reason_of(error)}); {AGAIN}") from error
        return _stored(folder, name, values.shape, values.dtype.name, lambda index: values[index].read().result())

    return open_array
