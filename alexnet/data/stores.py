"""Where images lie, each known by a number and not read yet: a folder of files, or an array in memory."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from alexnet.data import decoding
from alexnet.data.decoding import ImageError


class Names(Sequence):
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


class Store:
    """Images by number.

    Attributes:
        fast: Whether reading costs so little that keeping squares in memory gains nothing.
        colors: `Colors` of the images where the store knows them, otherwise None.
    """

    fast = False
    colors = None

    def __len__(self):
        raise NotImplementedError

    def name(self, index):
        """What the image at `index` is called in messages: its path, or its number."""
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


class Encoded(Store):
    """Images that lie there as files do."""

    def read(self, index):
        """The content of the file at `index`, bytes.

        Raises:
            OSError: it cannot be read.
        """
        raise NotImplementedError

    def square(self, index, size):
        try:
            content = self.read(index)
        except OSError as error:
            raise ImageError(self.name(index), f"cannot be read ({error.strerror or error})") from None
        return decoding.decode_square(content, size, self.name(index))


class Folder(Encoded):
    """Files below one folder.

    Args:
        root: The folder.
        names: `Names` of the files, relative to it.
    """

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


class Arrays(Store):
    """One uint8 array `(n, height, width)` or `(n, height, width, 3)`."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def name(self, index):
        return str(index)

    def square(self, index, size):
        return decoding.square(decoding.to_rgb(Image.fromarray(self.array[index])), size)
