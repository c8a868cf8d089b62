"""A folder or a zip, seen alike: what lies in it, and the images below. Nothing is ever extracted.

Names that come from data, a table's or a zip's, are compared with what is listed and never joined into a path.
"""

import contextlib
import os
import posixpath
import zipfile
from bisect import bisect_left
from pathlib import Path

import numpy as np

from alexnet.data.decoding import EXTENSIONS
from alexnet.data.listing import FileIndex, is_file, is_folder, is_hidden, list_images
from alexnet.data.source import ENDING, HIDDEN, DataError
from alexnet.data.stores import Folder, PackedStrings, Zip


def _hidden_part(name):
    """Up to where a zip's member is hidden, None if it is not. Absolute names and those that lead upwards, which no zip
    should hold, count as hidden: their first part is empty or begins with a dot."""
    parts = name.split("/")
    for number, part in enumerate(parts):
        if not part or is_hidden(part):
            return "/".join(parts[: number + 1])
    return None


class FolderTree:
    """A folder of the file system.

    Attributes:
        path: Where it lies.
        name: The same as text, for messages.
        folders: Names of the folders right in it, sorted, without hidden ones.
        files: Names of the files.

    Raises:
        DataError: it cannot be listed.
    """

    def __init__(self, path, cache=None):
        self.path = Path(path)
        self.name = str(path)
        self.cache = cache
        try:
            with os.scandir(path) as entries:
                visible = sorted((e for e in entries if not is_hidden(e.name)), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"data_dir: {path} cannot be listed ({error.strerror}).") from None
        self.folders = [entry.name for entry in visible if is_folder(entry)]
        self.files = [entry.name for entry in visible if is_file(entry)]

    def sub(self, name):
        """The tree of a folder below."""
        return FolderTree(self.path / name, self.cache)

    def has(self, path):
        """Whether there is a folder of this relative path."""
        return (self.path / path).is_dir()

    def read(self, name):
        """The content of the file `name` right in it.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"data_dir: {self.path / name} cannot be read ({error.strerror}).") from None

    def images(self):
        """The `FileIndex` of all images below."""
        try:
            return list_images(self.path, self.cache)
        except OSError as error:
            raise DataError(f"data_dir: {self.path} cannot be listed ({error.strerror}).") from None

    def store(self, names):
        """The store of some images, given by their `PackedStrings`."""
        return Folder(self.path, names)


class ZipTree:
    """A zip, or a folder in one; as `FolderTree`, but with no `path`."""

    path = None

    def __init__(self, archive, members, prefix="", hidden=()):
        self._archive = archive
        self._members = members
        self._prefix = prefix
        self._hidden = hidden
        self.name = posixpath.join(archive, prefix).rstrip("/")
        # The names are sorted, so those that begin alike lie together.
        names = list(members)
        self._names = names[bisect_left(names, prefix) : bisect_left(names, prefix + "\U0010ffff")]
        inside = [name[len(prefix) :].partition("/") for name in self._names]
        self.folders = sorted({first for first, slash, _ in inside if slash})
        self.files = sorted(first for first, slash, _ in inside if not slash)

    @classmethod
    def open(cls, path):
        """The tree of a zip file.

        Raises:
            DataError: it cannot be read.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                members = {_name(info): info for info in archive.infolist()}
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error).partition("\n")[0]
            raise DataError(f"data_dir: {path} cannot be read as a zip ({reason}).") from None
        members = {name: member for name, member in members.items() if not name.endswith("/")}
        hidden = {name: _hidden_part(name) for name in members}
        visible = sorted(name for name, part in hidden.items() if part is None)
        hidden = sorted({part for part in hidden.values() if part is not None})
        return cls(str(path), {name: members[name] for name in visible}, hidden=hidden)

    def sub(self, name):
        return ZipTree(self._archive, self._members, f"{self._prefix}{name}/", self._hidden)

    def has(self, path):
        below = f"{self._prefix}{path}/"
        return any(name.startswith(below) for name in self._names)

    def read(self, name):
        try:
            return Zip(self._archive, [self._members[self._prefix + name]]).read(0)
        except OSError as error:
            raise DataError(f"data_dir: {self.name}/{name} cannot be read ({error.strerror or error}).") from None

    def images(self):
        below = [name[len(self._prefix) :] for name in self._names]
        inside = sorted((name for name in below if name.lower().endswith(EXTENSIONS)), key=posixpath.split)
        others = [name for name in below if not name.lower().endswith(EXTENSIONS)]
        hidden = [name[len(self._prefix) :] for name in self._hidden if name.startswith(self._prefix)]
        # Every folder on the way, also those that hold no image of their own, as a folder of the file system has them.
        directories = {""}
        for name in below:
            while name := posixpath.dirname(name):
                directories.add(name)
        directories = sorted(directories)
        counts = dict.fromkeys(directories, 0)
        for name in inside:
            counts[posixpath.dirname(name)] += 1
        passed_over = (
            (reason, PackedStrings.of(names)) for reason, names in ((ENDING, others), (HIDDEN, hidden)) if names
        )
        return FileIndex(
            PackedStrings.of(inside),
            directories,
            np.array(list(counts.values()), np.int64),
            passed_over=tuple(passed_over),
        )

    def store(self, names):
        return Zip(self._archive, [self._members[self._prefix + name] for name in names])


def _name(info):
    """A member's name with slashes. Windows programs write backslashes; names that are UTF-8 but do not say so come out
    of `zipfile` as code page 437."""
    name = info.orig_filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.partition("\0")[0].replace("\\", "/")
