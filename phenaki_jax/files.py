"""Files and folders that are written complete or not at all, and what is told where they cannot be."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import hashlib
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from phenaki_jax.errors import TemporaryError, UserError, half_written, may_pass, reason_of

LOCK = ".lock"
_ABANDONED_SECONDS = 3600


@contextlib.contextmanager
def told_unwritable(
    what: object,
    advice: str = "free some space or choose another place",
    errors: type[Exception] = OSError,
) -> Iterator[None]:
    """Turns errors while writing, as on a full or read-only disk, into a UserError; a UserError stays as it is.

    Args:
      what: is written.
      advice: what to do then, and what stays.
      errors: those that are meant; TensorFlow and orbax raise a full disk as errors of many kinds.
    """
    try:
        yield
    except UserError:
        raise
    except errors as error:
        kind = TemporaryError if may_pass(error) else UserError
        raise kind(f"{what} cannot be written ({reason_of(error)}): {advice}") from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which becomes `path` at the end; where an error ends it, nothing stays.

    Raises:
      UserError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.stem}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    with told_unwritable(path), half_written():
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Removes what processes that were killed have left of a file that `whole_file` was to write.

    That is what has the number of a process which this host has no longer, or was not written to for an hour.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.*-*-*{path.suffix}"):
        host, process, _ = leftover.name.removeprefix(f".{path.stem}.").split("-", 2)
        with contextlib.suppress(OSError):
            gone = host == _host() and process.isdigit() and not _is_alive(int(process))
            if gone or time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                leftover.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It is there, and another user's.
        pass
    return True


@functools.cache
def _host() -> str:
    """Tells hosts, and containers that number processes by themselves, apart; their names are anything."""
    with contextlib.suppress(OSError):
        return _digits(f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}")
    return _digits(socket.gethostname())


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_text(path: Path, text: str) -> None:
    """Writes a text file, see `whole_file`."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text)


def make_folder(path: Path) -> Path:
    """Makes a folder, and those it stands in, where it is not there yet.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _in_the_way(path) from error
    except OSError as error:
        raise UserError(
            f"the folder {path} cannot be made ({reason_of(error)}): choose another place, or make room for it"
        ) from error
    return path


def check_folder(path: Path) -> None:
    """Refuses, before any work is done and without making it, a folder that could not be made or written to.

    Raises:
      UserError: a file is in its way, or the folder that it would stand in is not writable; or it is the address of
        a bucket.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        raise UserError(
            f"found the address {str(path).replace(':/', '://', 1)}, expected a folder: name that where its bucket is "
            "mounted, as docs/pods.md tells"
        )
    there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise _in_the_way(path)
    _check_writable(path, there)


def _in_the_way(path: Path) -> UserError:
    file = next(place for place in (path, *path.parents) if os.path.lexists(place) and not place.is_dir())
    return UserError(f"the folder {path} cannot be made: found a file {file}, expected none: choose another place")


def _check_writable(path: Path, folder: Path) -> None:
    try:
        # Asking for the permission is not enough: root has it in read-only folders too.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{path}: found that {folder} is not writable ({reason_of(error)}), expected a writable folder; "
            "choose another"
        ) from error


@contextlib.contextmanager
def locked(folder: Path, refusal: str = "") -> Iterator[None]:
    """Keeps a folder, made where it is not there, to one process at a time; the lock goes with the process.

    Args:
      folder: whose `.lock` is held.
      refusal: what is told where another process holds it; where empty, that one is waited for.

    Raises:
      UserError: another process holds it, or the folder cannot be written to.
    """
    with told_unwritable(make_folder(folder) / LOCK):
        file = open(folder / LOCK, "w")  # noqa: SIM115  (closed below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError as error:
            raise UserError(refusal) from error
        except OSError:
            # Some network file systems know no locks.
            pass
        yield


def check_parent(path: Path) -> None:
    """Refuses a file or folder that has no folder to stand in.

    Raises:
      UserError: which folder is not there, or is a file.
    """
    if path.parent.is_file():
        raise UserError(f"{path}: found a file {path.parent}, expected a folder to write to; choose another place")
    if not path.parent.is_dir():
        raise UserError(f"{path}: found no folder {path.parent}, expected one to write to; make it first")


def check_output(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    """Refuses, before any work is done, a file that could not be written in the end.

    Raises:
      UserError: the name is empty or its suffix unknown, the folder is not there or not writable, or a folder has that
        name.
    """
    wanted = " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
    if not str(path):
        raise UserError(f"found an empty name, expected that of a file to write; name one that ends in {wanted}")
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: found suffix {path.suffix!r}, expected {wanted}; change the name")
    check_parent(path)
    if path.is_dir():
        raise UserError(f"{path}: found a folder, expected the name of a file to write; choose another name")
    _check_writable(path, path.parent)
    return path


def check_kept(source: str | Path, path: Path) -> None:
    """Refuses a file to write that is the one to read, which would be lost.

    Raises:
      UserError: says which.
    """
    if Path(source).is_file() and path.is_file() and path.samefile(source):
        raise UserError(f"{path}: found the file that is read, expected another to write; change the name")
