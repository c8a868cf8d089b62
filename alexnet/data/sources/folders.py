"""Images in class folders, and images with their class in the file name."""

import os
import re

import numpy as np

from alexnet.data.decoding import EXTENSIONS
from alexnet.data.source import DataError, Source

VALIDATION = ("val", "valid", "validation", "test", "testing")  # the better ones first
_PART = re.compile(rf"(train|training|{'|'.join(VALIDATION)})(?:[ _-]?set)?", re.IGNORECASE)
# A class, then a number: cat.0, Abyssinian_100, "cat (1)".
_NUMBERED = re.compile(r"(.*[^\W\d_])[ ._-]+\(?\d+\)?")
LAYOUTS = (
    "class folders, train/ and val/ with class folders, images named by class and number (cat.0.jpg), images beside a "
    "CSV, ImageNet as Kaggle or as ILSVRC ships it, an .npz with x_train and y_train, a data set of Hugging Face, "
    "a packed set, or a .zip of one of these"
)


def find(tree, test_only=False):
    """`(training, validation)` of `train/` and its like, or of all images; one of them may be None.

    A second folder without classes, like the `test/` of a competition, is left out.

    Raises:
        DataError: no images, or nothing that says what they show.
    """
    first, second = parts(tree)
    if first is None:
        if second and len(second) == len(tree.folders):
            return None, _required(tree.sub(second[0]))
        return _required(tree), None
    validation = next((source for name in second if (source := labelled(tree.sub(name)))), None)
    return (None if test_only and validation else _required(tree.sub(first))), validation


def parts(tree):
    """`(folder of the training images or None, folders that may hold validation images)`, by their names."""
    found = {name: match[1].lower() for name in tree.folders if (match := _PART.fullmatch(name))}
    first = next((name for name, part in found.items() if part not in VALIDATION), None)
    # Beside aeroplanes and buses, a train is a class.
    if first and len(tree.folders) - len(found) >= 2 and not (inner := tree.sub(first)).folders:
        first = first if in_names(inner.images().names) else None
    return first, sorted(
        (name for name in found if found[name] in VALIDATION), key=lambda n: VALIDATION.index(found[n])
    )


def labelled(tree):
    """The images of a tree with the classes that folders or names give them; None if neither does.

    Raises:
        DataError: there are no images.
    """
    if len(tree.folders) == 1 and len((inner := tree.sub(tree.folders[0])).folders) > 1:
        tree = inner  # test_set/test_set/<class>, as some zips unfold
    listing = tree.images()
    if not len(listing.names):
        refused = f" ({listing.unreadable[0][0]} {listing.unreadable[0][1]})" if listing.unreadable else ""
        raise DataError(
            f"data_dir: {tree.name} holds no images{refused}; expected {os.path.basename(tree.name)}/<class>/<image>, "
            f"images ending in {', '.join(EXTENSIONS)}, or another layout: {LAYOUTS}."
        )
    store = tree.store(listing.names)
    firsts = [directory.partition("/")[0] for directory in listing.directories]
    classes = sorted({first for first, count in zip(firsts, listing.counts, strict=True) if first and count})
    if classes:
        number = {name: label for label, name in enumerate(classes)}
        labels = np.repeat([number.get(first, -1) for first in firsts], listing.counts)
        indices = np.flatnonzero(labels >= 0)
        return Source(store, indices, labels[indices].astype(np.int32), classes, "class folders", listing.unreadable)
    named = in_names(listing.names)
    if named is None:
        return None
    classes, labels = np.unique(named, return_inverse=True)
    return Source.whole(store, labels, classes.tolist(), "classes in the file names", listing.unreadable)


def in_names(names):
    """The class in each file's name, None if these are no such names: they must tell two or more, mostly often."""
    stems = (os.path.splitext(name)[0] for name in names)
    named = [match[1] if (match := _NUMBERED.fullmatch(stem)) else None for stem in stems]
    return named if None not in named and 1 < len(set(named)) <= len(named) / 2 else None


def _required(tree):
    source = labelled(tree)
    if source is None:
        raise DataError(
            f"data_dir: {tree.name} holds images, but nothing that says what they show; understood are {LAYOUTS}."
        )
    return source
