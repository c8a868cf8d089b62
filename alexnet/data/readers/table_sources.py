"""From the readings of tables to labeled images of each part."""

import os
from dataclasses import replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers import csv_labels
from alexnet.data.readers.csv_labels import NONE, SEVERAL
from alexnet.data.readers.naming import folder_part, holds_masks, words
from alexnet.data.readers.table_labels import agrees, one_hot_columns
from alexnet.data.source import (
    DUPLICATES,
    MASKS,
    NO_FILE,
    NO_LABEL,
    NO_ROW,
    OTHER_SPLITS,
    SEVERAL_LABELS,
    LabeledImages,
    merge_passed_over,
)


def to_sources(view, listing, readings, remarks, test_only=False):
    """`(training, validation or None)` from the readings of tables.

    Raises:
        DataError: a question is open, or tables contradict each other, share images, or give no image a label.
    """
    training, others = _choose_tables(readings)
    shares, remarks = _shares(training, listing), list(remarks)
    for other in others:
        reading = _like(training, other)
        if reading is None:
            remarks.append(f"{other.table.name} is not used: it has no labels in {training.label_column}")
            continue
        for part, share in _shares(reading, listing).items():
            part = reading.part if part in ("train", None) else part
            if part in shares and shares[part][1] is not reading and reading.part != "train":
                continue
            shares[part] = share
    used = {}
    for rows, reading in shares.values():
        for image in reading.images[rows].tolist():
            if image >= 0 and used.setdefault(image, reading) is not reading:
                raise DataError(
                    f"data_dir: {used[image].table.name} and {reading.table.name} share images, such as "
                    f"{listing.names[image]}, and no image may be in both training and validation. Name the table to "
                    "use: table."
                )
    parts = {part: to_source(view, listing, *share, part) for part, share in shares.items()}
    first = parts.get("train") or parts.get(None)
    second = parts.get("val") or parts.get("test")
    if first is None and second is None:
        raise DataError(f"data_dir: {view.name}/{readings[0].table.name} gives no image a label.")
    passed_over = _left(listing, used, {reading.table.name for reading in readings})
    if parts.get("val") and parts.get("test"):
        names = PackedStrings.of(parts["test"].name(index) for index in range(len(parts["test"])))
        passed_over = merge_passed_over(passed_over, ((OTHER_SPLITS, names),))
    keeper = first if first is not None else second
    notes = tuple(remarks) + sum((reading.table.notes for reading in [training, *others]), ())
    keeper = replace(keeper, passed_over=merge_passed_over(keeper.passed_over, passed_over), notes=keeper.notes + notes)
    return (keeper, second) if first is not None else (None, keeper)


def _like(training, reading):
    """The `TableReading` of a different part by the same columns as `training`. None if it lacks them, and no other
    header says that its column holds classes."""
    columns = training.one_hot or (training.label_column,)
    if reading.question is None and (reading.label_column == training.label_column or reading.by_name):
        same = reading
    elif set(columns) <= set(reading.table.columns):
        values = {column: csv_labels.clean_labels(reading.table.columns[column]) for column in columns}
        labels = (
            values[columns[0]]
            if not training.one_hot
            else (one_hot_columns(values, reading.images != NONE) or (0, []))[1]
        )
        same = replace(reading, labels=labels, label_column=training.label_column, question=None)
    else:
        return None
    return same if any(label is not None for label in same.labels) else None


def _choose_tables(readings):
    """`(the reading of the training images, those of other parts)`."""
    first = [reading for reading in readings if reading.part in ("train", None)]
    others = [reading for reading in readings if reading.part in ("val", "test")]
    if not first:
        known = [reading for reading in others if not reading.question]
        if not known:
            raise DataError(others[0].question)
        return known[0], [reading for reading in others if reading is not known[0]]
    open_ = [reading for reading in first if reading.question]
    known = [reading for reading in first if not reading.question]
    known = [reading for reading in known if reading.by_name] or known
    if not known:
        raise DataError(max(open_, key=lambda reading: reading.found).question)
    best = max(known, key=lambda reading: (reading.part == "train", reading.found))
    for reading in known:
        if reading is best:
            continue
        by_image = {image: label for image, label in zip(best.images.tolist(), best.labels, strict=True) if image >= 0}
        differ, common = agrees(reading.labels, reading.images, by_image)
        labeled = sum(i >= 0 and b is not None for i, b in zip(reading.images.tolist(), reading.labels, strict=True))
        if differ or common < labeled:
            raise DataError(
                f"data_dir: {best.table.name} (column {best.label_column}) and {reading.table.name} (column "
                f"{reading.label_column}) give images different classes. Name the table to use: table."
            )
    return best, others


def _shares(reading, listing):
    """`{part: (rows, reading)}`, by a column that names the part, or by the folders of the images."""
    if reading.splits:
        parts = np.array(reading.splits[1])
    else:
        named, ours = reading.part or "train", reading.part in (None, "train")
        parts = np.array(
            [(ours and i >= 0 and folder_part(listing.names[i])) or named for i in reading.images.tolist()]
        )
        parts[parts == "other"] = named  # the table counts more than a folder called sample
    return {str(part): (np.flatnonzero(parts == part), reading) for part in dict.fromkeys(parts.tolist())}


def to_source(view, listing, rows, reading, part):
    """`LabeledImages` that some rows name; None if no row has a label. A faulty row affects only its own image."""
    table, column = reading.table.name, reading.table.columns[reading.image_column]
    labels, unreadable, no_label, several, no_file, duplicates = {}, dict(listing.unreadable), [], [], [], []
    broken = set()
    for row in rows.tolist():
        image, name, label = int(reading.images[row]), column[row], reading.labels[row]
        if not name:
            continue
        if label is None:
            (several if row in reading.several else no_label).append(name)
        elif image == NONE:
            unreadable[name] = f"is in {table}, but there is no such file"
            no_file.append(name)
        elif image == SEVERAL:
            unreadable[name] = f"is in {table}, but several files have this name"
            no_file.append(name)
        elif image not in labels:
            labels[image] = label
        elif labels[image] != label:
            unreadable[name] = f"has two labels in {table}, {labels[image]} and {label}"
            broken.add(image)
        else:
            duplicates.append(name)
    for image in broken:
        labels.pop(image)
    if not labels:
        return None
    classes = csv_labels.sort_labels(labels.values())
    number = {name: label for label, name in enumerate(classes)}
    indices = np.array(sorted(labels), np.int64)
    found = np.array([number[labels[index]] for index in indices.tolist()], np.int32)
    passed_over = ((NO_LABEL, no_label), (SEVERAL_LABELS, several), (NO_FILE, no_file), (DUPLICATES, duplicates))
    notes = [f"{reading.endings:,} files have a different extension in {table}"] if reading.endings else []
    if folded := _alike(classes):
        notes.append(f"classes that differ only in case: {' and '.join(folded)}")
    origin = table if not reading.splits else f"column {reading.splits[0]} of {table}"
    return LabeledImages(
        view.reader(listing.names),
        indices,
        found,
        classes,
        f"images beside {os.path.basename(table)}",
        tuple(unreadable.items()),
        labels_from=f"column {reading.label_column} of {table}",
        paths_from=f"column {reading.image_column} of {table}",
        origin=origin if part not in (None, "train") else "",
        passed_over=tuple((reason, PackedStrings.of(names)) for reason, names in passed_over if names),
        notes=tuple(notes),
    )


def _alike(classes):
    seen = {}
    for name in classes:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            return other, name
    return None


def _left(listing, used, names_of_tables):
    """`passed_over` of the other files, without the tables. Images that no row names have a reason by their folders."""
    groups = {}
    for index, path in enumerate(listing.names):
        if index not in used:
            folders = path.split("/")[:-1]
            if any(holds_masks(folder) and len(words(folder)) <= 2 for folder in folders):
                reason = MASKS
            elif folder_part(path) not in (None, "train"):
                reason = OTHER_SPLITS
            else:
                reason = NO_ROW
            groups.setdefault(reason, []).append(path)
    others = [
        (reason, [name for name in names if name not in names_of_tables]) for reason, names in listing.passed_over
    ]
    return merge_passed_over(others, groups.items())
