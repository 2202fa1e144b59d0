"""Which files a dataset is made of, and how many have come and gone since."""

from __future__ import annotations

import array
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from phenaki_jax.data.prepare.sources import Found, Source, printable
from phenaki_jax.errors import reason_of
from phenaki_jax.files import whole_file

FILES_FILE = "files.jsonl"


class Changes(NamedTuple):
    """What has come to the inputs of a dataset since it was begun.

    Attributes:
      came: files that it was not made of.
      gone: files that it was made of, and that are no longer there.
      unknown: why this cannot be told; empty where it can.
    """

    came: int = 0
    gone: int = 0
    unknown: str = ""


def write_files(folder: Path, keys: Iterable[str]) -> None:
    """Writes a line for each file that a dataset is made of.

    Raises:
      UserError: it cannot be written.
    """
    with whole_file(folder / FILES_FILE) as unfinished, unfinished.open("w") as file:
        for key in keys:
            file.write(json.dumps(key, ensure_ascii=False) + "\n")


def changes_since(folder: Path, found: Found) -> Changes:
    """What is found now against what a dataset was made of; none where it does not say that.

    Args:
      folder: of the dataset.
      found: in its inputs, which may have become unreadable: the dataset is whole nevertheless.
    """
    listed = folder / FILES_FILE
    if not listed.exists():
        return Changes()
    try:
        with listed.open() as file:
            before = _fingerprints(map(json.loads, file))
        now = _fingerprints(printable(each.key) for each in found if isinstance(each, Source))
    except (OSError, ValueError, AttributeError) as error:
        return Changes(unknown=reason_of(error))
    both = len(np.intersect1d(before, now, assume_unique=True))
    return Changes(len(now) - both, len(before) - both)


def _fingerprints(keys: Iterable[str]) -> UInt64[np.ndarray, " files"]:
    """Each once, in 8 bytes each: names of millions of files would not go into memory."""
    digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.unique(np.array(array.array("Q", map(int.from_bytes, digests)), np.uint64))
