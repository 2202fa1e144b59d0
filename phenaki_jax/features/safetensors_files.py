"""Whole safetensors files as NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.features.torch_files import what_begins_with


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a file.

    Returns:
      The arrays by name, in the file's types.

    Raises:
      UserError: the file cannot be read, is damaged, or holds something else. It says what was found and expected; only
        who asked for the file knows what to do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if start[8:9] == b"{":  # after the length of the header, the header
            return load_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}), expected a file that can") from error
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({reason_of(error)}), expected safetensors") from error
    except (AttributeError, TypeError, KeyError) as error:  # as the library raises of types that NumPy has not
        raise UserError(
            f"{path}: found values of a type that NumPy has not ({reason_of(error)}), expected float32"
        ) from error
    raise UserError(f"{path}: found {what_begins_with(start)}, expected safetensors")
