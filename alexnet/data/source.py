"""What a layout's detector returns: numbered images that are not read yet, and the class of each."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alexnet.data import decoding
from alexnet.data.errors import DataError, ImageError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.pixel_stats import PixelStats

# Why a file, or a row of a table, is not among the images.
ENDING = "extension not read"
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


class ImageReader:
    """Images numbered from 0: where they are and how one is read. A layout that stores them in its own way has a
    subclass, beside its detector.

    A subclass defines `__len__`, `name` and `image`; the other methods have defaults. For files of images, see
    `EncodedReader`. Several threads call a reader at once. Example:

        class ArrayReader(ImageReader):
            def __init__(self, array):
                self.array = array

            def __len__(self):
                return len(self.array)

            def name(self, index):
                return str(index)

            def image(self, index, size):
                return decoding.resize_image(Image.fromarray(self.array[index]), size)

    Attributes:
        is_decoded: Whether reading costs so little that keeping images in memory gains nothing.
        pixel_stats: `PixelStats` of the training images if the data set comes with them, otherwise None.
        size: Side in pixels of the largest images that it can return; None for any size.
        has_marks: Whether `mark` and `read` are available.
    """

    is_decoded: bool = False
    pixel_stats: PixelStats | None = None
    size: int | None = None
    has_marks: bool = False

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The name of the image at `index` in messages: its path, or its number."""
        raise NotImplementedError

    def key(self, index: int) -> str:
        """A name that stays the same when the data set moves."""
        return os.path.basename(self.name(index))

    def image(self, index: int, size: int) -> np.ndarray:
        """The image at `index`, its shorter side resized to `size` and the central square cut out:
        `(size, size, 3)` uint8 RGB.

        Raises:
            ImageError: it cannot be read.
        """
        raise NotImplementedError

    def images(self, indices: np.ndarray, size: int) -> list:
        """A list of such images, with an `ImageError` for each that cannot be read."""
        found: list[np.ndarray | ImageError] = []
        for index in indices:
            try:
                found.append(self.image(index, size))
            except ImageError as error:
                found.append(error)
        return found

    def image_size(self, index: int) -> tuple:
        """`(width, height)` of the image at `index`, without decoding it.

        Raises:
            ImageError: it cannot be read.
        """
        return self.size, self.size

    def mark(self, index: int) -> Any:
        """A hashable value that equal files share and most others do not, faster to get than the whole file.

        Raises:
            OSError: it cannot be read.
        """
        raise NotImplementedError

    def read(self, index: int) -> bytes:
        """The content of the file at `index`, or the bytes of an array's image.

        Raises:
            OSError: it cannot be read.
        """
        raise NotImplementedError


class EncodedReader(ImageReader):
    """Images in files of JPEG, PNG, ..., wherever these are. A subclass defines `__len__`, `name` and `read`.

    Attributes:
        max_pixels, white_level: Arguments for `decoding.decode_image`, which may be set from outside.
    """

    max_pixels: int = decoding.MAX_PIXELS
    white_level: float | None = None

    def image_size(self, index):
        return decoding.image_size(self._read(index), self.name(index))

    def image(self, index, size):
        return decoding.decode_image(self._read(index), size, self.name(index), self.max_pixels, self.white_level)

    def _read(self, index):
        try:
            return self.read(index)
        except OSError as error:
            raise ImageError(self.name(index), f"cannot be read ({error.strerror or error})") from None


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images that are not read yet: what a detector finds for each part of a data set.

    Attributes:
        reader: `ImageReader` of these images, and perhaps of others.
        indices: Which of the reader's images these are, int64 `(n,)`.
        labels: int32 `(n,)`, indices into `class_names`.
        class_names: A name for each class.
        layout: What was recognized, in words.
        unreadable: `(name, reason)` of each folder that could not be listed, and each row of a table without an image.
        labels_from: Where the classes come from: "the names of the folders", "column label of train.csv".
        paths_from: Where the list of images comes from, if that is a table: "column image_id of train.csv".
        origin: Where this part of the data set comes from: "val/", "test.csv"; "" if there is only one part.
        passed_over: `(reason, names)` of files that are not among the images, one pair for each reason.
        notes: Sentences on decisions that might surprise: an encoding, a range of pixels.
        few: Classes so small that the share to hold out is less than one image; one was held out all the same.
    """

    reader: ImageReader
    indices: np.ndarray
    labels: np.ndarray
    class_names: list
    layout: str
    unreadable: tuple = ()
    labels_from: str = ""
    paths_from: str = ""
    origin: str = ""
    passed_over: tuple = ()
    notes: tuple = ()
    few: tuple = ()

    @classmethod
    def whole(
        cls,
        reader: ImageReader,
        labels: Any,
        class_names: Sequence[str],
        layout: str,
        unreadable: Any = (),
        **fields: Any,
    ) -> "LabeledImages":
        """`LabeledImages` of all images of a reader."""
        indices, labels = np.arange(len(reader)), np.asarray(labels, np.int32)
        return cls(reader, indices, labels, list(class_names), layout, unreadable, **fields)

    def __len__(self):
        return len(self.labels)

    def name(self, index: int) -> str:
        """The name of the image at `index`: its path, or its number in an array."""
        return self.reader.name(self.indices[index])

    def key(self, index: int) -> str:
        """A name that stays the same when the data set moves: without the folders above."""
        return self.reader.key(self.indices[index])

    def images(self, indices: np.ndarray, size: int) -> list:
        """See `ImageReader.images`."""
        return self.reader.images(self.indices[indices], size)

    def digest(self) -> str:
        """A checksum of the images' names, order and classes, which does not depend on where the folder is."""
        found = hashlib.sha256(json.dumps(self.class_names).encode() + self.labels.astype("<i4").tobytes())
        for index in range(len(self)):
            found.update(os.path.basename(self.name(index)).encode(errors="surrogateescape") + b"\n")
        return found.hexdigest()

    def take(self, indices: np.ndarray) -> "LabeledImages":
        """Some of the images, in this order."""
        return replace(self, indices=self.indices[indices], labels=self.labels[indices])

    def relabeled(self, class_names: Sequence[str]) -> "LabeledImages":
        """The same images with their labels as indices into a model's `class_names`.

        Raises:
            DataError: a class that the model does not have.
        """
        if list(class_names) == list(self.class_names):
            return self
        if unknown_classes := sorted(set(self.class_names) - set(class_names)):
            raise DataError(
                f"data_dir: the model lacks class{'es' * (len(unknown_classes) > 1)} {', '.join(unknown_classes[:5])}"
                f"{' ...' if len(unknown_classes) > 5 else ''}. "
                f"It has {len(class_names)}: {', '.join(class_names[:5])}{' ...' if len(class_names) > 5 else ''}"
            )
        place = np.array([class_names.index(name) for name in self.class_names], np.int32)
        return replace(self, labels=place[self.labels], class_names=list(class_names))


Parts = tuple[LabeledImages | None, LabeledImages | None]  # for training, for validation


def common_size(sources: Iterable[LabeledImages], wanted: int) -> int:
    """The size that the images of all sources can have: `wanted`, or less if they are stored smaller."""
    return min([wanted, *(source.reader.size for source in sources if source.reader.size is not None)])


def merge_passed_over(*groups: Iterable) -> tuple:
    """Several `passed_over` merged; each reason has each name once."""
    found: dict = {}
    for group in groups:
        for reason, names in group:
            found.setdefault(reason, {}).update(dict.fromkeys(names))
    return tuple((reason, PackedStrings.of(names)) for reason, names in found.items() if names)
