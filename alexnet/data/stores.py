"""Where images lie, each known by a number and not read yet: files, parts of one file, or an array in memory."""

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from alexnet.data import decoding
from alexnet.data.decoding import ImageError

# No image is as large as this; an archive that says so is damaged or made to fill the memory.
LARGEST = 256 * 2**20


class PackedStrings(Sequence):
    """Many file names in one piece of memory: a million of them take tens of megabytes and load in no time.

    Args:
        text: All names as bytes, one after the other.
        ends: Where each of them ends, `(n,)` int64.
    """

    def __init__(self, text, ends):
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, names):
        encoded = [os.fsencode(name) for name in names]
        return cls(b"".join(encoded), np.cumsum([len(name) for name in encoded], dtype=np.int64))

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, index):
        index = range(len(self))[index]
        return os.fsdecode(self.text[self.ends[index - 1] if index else 0 : self.ends[index]])


class ImageReader:
    """Images by number.

    Attributes:
        fast: Whether reading costs so little that keeping squares in memory gains nothing.
        colors: `PixelStats` of the images where the store knows them, otherwise None.
        size: Side of the largest squares that it has, None for any.
        has_marks: Whether `mark` and `read` have something.
    """

    fast = False
    has_marks = False
    colors = None
    size = None

    def __len__(self):
        raise NotImplementedError

    def name(self, index):
        """What the image at `index` is called in messages: its path, or its number."""
        raise NotImplementedError

    def key(self, index):
        """What it is called wherever the data set lies, text."""
        return os.path.basename(self.name(index))

    def image_size(self, index):
        """`(width, height)` of the image at `index`, without decoding it.

        Raises:
            ImageError: it cannot be read.
        """
        return self.size, self.size

    def mark(self, index):
        """Something hashable that equal files share and most others do not, read sooner than a whole file.

        Raises:
            OSError: it cannot be read.
        """
        raise NotImplementedError

    def read(self, index):
        """The content of the file at `index`, or what an array has there, bytes.

        Raises:
            OSError: it cannot be read.
        """
        raise NotImplementedError

    def square(self, index, size):
        """The central square of the image at `index`, `(size, size, 3)` uint8 RGB.

        Raises:
            ImageError: it cannot be read.
        """
        raise NotImplementedError

    def squares(self, indices, size):
        """A list of squares; in the place of one that cannot be read stands its `ImageError`."""
        found = []
        for index in indices:
            try:
                found.append(self.square(index, size))
            except ImageError as error:
                found.append(error)
        return found


class Encoded(ImageReader):
    """Images that lie there as files do.

    Attributes:
        max_pixels, white_level: As `decoding.decode_square` takes them; whoever uses the store may set them.
    """

    max_pixels = decoding.MAX_PIXELS
    white_level = None

    def image_size(self, index):
        return decoding.image_size(self._read(index), self.name(index))

    def square(self, index, size):
        return decoding.decode_square(self._read(index), size, self.name(index), self.max_pixels, self.white_level)

    def _read(self, index):
        try:
            return self.read(index)
        except OSError as error:
            raise ImageError(self.name(index), f"cannot be read ({error.strerror or error})") from None


class Folder(Encoded):
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
            return _mark(file, 0, os.fstat(file.fileno()).st_size)


class TarReader(Encoded):
    """Files that lie one after the other in a large one, as in a tar.

    Args:
        path: The large file.
        names: `PackedStrings` of the files in it.
        offsets: Where each begins, int64 `(n,)`.
        sizes: How many bytes each has, int64 `(n,)`.
    """

    has_marks = True

    def __init__(self, path, names, offsets, sizes):
        self.path = str(path)
        self.names = names
        self.offsets = offsets
        self.sizes = sizes
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - read as long as the store lives

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return f"{self.path}/{self.names[index]}"

    def read(self, index):
        return read_at(self._file, int(self.offsets[index]), int(self.sizes[index]))

    def mark(self, index):
        return _mark(self._file, int(self.offsets[index]), int(self.sizes[index]))


class Zip(Encoded):
    """Files in a zip, read in place by any number of threads: `zipfile` lists them, but would need a lock to read.

    Args:
        path: The zip.
        members: The `zipfile.ZipInfo` of each file.
    """

    has_marks = True

    def __init__(self, path, members):
        self.path = str(path)
        self.members = members
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - read as long as the store lives

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
            raise OSError(f"it is compressed in a way that is not read, {member.compress_type}")
        if member.file_size > LARGEST:
            raise OSError(f"it claims to have {member.file_size:,} bytes, more than an image has")
        header = read_at(self._file, member.header_offset, 30)
        if header[:4] != b"PK\3\4":
            raise OSError("the zip is damaged there")
        begin = member.header_offset + 30 + sum(struct.unpack("<26xHH", header))
        content = read_at(self._file, begin, member.compress_size)
        if member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, max(1, member.file_size))
            except zlib.error as error:
                raise OSError(f"the zip is damaged there: {error}") from None
        if zlib.crc32(content) != member.CRC:
            raise OSError("the zip is damaged there: wrong checksum")
        return content


def read_at(file, offset, size):
    """`size` bytes of an open file from `offset` on, without moving its position, so that threads may share it.

    Raises:
        OSError: the file ends before, or nobody would want so much.
    """
    if not 0 <= size <= LARGEST or offset < 0:
        raise OSError(f"it claims to have {size:,} bytes")
    content = os.pread(file.fileno(), size, offset)
    if len(content) < size:
        raise OSError(f"{file.name} ends too early")
    return content


def _mark(file, offset, size):
    """The size of a file that lies in `file`, and its end, in which compressed images differ."""
    end = min(size, 512)
    return size, read_at(file, offset + size - end, end)


class Arrays(ImageReader):
    """One uint8 array `(n, height, width)` or `(n, height, width, 3)`; a fourth channel is transparency."""

    has_marks = True

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def name(self, index):
        return str(index)

    def image_size(self, index):
        return self.array.shape[2], self.array.shape[1]

    def mark(self, index):
        return hashlib.sha256(self.read(index)).digest()

    def read(self, index):
        return self.array[index].tobytes()

    def square(self, index, size):
        return decoding.square(decoding.to_rgb(Image.fromarray(self.array[index])), size)
