"""Lists the images in large folders fast, and caches long listings beside the runs."""

import hashlib
import os
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.atomic import atomic_write
from alexnet.data.formats import EXTENSIONS
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.source import ENDING, HIDDEN

REMEMBERED = 10_000  # shorter listings are not cached: making them takes only a moment
FORMAT = 2
# Clocks of file systems are coarse: a folder that changed this recently may change again and keep the same time.
RACY_NS = 2 * 10**9
_ENDINGS = tuple(os.fsencode(ending) for ending in EXTENSIONS)
# What operating systems and archivers leave behind, beside names that begin with a dot.
HIDDEN_NAMES = frozenset(
    ("__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information")
)


def is_hidden(name: str | bytes) -> bool:
    """Whether a file or folder of this name, text or bytes, belongs to the system and not to the data."""
    name = os.fsdecode(name)
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


@dataclass(frozen=True)
class FileIndex:
    """All images below a folder, those of one directory together.

    Attributes:
        names: `PackedStrings` of their paths, relative to the folder.
        directories: Relative paths of the directories; "" is the folder itself.
        counts: How many images are directly in each directory, int64.
        unreadable: `(path, reason)` of each directory that could not be listed.
        passed_over: `(reason, PackedStrings)` of the other files: those with an extension that is not read, and hidden
            ones. A hidden folder counts once.
    """

    names: PackedStrings
    directories: list
    counts: np.ndarray
    unreadable: tuple = ()
    passed_over: tuple = ()


def list_images(folder: str | os.PathLike, cache: str | os.PathLike | None = None) -> FileIndex:
    """The `FileIndex` of a folder: images at any depth, by their extensions, sorted. Hidden files are passed over.

    Args:
        folder: The folder to list.
        cache: A folder for long listings. A cached listing is used as long as none of its directories has changed.

    Raises:
        OSError: `folder` itself cannot be listed.
    """
    folder = os.path.abspath(folder)
    saved = load_remembered(cache, folder, _KEYS)
    if saved is not None:
        directories = list(PackedStrings(saved["directories"].tobytes(), saved["directory_ends"]))
        if _times(folder, directories) == saved["times"].tolist():
            passed_over = [
                (reason, PackedStrings(saved[key].tobytes(), saved[f"{key}_ends"])) for reason, key in _OTHERS.items()
            ]
            names = PackedStrings(saved["text"].tobytes(), saved["ends"])
            return FileIndex(names, directories, saved["counts"], passed_over=_present(passed_over))
    began = time.time_ns()
    listing, times = _walk(folder)
    if len(listing.names) > REMEMBERED and not listing.unreadable and max(times) < began - RACY_NS:
        folders = PackedStrings.of(listing.directories)
        others = {_OTHERS[reason]: names for reason, names in listing.passed_over}
        remember(
            cache,
            folder,
            **{key: np.frombuffer(others[key].text if key in others else b"", np.uint8) for key in _OTHERS.values()},
            **{f"{key}_ends": others[key].ends if key in others else _NONE for key in _OTHERS.values()},
            text=np.frombuffer(listing.names.text, np.uint8),
            ends=listing.names.ends,
            directories=np.frombuffer(folders.text, np.uint8),
            directory_ends=folders.ends,
            counts=listing.counts,
            times=np.array(times),
        )
    return listing


_OTHERS = {ENDING: "others", HIDDEN: "hidden"}
_KEYS: tuple[str, ...] = ("text", "ends", "directories", "directory_ends", "counts", "times", "others")
_KEYS += ("others_ends", "hidden", "hidden_ends")
_NONE = np.zeros(0, np.int64)


def _present(pairs):
    return tuple((reason, names) for reason, names in pairs if len(names))


def _walk(folder):
    """A `FileIndex`, and the times at which its directories last changed, taken before reading them."""
    texts, lengths, directories, times, unreadable = [], [], [], [], []
    passed_over = {reason: [] for reason in _OTHERS}
    waiting = [(b"", frozenset())]
    while waiting:
        relative, above = waiting.pop()
        path = os.path.join(os.fsencode(folder), relative)
        try:
            status = os.stat(path)
            here = (status.st_dev, status.st_ino)
            if here in above:  # a link back to a folder above
                continue
            folders, files, others, hidden = _entries(path)
        except OSError as error:
            if not relative:
                raise
            unreadable.append((os.fsdecode(path), f"cannot be listed ({error.strerror})"))
            continue
        prefix = relative + b"/" if relative else b""
        files = [prefix + name for name in sorted(files)]
        passed_over[ENDING] += [prefix + name for name in sorted(others)]
        passed_over[HIDDEN] += [prefix + name for name in sorted(hidden)]
        texts.append(b"".join(files))
        lengths.append(np.fromiter(map(len, files), np.int64, len(files)))
        directories.append(os.fsdecode(relative))
        times.append(status.st_mtime_ns)
        waiting += [(prefix + name, above | {here}) for name in sorted(folders, reverse=True)]
    names = PackedStrings(b"".join(texts), np.cumsum(np.concatenate(lengths)))
    counts = np.array([len(own) for own in lengths])
    others = _present((reason, PackedStrings.of(found)) for reason, found in passed_over.items())
    return FileIndex(names, directories, counts, tuple(unreadable), others), times


def _entries(path):
    """Folders, images, other files and hidden entries of a directory, as bytes. `scandir` gives the kind of each entry,
    so that no file needs a system call of its own."""
    folders, images, others, hidden = [], [], [], []
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.lower().endswith(_ENDINGS) and not name.startswith(b".") and not is_folder(entry):
                images.append(name)
            elif is_hidden(name):
                hidden.append(name)
            elif is_folder(entry):
                folders.append(name)
            else:
                others.append(name)
    return folders, images, others, hidden


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an `os.DirEntry` is a folder; a broken link is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry) -> bool:
    """Whether an `os.DirEntry` is a file, not a pipe or device."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _times(folder, directories):
    try:
        return [os.stat(os.path.join(folder, directory)).st_mtime_ns for directory in directories]
    except OSError:
        return None


def _file(cache, path):
    key = repr((FORMAT, EXTENSIONS, path))
    return Path(cache) / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"


_TEXTS = {"ends": "text", "directory_ends": "directories", "group_ends": "groups"}


def load_remembered(cache, path, keys):
    """The arrays cached for a path; None if there are none, or they are damaged."""
    if cache is None:
        return None
    try:
        with np.load(_file(cache, path), allow_pickle=False) as saved:
            arrays = {key: saved[key] for key in keys}
        for ends in (key for key in arrays if key.endswith("ends")):
            last = arrays[ends][-1] if len(arrays[ends]) else 0
            if np.diff(arrays[ends], prepend=0).min(initial=0) < 0 or last != len(arrays[_TEXTS.get(ends, ends[:-5])]):
                return None
        counted = arrays["counts"].sum() if "counts" in arrays else len(arrays["group"])
        return arrays if counted == len(arrays["ends"]) else None
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def remember(cache, path, **arrays):
    """Cache arrays for a path, atomically. If nothing can be written, the next run lists the folder again."""
    if cache is None:
        return
    try:
        os.makedirs(cache, exist_ok=True)
        with atomic_write(_file(cache, path)) as unfinished:
            np.savez(unfinished, **arrays)
    except OSError:
        pass
