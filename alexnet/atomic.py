"""Files that are whole or not there, whatever happens while they are written."""

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

    It has the same ending, since libraries choose a format by that, and lies in a folder of its own beside `path`, so
    that two processes that write the same file do not meet. After an error the old file is still there and nothing
    else. A kill leaves that folder behind, see `remove_unfinished`.

    Args:
        path: What is to be written. Its folder is there.
        durable: Whether the file is to be on the disk before it takes its name, so that it outlives a loss of power.

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
    before = unfinished.with_name("before")  # a folder is not replaced by another in one step
    os.replace(path, before)
    try:
        os.replace(unfinished, path)
    except OSError:
        os.replace(before, path)
        raise


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what writers that were killed have left in a folder, in which nobody else writes now."""
    for room in Path(folder).glob(f"{PREFIX}*{SUFFIX}"):
        shutil.rmtree(room, ignore_errors=True)


def _flush_folder(folder: str | os.PathLike) -> None:
    """Make a rename last through a loss of power, where the system knows how."""
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
    """Write a table. Names of files that are no text have their bytes written out."""
    with (
        atomic_write(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(headings)
        writer.writerows(rows)


def write_list(path: str | os.PathLike, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """The same of a list; without rows there is no such file, nor an older one."""
    rows = list(rows)
    if rows:
        write_csv(path, headings, rows)
    else:
        Path(path).unlink(missing_ok=True)
