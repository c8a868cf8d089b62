"""Labelled images: a store, and which class each of its images belongs to."""

import hashlib
import json
import os
from dataclasses import dataclass, replace

import numpy as np

from alexnet.data.stores import ImageReader

# Why a file, or a row of a table, is not among the images.
ENDING = "ending not read"
HIDDEN = "hidden"
NO_ROW = "no row in the table"
NO_FILE = "no file for a row"
NO_LABEL = "no label"
NO_LIST = "in no list of parts"
SEVERAL_LABELS = "several labels"
MASKS = "masks"
OTHER_SPLITS = "other splits"
DUPLICATES = "duplicates"
OUTSIDE = "outside the class folders"


class DataError(ValueError):
    """A `data_dir` that cannot be used, in one sentence."""


@dataclass(frozen=True)
class LabeledImages:
    """Labelled images that are not read yet.

    Attributes:
        store: `ImageReader` of the images, and perhaps of others.
        indices: Which of the store's images these are, int64 `(n,)`.
        labels: int32 `(n,)`, indices into `class_names`.
        class_names: A name for each class.
        kind: The layout that was recognized, in words.
        labels_from: What says which class an image belongs to: "the folders' names", "column label of train.csv".
        paths_from: What says which images there are, where that is a table: "column image_id of train.csv".
        origin: Where this part of the data set lies: "val/", "test.csv"; "" where there is one part only.
        unreadable: `(name, reason)` of each folder that could not be listed, and row of a table that leads to no image.
        passed_over: `(reason, names)` of what lies there and is not among the images, one pair for each reason.
        few: Classes of which the share held out is less than one image, so that one was taken all the same.
        notes: Sentences on what was decided and might surprise: an encoding, a range of pixels.
    """

    store: ImageReader
    indices: np.ndarray
    labels: np.ndarray
    class_names: list
    kind: str
    unreadable: tuple = ()
    labels_from: str = ""
    paths_from: str = ""
    origin: str = ""
    passed_over: tuple = ()
    notes: tuple = ()
    few: tuple = ()

    @classmethod
    def whole(cls, store, labels, class_names, kind, unreadable=(), **fields):
        """All images of a store."""
        indices, labels = np.arange(len(store)), np.asarray(labels, np.int32)
        return cls(store, indices, labels, list(class_names), kind, unreadable, **fields)

    def __len__(self):
        return len(self.labels)

    def name(self, index):
        """What the image at `index` is called: its path, or its number in an array."""
        return self.store.name(self.indices[index])

    def key(self, index):
        """A name that stays when the data set moves: without the folders above."""
        return self.store.key(self.indices[index])

    def squares(self, indices, size):
        """As `ImageReader.squares`."""
        return self.store.squares(self.indices[indices], size)

    def digest(self):
        """A checksum of the images' names, their order and classes, the same wherever the folder lies."""
        found = hashlib.sha256(json.dumps(self.class_names).encode() + self.labels.astype("<i4").tobytes())
        for index in range(len(self)):
            found.update(os.path.basename(self.name(index)).encode(errors="surrogateescape") + b"\n")
        return found.hexdigest()

    def take(self, indices):
        return replace(self, indices=self.indices[indices], labels=self.labels[indices])

    def relabelled(self, class_names):
        """The same images with their labels as indices into a model's `class_names`.

        Raises:
            DataError: a class that the model does not have.
        """
        if list(class_names) == list(self.class_names):
            return self
        if strangers := sorted(set(self.class_names) - set(class_names)):
            raise DataError(
                f"data_dir: the model knows no class {', '.join(strangers[:5])}{' ...' if len(strangers) > 5 else ''}. "
                f"It has {len(class_names)}: {', '.join(class_names[:5])}{' ...' if len(class_names) > 5 else ''}"
            )
        place = np.array([class_names.index(name) for name in self.class_names], np.int32)
        return replace(self, labels=place[self.labels], class_names=list(class_names))


def side_of(sources, wanted):
    """The side of squares that all sources have: `wanted`, or less where they are stored smaller."""
    return min([wanted, *(source.store.size for source in sources if source.store.size is not None)])


class SquareCache:
    """Squares of a source, kept in memory after their first decoding if `keep` is true."""

    def __init__(self, source, size, keep):
        self.source = source
        self.size = size
        self._kept = np.empty((len(source), size, size, 3), np.uint8) if keep else None
        self._present = np.zeros(len(source), bool)

    def __getitem__(self, indices):
        """A list of squares `(size, size, 3)` uint8; in the place of one that cannot be read stands its error."""
        if self._kept is None:
            return self.source.squares(indices, self.size)
        # Two threads may both decode an image; they write the same pixels, so no lock is needed.
        missing = indices[~self._present[indices]]
        found = dict(zip(missing.tolist(), self.source.squares(missing, self.size), strict=True))
        for index, square in found.items():
            if isinstance(square, np.ndarray):
                self._kept[index] = square
                self._present[index] = True
        return [self._kept[i] if self._present[i] else found[i] for i in indices.tolist()]
