"""Reads tar files in place, including the tars inside them."""

import os
import tarfile
import time

import numpy as np

from alexnet.data import listing
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers.filesystem import file_mark, read_at
from alexnet.data.source import EncodedReader


class TarReader(EncodedReader):
    """Files that are stored one after the other in a large one, as in a tar.

    Args:
        path: The large file.
        names: `PackedStrings` of the files in it.
        offsets: The first byte of each, int64 `(n,)`.
        sizes: How many bytes each has, int64 `(n,)`.
    """

    has_marks = True

    def __init__(self, path, names, offsets, sizes):
        self.path = str(path)
        self.names = names
        self.offsets = offsets
        self.sizes = sizes
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - read as long as the reader lives

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return f"{self.path}/{self.names[index]}"

    def read(self, index):
        return read_at(self._file, int(self.offsets[index]), int(self.sizes[index]))

    def mark(self, index):
        return file_mark(self._file, int(self.offsets[index]), int(self.sizes[index]))


def list_tar(
    path: str | os.PathLike, cache: str | os.PathLike | None = None
) -> tuple[TarReader, np.ndarray, list[str], tuple]:
    """`(TarReader, group of each file, group names, unreadable)` of the regular files in an uncompressed tar.

    A member that is itself a tar is a group, named after the tar without its extension, and its files are listed.
    Files of the outer tar belong to the group "".

    Raises:
        OSError: the tar cannot be read.
        tarfile.TarError: the file is not a tar, or its end is missing.
    """
    path = os.path.abspath(path)
    status = os.stat(path)
    stamp = [status.st_mtime_ns, status.st_size]
    saved = listing.load_remembered(
        cache, path, ("text", "ends", "offsets", "sizes", "group", "groups", "group_ends", "times")
    )
    if saved is not None and saved["times"].tolist() == stamp:
        groups = list(PackedStrings(saved["groups"].tobytes(), saved["group_ends"]))
        names = PackedStrings(saved["text"].tobytes(), saved["ends"])
        return TarReader(path, names, saved["offsets"], saved["sizes"]), saved["group"], groups, ()
    found, groups, unreadable = [], [""], []
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as outer:
        for member in outer:
            if member.isreg() and member.name.endswith(".tar"):
                groups.append(os.path.basename(member.name)[:-4])
                try:
                    with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                        found += _regular(inner, f"{member.name}/", member.offset_data, len(groups) - 1)
                except tarfile.TarError as error:
                    unreadable.append((f"{path}/{member.name}", f"cannot be listed ({error})"))
            elif member.isreg():
                found.append((member.name, member.offset_data, member.size, 0))
    found.sort()
    names = PackedStrings.of(row[0] for row in found)
    offsets, sizes, group = np.array([row[1:] for row in found], np.int64).reshape(-1, 3).T.copy()
    if len(found) > listing.REMEMBERED and not unreadable and stamp[0] < time.time_ns() - listing.RACY_NS:
        group_names = PackedStrings.of(groups)
        listing.remember(
            cache,
            path,
            text=np.frombuffer(names.text, np.uint8),
            ends=names.ends,
            offsets=offsets,
            sizes=sizes,
            group=group,
            groups=np.frombuffer(group_names.text, np.uint8),
            group_ends=group_names.ends,
            times=np.array(stamp),
        )
    return TarReader(path, names, offsets, sizes), group, groups, tuple(unreadable)


def _regular(archive, prefix, begin, group):
    """`(name, offset, size, group)` of the regular files in a tar that begins at `begin` of another file."""
    return [
        (prefix + member.name, begin + member.offset_data, member.size, group) for member in archive if member.isreg()
    ]
