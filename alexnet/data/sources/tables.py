"""Images beside a CSV that says what they show."""

import csv
import io
import os

import numpy as np

from alexnet.data.source import DataError, Source
from alexnet.data.sources import folders

# Names of columns, the better ones first; case, spaces and underscores do not count.
IDS = ("imageid", "id", "image", "imagename", "filename", "file", "filepath", "filepaths", "imagepath", "imagefile",
       "path", "img", "imgname", "idcode")  # fmt: skip
LABELS = ("classname", "labelname", "breed", "species", "variety", "label", "labels", "class", "classes", "category",
          "target", "diagnosis", "classid", "labelid", "categoryid", "level")  # fmt: skip
# Tables of the training images, the likeliest first; with one of these names or any other.
_TRAINING = ("train", "trainlabels", "training", "traininglabels", "labels", "label")
_OTHERS = ("test", "sample", "submission", "solution")  # of a competition: without labels, or with made-up ones


def find(tree, test_only=False):
    """`(training, validation or None)` of a CSV and the images it names; None where there is no such CSV.

    Where the owner has made class folders for training and validation, they say more than a table does.
    """
    tables = [name for name in tree.files if name.lower().endswith(".csv")]
    if not tables or _has_split(tree):
        return None
    stems = {name: _plain(name[:-4]) for name in tables}
    second = [name for name in tables if stems[name].removesuffix("labels") in ("val", "valid", "validation")]
    first = [name for name in tables if name not in second and not stems[name].startswith(_OTHERS)]
    first.sort(key=lambda name: (_TRAINING.index(stems[name]) if stems[name] in _TRAINING else len(_TRAINING), name))
    listing = None
    for name in first:
        rows = _rows(tree, name)
        if rows is None:
            continue
        listing = listing or tree.images()
        training = _match(tree, listing, name, rows, "train")
        if training is None:
            continue
        for name in second:
            if rows := _rows(tree, name):
                return training, _match(tree, listing, name, rows, "val")
        return training, None
    return None


def _has_split(tree):
    first, second = folders.parts(tree)
    return first is not None and bool(tree.sub(first).folders) and any(tree.sub(name).folders for name in second)


def _plain(text):
    return "".join(letter for letter in (text or "").lower() if letter.isalnum())


def _rows(tree, name):
    """`(id, label)` of each row, None if the table has no such columns."""
    text = tree.read(name).decode("utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = {_plain(column): column for column in rows.fieldnames or ()}
        ids = next((columns[column] for column in IDS if column in columns), None)
        labels = next((columns[column] for column in LABELS if column in columns), None)
        if ids is None or labels is None:
            return None
        return [((row[ids] or "").strip(), (row[labels] or "").strip()) for row in rows]
    except csv.Error as error:
        raise DataError(f"data_dir: {tree.name}/{name} cannot be read as CSV ({error}).") from None


def _match(tree, listing, table, rows, part):
    """The images that rows name, among those listed; None if they single out none.

    An id is a file's name with or without its ending, perhaps with folders before it. Images of the other parts, in
    folders that are called so, do not count. What is wrong with a row is its own matter: it is left out and named.
    """
    rows = [(name.replace("\\", "/").removeprefix("./"), label) for name, label in rows if name]
    places = {name: [] for name, _ in rows}
    tops = listing.tops().tolist()
    part_of = {top: _part(top) for top in set(tops)}
    for index, (path, top) in enumerate(zip(listing.names, tops, strict=True)):
        if part_of[top] not in (None, part):
            continue
        while True:
            for key in (path, os.path.splitext(path)[0]):
                if key in places:
                    places[key].append(index)
            before, slash, path = path.partition("/")
            if not slash:
                break
    if not any(len(found) == 1 for found in places.values()):
        return None
    labels, unreadable = {}, dict(listing.unreadable)
    for name, label in rows:
        if not label:
            unreadable[name] = f"has no label in {table}"
        elif not places[name]:
            unreadable[name] = f"is in {table}, but there is no such file"
        elif len(places[name]) > 1:
            unreadable[name] = f"is in {table}, but {len(places[name])} files are called so"
        elif labels.setdefault(places[name][0], label) != label:
            unreadable[name] = f"has two labels in {table}, {labels[places[name][0]]} and {label}"
    for name in unreadable.keys() & places.keys():
        for index in places[name]:
            labels.pop(index, None)
    if not labels:
        raise DataError(f"data_dir: {tree.name}/{table} gives no image a label.")
    classes = sort_labels(labels.values())
    number = {name: label for label, name in enumerate(classes)}
    indices = np.array(sorted(labels), np.int64)
    found = np.array([number[labels[index]] for index in indices.tolist()], np.int32)
    return Source(
        tree.store(listing.names), indices, found, classes, f"images beside {table}", tuple(unreadable.items())
    )


def _part(folder):
    """Which part a folder holds by its name, like `train_images`; None if that does not tell."""
    folder = folder.lower()
    return next((part for part in ("train", "val", "test") if folder.startswith(part)), None)


def sort_labels(labels):
    """Each label once: as numbers where all are, otherwise as text."""
    labels = set(labels)
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)
