"""A common view of folders and zips: their content, and the images below. Nothing is ever extracted.

Names that come from data (from a table or a zip) are compared with the listing. They are never joined into a path.
"""

import contextlib
import os
import posixpath
import struct
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.formats import EXTENSIONS
from alexnet.data.listing import FileIndex, is_file, is_folder, is_hidden, list_images
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.source import ENDING, HIDDEN, EncodedReader

# No image file is this large; an archive that claims so is damaged, or made to fill the memory.
LARGEST = 256 * 2**20


class DirectoryView:
    """The content of a folder, or of a folder in a zip. Detectors of layouts use it.

    Attributes:
        path: The folder's path; None in a zip.
        name: The path as text, for messages.
        folders: Names of the folders directly in it, sorted, without hidden ones.
        files: Names of the files directly in it, sorted, without hidden ones.
        cache: A folder for long listings, or None.
        tables: Tables beside a zip that may be about its images: `(view, file name, name to show, part or None)`.
    """

    path: Path | None = None
    name: str
    folders: list
    files: list
    cache: Path | None = None
    tables: tuple = ()
    _listed = None

    def sub(self, name: str) -> "DirectoryView":
        """The view of the folder `name` directly in it."""
        raise NotImplementedError

    def has(self, path: str) -> bool:
        """Whether there is a folder at this relative path."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """The content of the file `name` directly in it.

        Raises:
            DataError: it cannot be read.
        """
        raise NotImplementedError

    def list_images(self) -> FileIndex:
        """The `FileIndex` of all images below. They are listed only once.

        Raises:
            DataError: it cannot be listed.
        """
        if self._listed is None:
            self._listed = self._list_images()
        return self._listed

    def _list_images(self):
        raise NotImplementedError

    def reader(self, names: Iterable[str]) -> EncodedReader:
        """The `ImageReader` of some images, given their paths in `list_images`."""
        raise NotImplementedError


class FolderView(DirectoryView):
    """A folder of the file system.

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
        return FolderView(self.path / name, self.cache)

    def has(self, path):
        return (self.path / path).is_dir()

    def read(self, name):
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"data_dir: {self.path / name} cannot be read ({error.strerror}).") from None

    def _list_images(self):
        try:
            return list_images(self.path, self.cache)
        except OSError as error:
            raise DataError(f"data_dir: {self.path} cannot be listed ({error.strerror}).") from None

    def reader(self, names):
        return FolderReader(self.path, names)


class ZipView(DirectoryView):
    """A zip, or a folder in one."""

    def __init__(self, archive, members, prefix="", hidden=()):
        self._archive = archive
        self._members = members
        self._prefix = prefix
        self._hidden = hidden
        self.name = posixpath.join(archive, prefix).rstrip("/")
        # The names are sorted, so those with the same prefix are next to each other.
        names = list(members)
        self._names = names[bisect_left(names, prefix) : bisect_left(names, prefix + "\U0010ffff")]
        inside = [name[len(prefix) :].partition("/") for name in self._names]
        self.folders = sorted({first for first, slash, _ in inside if slash})
        self.files = sorted(first for first, slash, _ in inside if not slash)

    @classmethod
    def open(cls, path, tables=()):
        """The view of a zip file.

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
        view = cls(str(path), {name: members[name] for name in visible}, hidden=hidden)
        view.tables = tuple(tables)
        return view

    def sub(self, name):
        return ZipView(self._archive, self._members, f"{self._prefix}{name}/", self._hidden)

    def has(self, path):
        below = f"{self._prefix}{path}/"
        return any(name.startswith(below) for name in self._names)

    def read(self, name):
        try:
            return ZipReader(self._archive, [self._members[self._prefix + name]]).read(0)
        except OSError as error:
            raise DataError(f"data_dir: {self.name}/{name} cannot be read ({error.strerror or error}).") from None

    def _list_images(self):
        below = [name[len(self._prefix) :] for name in self._names]
        inside = sorted((name for name in below if name.lower().endswith(EXTENSIONS)), key=posixpath.split)
        others = [name for name in below if not name.lower().endswith(EXTENSIONS)]
        hidden = [name[len(self._prefix) :] for name in self._hidden if name.startswith(self._prefix)]
        # Include folders without images of their own, as `FolderView` does.
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

    def reader(self, names):
        return ZipReader(self._archive, [self._members[self._prefix + name] for name in names])


def _name(info):
    """A member's name with slashes. Windows programs write backslashes, and `zipfile` decodes names that are UTF-8 but
    not marked as such from code page 437."""
    name = info.orig_filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.partition("\0")[0].replace("\\", "/")


def _hidden_part(name):
    """The part of a member's path that is hidden, None if none is. Absolute names and those that lead upwards, which no
    zip should contain, count as hidden: they have a part that is empty or begins with a dot."""
    parts = name.split("/")
    for number, part in enumerate(parts):
        if not part or is_hidden(part):
            return "/".join(parts[: number + 1])
    return None


# --- Reading in place


class FolderReader(EncodedReader):
    """Files below one folder.

    Args:
        root: The folder.
        names: `PackedStrings` of the files, relative to it.
    """

    has_marks = True

    def __init__(self, root, names):
        self.root = str(root)
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return os.path.join(self.root, self.names[index])

    def read(self, index):
        with open(self.name(index), "rb") as file:
            return file.read()

    def mark(self, index):
        with open(self.name(index), "rb", buffering=0) as file:
            return file_mark(file, 0, os.fstat(file.fileno()).st_size)


class ZipReader(EncodedReader):
    """Files in a zip, read in place by any number of threads. `zipfile` only lists them: to read, it needs a lock.

    Args:
        path: The zip.
        members: The `zipfile.ZipInfo` of each file.
    """

    has_marks = True

    def __init__(self, path, members):
        self.path = str(path)
        self.members = members
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - read as long as the reader lives

    def __len__(self):
        return len(self.members)

    def name(self, index):
        return f"{self.path}/{self.members[index].filename}"

    def mark(self, index):
        return self.members[index].CRC, self.members[index].file_size

    def read(self, index):
        member = self.members[index]
        if member.flag_bits & 1:
            raise OSError("it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise OSError(f"its compression method, {member.compress_type}, is not supported")
        if member.file_size > LARGEST:
            raise OSError(f"it claims {member.file_size:,} bytes, more than any image has")
        header = read_at(self._file, member.header_offset, 30)
        if header[:4] != b"PK\3\4":
            raise OSError("the zip is damaged at this file")
        begin = member.header_offset + 30 + sum(struct.unpack("<26xHH", header))
        content = read_at(self._file, begin, member.compress_size)
        if member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, max(1, member.file_size))
            except zlib.error as error:
                raise OSError(f"the zip is damaged at this file: {error}") from None
        if zlib.crc32(content) != member.CRC:
            raise OSError("the zip is damaged at this file: wrong checksum")
        return content


def read_at(file, offset, size):
    """`size` bytes of an open file from `offset`, without moving its position, so that threads may share it.

    Raises:
        OSError: the file ends too early, or `size` is more than any image has.
    """
    if not 0 <= size <= LARGEST or offset < 0:
        raise OSError(f"it claims {size:,} bytes")
    content = os.pread(file.fileno(), size, offset)
    if len(content) < size:
        raise OSError(f"{file.name} ends too early")
    return content


def file_mark(file, offset, size):
    """`(size, last bytes)` of a file inside `file`. Compressed images nearly always differ in their last bytes."""
    end = min(size, 512)
    return size, read_at(file, offset + size - end, end)
