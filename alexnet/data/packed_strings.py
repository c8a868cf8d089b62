"""Many names in little memory."""

import os
from collections.abc import Iterable, Sequence

import numpy as np


class PackedStrings(Sequence):
    """Many file names in one piece of memory: a million take tens of megabytes, and load almost at once.

    Args:
        text: All names as bytes, one after the other.
        ends: Where each name ends, `(n,)` int64.
    """

    def __init__(self, text: bytes, ends: np.ndarray):
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str]) -> "PackedStrings":
        encoded = [os.fsencode(name) for name in names]
        return cls(b"".join(encoded), np.cumsum([len(name) for name in encoded], dtype=np.int64))

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, index):
        index = range(len(self))[index]
        return os.fsdecode(self.text[self.ends[index - 1] if index else 0 : self.ends[index]])
