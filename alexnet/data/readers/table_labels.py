"""Which column of a table holds the classes, and which one names the images."""

import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers import csv_labels
from alexnet.data.readers.csv_labels import NONE, SEVERAL, Files, Table, plain
from alexnet.data.readers.naming import LABEL_COLUMNS, PART_OF, folder_part, holds_masks, words
from alexnet.recipe import nearest

# Tables of published sets whose columns do not say which of them holds the classes.
_PUBLISHED = ((frozenset(("lesion_id", "image_id", "dx", "dx_type")), "dx"),)
_FEW = 20  # a table with fewer rows may have each class only once


@dataclass
class TableReading:
    """What a table says about the images.

    Attributes:
        table: The `Table`.
        part: `"train"`, `"val"`, `"test"` or None, by the table's name.
        image_column, label_column: Headers; `label_column` names several for one-hot columns.
        images: For each row the number of its image, NONE or SEVERAL.
        labels: For each row its class, None if it has none.
        question: A sentence on what the user must decide, with the parameter's name; or None.
        candidates: `{header: labels}` of columns that could be the classes.
        splits: `(header, part of each row)` if a column names the parts, or None.
        endings: How many files have a different extension in the table.
    """

    table: Table
    part: str | None
    image_column: str
    images: np.ndarray
    label_column: str | None = None
    labels: list | None = None
    question: str | None = None
    candidates: dict = field(default_factory=dict)
    splits: tuple | None = None
    endings: int = 0
    by_name: bool = False  # a header from LABEL_COLUMNS, or one that the user named
    several: set | frozenset = frozenset()  # rows that name several classes
    one_hot: tuple = ()  # headers of the columns of 0 and 1 that are the classes

    @property
    def found(self):
        """How many rows name exactly one image."""
        return int((self.images >= 0).sum())


def read_all(found, listing, recipe):
    """`(readings, remarks)`: the tables that name images, and a sentence on each that does not.

    Args:
        found: `(view, file name, name to show, part or None)` of each table.

    Raises:
        DataError: a table or column that the user names does not exist, or a table cannot be read.
    """
    if recipe.table is not None:
        names = [shown for _, _, shown, _ in found]
        exact = [row for row in found if row[2] == recipe.table]
        found = exact or [row for row in found if os.path.basename(row[2]) == recipe.table]
        if len(found) != 1:
            raise DataError(
                f"data_dir: table: there is no table {recipe.table} here. Tables: {', '.join(names) or 'none'}."
                + nearest(recipe.table, names)
            )
    readings, remarks = [], []
    for view, name, shown, part in found:
        if part == "other":
            if recipe.table is None and not _is_share(shown):
                remarks.append(f"{shown} is not used: its name is that of a sample submission")
                continue
            part = None
        table = csv_labels.read(view, name, recipe.table_encoding)
        if table is None or not len(table):
            remarks.append(f"{shown} is empty")
            continue
        table.name = shown
        reading = _read(listing, table, part, recipe, alone=len(found) == 1)
        if reading is None:
            remarks.append(f"{shown} is not used: none of its {len(table):,} rows names an image ({_columns(table)})")
        else:
            readings.append(reading)
    if readings and recipe.label_column and not any(reading.table.find(recipe.label_column) for reading in readings):
        first = readings[0].table
        raise DataError(
            f"data_dir: label_column: {first.name} has no column {recipe.label_column}. It has {_columns(first)}."
            + nearest(recipe.label_column, list(first.columns))
        )
    if recipe.image_column and found and not readings:
        raise DataError(f"data_dir: image_column {recipe.image_column} names no image: {'; '.join(remarks)}.")
    return readings, remarks


def _is_share(path):
    """Whether a table called `sample` is about a share of the images, not a sample submission: `sample_labels.csv`."""
    stem = words(os.path.splitext(os.path.basename(path))[0])
    others = {word for word in words(path) if PART_OF.get(word) == "other"}
    return others == {"sample"} and ("sample" not in stem or bool({"label", "labels", "metadata"} & set(stem)))


def _columns(table):
    shown = list(table.columns)
    return "columns " + ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _read(listing, table, part, recipe, alone):
    """The `TableReading` of one table, None if it names no image."""
    if recipe.image_column is not None:
        column = table.find(recipe.image_column)
        if column is None:
            if not alone:
                return None
            raise DataError(
                f"data_dir: image_column: {table.name} has no column {recipe.image_column}. It has {_columns(table)}."
            )
        likely = [column]
    else:
        likely = csv_labels.likely_paths(table, listing.names)
        bases = {csv_labels.fold(name).rpartition("/")[2] for name in listing.names}
        if any(csv_labels.fold(header).rpartition("/")[2] in bases for header in table.columns):
            table = table.headless()
            likely = csv_labels.likely_paths(table, listing.names)
    if not likely:
        return None
    matches = _match(table, likely, listing, part)
    matches = {column: match for column, match in matches.items() if (match[0] >= 0).any()}
    if not matches:
        return None
    column, question = _choose_images(table, matches)
    images, endings = matches[column]
    if question is None and (name := _doubtful(table.columns[column], images, listing)) is not None:
        question = (
            f"data_dir: {table.name} has {name} more than once, and files of several parts have this name. Write the "
            "folder before each name, or give each part a table of its own."
        )
    reading = TableReading(table, part, column, images, question=question, endings=endings)
    reading.splits = csv_labels.split_column(table)
    if question is None:
        choose_labels(reading, recipe)
    return reading


def _match(table, columns, listing, part):
    """`Files.match`. A table about all parts may name images in the folder of any, if no name is in several of them."""
    chosen = {column: table.columns[column] for column in columns}
    matches = Files(listing.names, part).match(chosen)
    if part is None:
        ours = Files(listing.names, "train").match(chosen)
        for column, (images, _) in matches.items():
            if (images == SEVERAL).any():
                matches[column] = ours[column]
    return matches


def _doubtful(values, images, listing):
    """A name that is twice in a table and belongs to files of several parts, so each row may mean either. Or None."""
    counts = Counter(values)
    rows = [row for row in np.flatnonzero(images >= 0).tolist() if counts[values[row]] > 1]
    if not rows:
        return None
    parts = {}
    for path in listing.names:
        parts.setdefault(os.path.basename(path), set()).add(folder_part(path))
    return next(
        (values[row] for row in rows if len(parts[os.path.basename(listing.names[int(images[row])])]) > 1), None
    )


def _choose_images(table, matches):
    """`(header, question)`: the column that matches the files; a question if two columns name different files."""
    named = list(matches)
    for fits in (
        lambda column: csv_labels.has_endings(table.columns[column]),
        lambda column: not holds_masks(column),
        lambda column: 2 * len(set(table.columns[column])) > len(table),  # classes may match file names, too
        lambda column: plain(column) not in LABEL_COLUMNS,
    ):
        named = [column for column in named if fits(column)] or named
    rows = {column: sum(map(bool, table.columns[column])) for column in named}
    found = {column: int((matches[column][0] >= 0).sum()) for column in named}
    best = max(named, key=lambda column: (found[column] == rows[column], found[column]))
    images = matches[best][0]
    for column in named:
        others = matches[column][0]
        differ = int(((images >= 0) & (others >= 0) & (images != others)).sum())
        complete = found[best] == rows[best] and found[column] < rows[column]
        if differ and not complete:
            return best, (
                f"data_dir: columns {best} and {column} of {table.name} name different images in {differ:,} rows. "
                "Name the column to use: image_column."
            )
    return best, None


def choose_labels(reading, recipe):
    """Fill in the classes of a `TableReading`, or the question that the user must decide."""
    if recipe.label_column is not None:
        _take_named(reading, recipe.label_column)
        return
    table, rows = reading.table, reading.images != NONE
    others = {
        column: csv_labels.clean_labels(values)
        for column, values in table.columns.items()
        if column != reading.image_column
        and not csv_labels.has_endings(values)
        and not (reading.splits and column == reading.splits[0])
    }
    kinds = {
        column: _kind([label for label, row in zip(labels, rows, strict=True) if row])
        for column, labels in others.items()
    }
    named, reading.question = _called_classes(table, kinds)
    if reading.question is not None:
        return
    several = [] if named else [column for column, kind in kinds.items() if kind == "several"]
    fit = named or [column for column, kind in kinds.items() if kind == "classes"]
    reading.candidates = {column: others[column] for column in fit}
    one_hot = None if named else one_hot_columns(others, rows)
    if one_hot is not None:
        columns, labels = one_hot
        fit = [column for column in fit if column not in columns]
        reading.candidates = {column: others[column] for column in fit} | {"one-hot": labels}
        if all(_same(labels, others[column], rows) for column in fit):
            _take(reading, f"{', '.join(columns[:3])}{', ...' if len(columns) > 3 else ''} (one-hot)", labels, True)
            reading.one_hot = tuple(columns)
            return
    if fit and not several and all(_same(others[fit[0]], others[column], rows) for column in fit[1:]):
        # These columns hold the same classes; text says more than a number.
        text = [column for column in fit if not all(_is_number(label) for label in set(others[column]) - {None})]
        column = (text or fit)[0]
        _take(reading, column, others[column], by_name=bool(named))
    else:
        reading.question = _which_column(reading, several, fit)


def _take_named(reading, asked):
    """Take the column that the user names. Rows with several classes are left out."""
    table, column = reading.table, reading.table.find(asked)
    if column is None:
        reading.question = f"data_dir: {table.name} has no column {asked} (label_column). It has {_columns(table)}."
        return
    labels = csv_labels.clean_labels(table.columns[column])
    if separator := _separator(set(labels)):
        reading.several = {row for row, label in enumerate(labels) if label and separator in label}
        labels = [None if row in reading.several else label for row, label in enumerate(labels)]
    _take(reading, column, labels, by_name=True)


def _called_classes(table, kinds):
    """`(columns, question or None)`: the columns whose names mean classes, and whose values could be classes."""
    named = [column for label in LABEL_COLUMNS for column in kinds if plain(column) == label]
    if named and all(kinds[column] == "empty" for column in named):
        where = f"data_dir: {table.name}"
        return [], f"{where} gives no image a label: column {named[0]} is empty. Name a different one: label_column."
    named = [column for column in named if kinds[column] != "empty"]
    for columns, column in _PUBLISHED:
        if columns <= set(table.columns):
            named = [column]
    unfit = [column for column in named if kinds[column] in _UNFIT]
    if unfit and len(unfit) == len(named):
        return [], _name_another(table, unfit[0], kinds[unfit[0]])
    return [column for column in named if column not in unfit], None


def _name_another(table, column, kind):
    or_left_out = ", or this one to leave out images with several classes" if kind == "several" else ""
    return f"data_dir: {table.name}: column {column} {_UNFIT[kind]}. Name a different one: label_column{or_left_out}."


def _which_column(reading, several, fit):
    """The question that only the user can answer."""
    table = reading.table
    if fit:
        columns = [*several, *fit]
        return (
            f"data_dir: {table.name}: several columns could hold the classes: {', '.join(columns[:6])}"
            f"{', ...' if len(columns) > 6 else ''}; name one: label_column."
        )
    if several:
        return _name_another(table, several[0], "several")
    return (
        f"data_dir: {table.name} names {reading.found:,} images, but none of its columns looks like classes "
        f"({_columns(table)}). Name the one that holds them: label_column."
    )


_UNFIT = {
    "numbers": "holds measured numbers, not classes",
    "unique": "holds a different value in nearly every row, not classes",
    "several": "names several classes for one image",
}


def _take(reading, column, labels, by_name):
    reading.label_column, reading.labels, reading.by_name = column, labels, by_name


def _kind(labels):
    """The kind of a column's values: `empty`, `constant`, `numbers`, `several`, `unique` or `classes`."""
    present = [label for label in labels if label is not None]
    distinct = set(present)
    if not distinct:
        return "empty"
    if all(_is_number(label) for label in distinct) and not all(_is_whole(label) for label in distinct):
        return "numbers"
    if len(present) >= _FEW and len(distinct) > len(present) / 2:
        return "unique"
    if _separator(distinct):
        return "several"
    if len(distinct) == 1:
        return "constant"
    return "classes" if len(distinct) <= max(2, len(present) / 2) else "unique"


def _separator(labels):
    """The separator between several classes of one image; None if each label is one class.

    `|` is a separator if a class occurs in more than one combination. Characters that names may contain are separators
    only if every part is the label of some other image.
    """
    labels = set(labels) - {None}
    parts = [part.strip() for label in labels for part in label.split("|")]
    if any("|" in label for label in labels) and len(parts) > len(set(parts)):
        return "|"
    for separator in (";", ",", " "):
        several = {label for label in labels if separator in label}
        if several and all(part.strip() in labels - several for label in several for part in label.split(separator)):
            return separator
    return None


def _is_number(label):
    try:
        float(label)
    except (TypeError, ValueError):
        return False
    return True


def _is_whole(label):
    return float(label).is_integer()


def one_hot_columns(columns, rows):
    """`(headers, class of each row)` of columns of 0 and 1 with at most one 1 in each row, or None."""
    chosen = {
        column: labels
        for column, labels in columns.items()
        if {label for label, row in zip(labels, rows, strict=True) if row} <= {"0", "1"}
    }
    if len(chosen) < 2:
        return None
    headers = list(chosen)
    values = np.array([[label == "1" for label in labels] for labels in chosen.values()])
    sums = values.sum(0)
    if not rows.any() or (sums[rows] > 1).any() or not (sums[rows] == 1).any():
        return None
    return headers, [headers[k] if count else None for k, count in zip(values.argmax(0), sums, strict=True)]


def _same(first, second, rows):
    """Whether two columns divide the rows into the same classes."""
    pairs = {(a, b) for a, b, row in zip(first, second, rows, strict=True) if row and a is not None and b is not None}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def agrees(labels, images, by_image):
    """`(differ, common)`: in how many of a table's rows the class differs from that in `by_image`, and how many rows
    were compared. Classes may have different names."""
    pairs = {}
    for label, image in zip(labels, images.tolist(), strict=True):
        if image >= 0 and label is not None and image in by_image:
            key = (label, by_image[image])
            pairs[key] = pairs.get(key, 0) + 1
    matched, used = 0, set()
    for (label, name), count in sorted(pairs.items(), key=lambda pair: -pair[1]):
        if label not in used and ("", name) not in used:
            used |= {label, ("", name)}
            matched += count
    total = sum(pairs.values())
    return total - matched, total
