"""A folder or a zip, seen alike: what lies in it, and the images below. Nothing is ever extracted.

Names that come from data, a table's or a zip's, are compared with what is listed and never joined into a path.
"""

import os
import posixpath
import re
import zipfile
from bisect import bisect_left
from pathlib import Path

import numpy as np

from alexnet.data.decoding import EXTENSIONS
from alexnet.data.listing import Listing, is_file, is_folder, list_images
from alexnet.data.source import DataError
from alexnet.data.stores import Folder, Names, Zip

# Hidden files and macOS's own; with them names that no zip should hold: absolute ones, and those that lead upwards.
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX/|/)|^$")


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
                visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
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
        """The `Listing` of all images below."""
        try:
            return list_images(self.path, self.cache)
        except OSError as error:
            raise DataError(f"data_dir: {self.path} cannot be listed ({error.strerror}).") from None

    def store(self, names):
        """The store of some images, given by their `Names`."""
        return Folder(self.path, names)


class ZipTree:
    """A zip, or a folder in one; as `FolderTree`, but with no `path`."""

    path = None

    def __init__(self, archive, members, prefix=""):
        self._archive = archive
        self._members = members
        self._prefix = prefix
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
                members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error).partition("\n")[0]
            raise DataError(f"data_dir: {path} cannot be read as a zip ({reason}).") from None
        visible = (name for name in members if not _HIDDEN.search(name))
        return cls(str(path), {name: members[name] for name in sorted(visible)})

    def sub(self, name):
        return ZipTree(self._archive, self._members, f"{self._prefix}{name}/")

    def has(self, path):
        below = f"{self._prefix}{path}/"
        return any(name.startswith(below) for name in self._names)

    def read(self, name):
        try:
            return Zip(self._archive, [self._members[self._prefix + name]]).read(0)
        except OSError as error:
            raise DataError(f"data_dir: {self.name}/{name} cannot be read ({error.strerror or error}).") from None

    def images(self):
        inside = (name[len(self._prefix) :] for name in self._names if name.lower().endswith(EXTENSIONS))
        inside = sorted(inside, key=posixpath.split)
        directories, counts = np.unique([posixpath.dirname(name) for name in inside], return_counts=True)
        return Listing(Names.of(inside), directories.tolist(), counts.astype(np.int64))

    def store(self, names):
        return Zip(self._archive, [self._members[self._prefix + name] for name in names])
