"""Validation images in one folder beside class folders, with a table that gives their classes by the folders' names."""

from dataclasses import replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers import csv_labels, lists, table_labels, table_sources
from alexnet.data.readers.csv_labels import Table
from alexnet.data.readers.naming import LABEL_COLUMNS, plain


def find(view, listing, training, readings, recipe):
    """`(validation source or None, name of its table or None, notes)`, from the tables of flat parts.

    Args:
        training: The source of the class folders.
        readings: `TableReading` of each CSV table. This function looks for text files itself.

    Raises:
        DataError: the table of a part has a column of classes that the folders lack.
    """
    taken = np.zeros(len(listing.names), bool)
    taken[training.indices] = True
    found, notes = [], []
    for reading in (*readings, *read_texts(view, listing)):
        part = reading.part if reading.part in ("val", "test") else None
        images = reading.images[reading.images >= 0]
        if part is None or not len(images) or taken[images].any():
            continue
        if (fitting := _fit(reading, training.class_names, recipe)) is not None:
            found.append((part == "val", reading.found, fitting))
        elif reading.by_name and reading.question is None and recipe.classes_from != "folders":
            raise DataError(
                f"data_dir: column {reading.label_column} of {reading.table.name} has classes "
                f"({_shown(reading.labels)}) that the folders lack ({_shown(training.class_names)}). To ignore the "
                "table, set classes_from: folders."
            )
        elif not any(reading is other for other in readings):
            notes.append(f"{reading.table.name} is not used: none of its columns names the classes of the folders")
    if not found:
        return None, None, notes
    reading = max(found, key=lambda row: row[:2])[2]
    source = table_sources.to_source(view, listing, np.arange(len(reading.labels)), reading, reading.part)
    return source, reading.table.name, notes


def _shown(labels):
    names = csv_labels.sort_labels(label for label in labels if label is not None)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_texts(view, listing, parts=("val", "test")):
    """`TableReading` of text files without headers that describe images, like `val_annotations.txt`. What their other
    columns mean is left open.

    Args:
        parts: Which files to read, by the part that their names say.
    """
    for path, part in lists.find_files(listing).items():
        if not path.lower().endswith(".txt") or part not in parts:
            continue
        try:
            rows = lists.read_lines(view, path)
        except DataError:  # too large, so it is not a table either
            continue
        if not rows or len(rows[0]) < 2:
            continue
        table = Table(path, [""] * len(rows[0]), rows)
        matches = csv_labels.Files(listing.names, part).match(
            {column: table.columns[column] for column in csv_labels.likely_paths(table, listing.names)}
        )
        for column, (images, endings) in matches.items():
            if 2 * (images >= 0).sum() > len(table):
                yield table_labels.TableReading(table, part, column, images, endings=endings)
                break


def _fit(reading, class_names, recipe):
    """The reading with names of classes as its labels; None if no column has them, or several do.

    A column of whole numbers counts only if its header says that it holds classes: a coordinate may look like one.
    """
    found = {}
    for column, values in reading.table.columns.items():
        labels = csv_labels.clean_labels(values)
        named = plain(column) in LABEL_COLUMNS or column == reading.table.find(recipe.label_column or "")
        for translate in _translations(class_names):
            own = [label if label is None else translate(label) for label in labels]
            if column == reading.image_column or any(
                a is not None and b is None for a, b in zip(labels, own, strict=True)
            ):
                continue
            text = not all(label is None or label.isdecimal() for label in labels)
            if any(own) and (named or text and len(set(own) - {None}) > 1):
                found[column] = (named, own)
                break
    best = [column for column in found if found[column][0]] or list(found)
    if not best or any(found[column][1] != found[best[0]][1] for column in best[1:]):
        return None
    return replace(reading, label_column=best[0], labels=found[best[0]][1], question=None)


def _translations(class_names):
    """Functions from a label to the class that it means, or None: by the whole name, the first word, or the number."""
    names = {name: name for name in class_names}
    yield names.get
    folded = {name.casefold(): name for name in class_names}
    yield lambda label: folded.get(label.casefold())
    yield lambda label: names.get(_before_boxes(label))
    if all(name.isdecimal() for name in class_names):
        numbers = {int(name): name for name in class_names}
        if len(numbers) == len(class_names):
            yield lambda label: numbers.get(int(label)) if label.isdecimal() else None


def _before_boxes(label):
    """The class in `n01440764 10 20 200 300 n01440764 5 6 7 8`; None for any other text of several words."""
    first, *others = label.split()
    return first if all(word == first or word.isdecimal() for word in others) else None
