"""Videos and pictures with their captions, as they lie in folders, manifests and tars."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from phenaki_jax.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES
# Why a file of no bytes is set aside.
EMPTY = "is empty (0 bytes)"


class Place(NamedTuple):
    """Where the bytes of a source are.

    Attributes:
      path: of a file.
      offset: of the first byte, where they are a part of the file.
      length: how many bytes; -1 for the whole file.
      suffix: says what they are, in lower case.
    """

    path: str
    offset: int
    length: int
    suffix: str

    @classmethod
    def whole(cls, path: str | os.PathLike[str]) -> Place:
        """All of a file, which is found from any working directory."""
        return cls(os.path.abspath(path), 0, -1, Path(path).suffix.lower())

    @property
    def size(self) -> int:
        """In bytes."""
        return os.path.getsize(self.path) if self.length < 0 else self.length

    def open(self) -> io.BufferedReader:
        """A file of these bytes alone."""
        if self.length < 0:
            return open(self.path, "rb")
        return io.BufferedReader(_Part(self.path, self.offset, self.length))


class Source(NamedTuple):
    """One file, or a part of one in time.

    Attributes:
      key: what it is called in reports; its hash decides its place in the dataset and its split.
      place: of its bytes.
      start: seconds from its beginning to where it is read from.
      end: seconds to where it is read to; -1 for its end.
      captions: clean ones; none where none were found.
      notes: on what was lost of the captions.
      split: that it is for; where empty, its hash decides.
    """

    key: str
    place: Place
    start: float
    end: float
    captions: tuple[str, ...]
    notes: tuple[str, ...]
    split: str = ""


class Problem(NamedTuple):
    """Something that is no source, and why."""

    key: str
    reason: str


class PassedOver(NamedTuple):
    """A file of an ending that is not read; in lower case, empty where it has none."""

    ending: str


Found = Iterator[Source | Problem | PassedOver]


class _Part(io.RawIOBase):
    """Bytes of a file from an offset on, as a file."""

    def __init__(self, path: str, offset: int, length: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (closed with this)
        self._offset, self._length, self._at = offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._length - self._at)]
        count = os.preadv(self._file.fileno(), [view], self._offset + self._at) if view else 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence] + offset)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


def printable(text: str) -> str:
    """A name on disk, or what is said of it, which may be in no encoding, as text that can be written."""
    return text.encode(errors="backslashreplace").decode()


def check_suffix(key: str) -> str:
    """Of a video or a picture, in lower case.

    Raises:
      UserError: it is of neither.
    """
    suffix = Path(key).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"found ending {suffix!r}, expected one of {', '.join(SUFFIXES)}: convert the file")
    return suffix


# Videos and images that are not read, whose captions are told to be theirs.
UNREAD_MEDIA = (
    *(".wmv", ".flv", ".f4v", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob", ".mxf"),
    *(".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2"),
)


def captions_alone(unread: str | None) -> str:
    """Why captions are of nothing.

    Args:
      unread: the video or image of their name that is beside them, and is not read; None where there is none.
    """
    if unread is None:
        return "has captions, and no video or image of its name is beside it"
    return f"has captions of {unread!r}, whose ending is not read, expected one of {', '.join(SUFFIXES)}: convert it"
