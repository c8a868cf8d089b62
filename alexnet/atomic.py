"""Atomic writes: a file is complete or absent, whatever happens while it is written."""

import contextlib
import csv
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PREFIX, SUFFIX = ".unfinished-", ".tmp"
# What a file system says that cannot do a thing, as Google Drive in Colab; not that it failed to.
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.EACCES}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """A path to write to, a file or a folder, which becomes `path` when the block ends.

    It has the same extension, because libraries choose a format by it, and is in a temporary folder beside `path`, so
    that two processes can write the same file. After an error only the old file is left. A killed process leaves the
    temporary folder behind: see `remove_unfinished`.

    Args:
        path: The file or folder to write. Its parent folder must exist.
        durable: Whether to flush the file to the disk before it is renamed, so that it survives a loss of power.

    Raises:
        OSError: the disk is full, or the folder cannot be written.

    Example:
        with atomic_write("results.json") as unfinished:
            unfinished.write_text("{}")
    """
    path = Path(path)
    room = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=path.parent))
    try:
        unfinished = room / ("new" + "".join(path.suffixes[-2:]))
        yield unfinished
        if durable:
            with unfinished.open("rb+") as file:
                _flush(file.fileno())
        _replace(path, unfinished)
        if durable:
            _flush_folder(path.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _replace(path, unfinished):
    if not path.is_dir():
        os.replace(unfinished, path)
        return
    before = unfinished.with_name("before")  # a folder cannot replace a folder in one step
    os.replace(path, before)
    try:
        os.replace(unfinished, path)
    except OSError:
        os.replace(before, path)
        raise


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed processes have left in a folder. Nothing else may be writing there now."""
    for room in Path(folder).glob(f"{PREFIX}*{SUFFIX}"):
        shutil.rmtree(room, ignore_errors=True)


def _flush_folder(folder: str | os.PathLike) -> None:
    """Make a rename survive a loss of power, where the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _flush(descriptor)
        finally:
            os.close(descriptor)


def _flush(descriptor):
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def write_text(path: str | os.PathLike, text: str, errors: str = "strict", durable: bool = False) -> None:
    """Write a text file in UTF-8; `errors` as `open` takes it."""
    with atomic_write(path, durable) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors=errors)


def write_csv(path: str | os.PathLike, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table. Bytes in file names that are not valid text are escaped."""
    with (
        atomic_write(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(headings)
        writer.writerows(rows)


def write_list(path: str | os.PathLike, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """As `write_csv`, but without rows there is no file, and an older one is removed."""
    rows = list(rows)
    if rows:
        write_csv(path, headings, rows)
    else:
        Path(path).unlink(missing_ok=True)
