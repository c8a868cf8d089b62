"""Oxford's flowers: numbered images, with their classes and parts in MATLAB's files."""

import os
import re

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers.filesystem import DirectoryView
from alexnet.data.readers.lists import load_mat
from alexnet.data.source import NO_ROW, OTHER_SPLITS, LabeledImages, Parts
from alexnet.recipe import Recipe

LABELS, PARTS = "imagelabels.mat", "setid.mat"
_NUMBER = re.compile(r"image_0*(\d+)")


def detect(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """`(training, validation or None)` of `image_00001.jpg`, ... beside `imagelabels.mat` and `setid.mat`, or None.

    Raises:
        DataError: these files do not fit the images.
    """
    if LABELS not in view.files:
        return None
    labels = _arrays(view, LABELS, "labels")["labels"]
    listing = view.list_images()
    images: dict = {}
    others = []
    for index, name in enumerate(listing.names):
        match = _NUMBER.fullmatch(os.path.splitext(os.path.basename(name))[0])
        number = int(match[1]) if match else 0
        if not 0 < number <= len(labels):
            others.append(name)
        elif images.setdefault(number, index) != index:
            raise DataError(f"data_dir: {view.name} holds image {number} of {LABELS} twice: {name}.")
    if not images:
        return None
    none = np.zeros(0, np.int64)
    parts = {"trnid": np.arange(1, len(labels) + 1), "valid": none, "tstid": none}
    if PARTS in view.files:
        parts = _arrays(view, PARTS, "trnid", "valid", "tstid")
    numbers = np.concatenate(list(parts.values()))
    if len(set(numbers.tolist())) != len(numbers) or not all(0 < number <= len(labels) for number in numbers):
        raise DataError(f"data_dir: {view.name}: {PARTS} does not fit {LABELS}, which has {len(labels):,} labels.")
    left = [listing.names[images[number]] for number in parts["tstid"] if number in images]
    passed_over = [(reason, names) for reason, names in listing.passed_over]
    for reason, names in ((OTHER_SPLITS, left), (NO_ROW, others)):
        if names:
            passed_over.append((reason, PackedStrings.of(names)))
    classes = np.unique(labels)
    reader = view.reader(listing.names)

    def source(part, origin, passed_over=()):
        found = sorted((images[number], labels[number - 1]) for number in parts[part] if number in images)
        missing = [number for number in parts[part] if number not in images]
        if not found:
            return None
        indices, own = np.array(found, np.int64).T
        return LabeledImages(
            reader,
            indices,
            np.searchsorted(classes, own).astype(np.int32),
            [str(label) for label in classes],
            "images beside MATLAB's files",
            (*listing.unreadable, *((f"image_{number:05d}", f"is in {LABELS}, but not here") for number in missing)),
            labels_from=LABELS,
            origin=origin,
            passed_over=tuple(passed_over),
        )

    return source("trnid", "", passed_over), source("valid", f"valid in {PARTS}")


def _arrays(view, name, *keys):
    """`{key: whole numbers (n,)}` from one file."""
    found = load_mat(view, name, view.read(name))
    try:
        return {key: found[key].reshape(-1).astype(np.int64) for key in keys}
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"data_dir: {view.name}/{name} cannot be used ({type(error).__name__}: {error}).") from None
