"""Which column of a table says what images show, and which says which images."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from alexnet.data.readers import csv_labels
from alexnet.data.readers.csv_labels import NONE, SEVERAL, Files, Table, plain
from alexnet.data.readers.parts import PART_OF, holds_masks, is_plain_part, part_of, words
from alexnet.data.source import (
    DUPLICATES,
    MASKS,
    NO_FILE,
    NO_LABEL,
    NO_ROW,
    OTHER_SPLITS,
    SEVERAL_LABELS,
    DataError,
    LabeledImages,
)
from alexnet.data.stores import PackedStrings
from alexnet.recipe import nearest

# Headers of columns of classes, names before numbers; case, spaces and underscores do not count.
LABELS = ("classname", "labelname", "categoryname", "classlabel", "label", "labels", "class", "classes", "category",
          "target", "classid", "labelid", "categoryid", "classindex")  # fmt: skip
# Tables of published sets whose columns do not say which of them holds the classes.
_PUBLISHED = ((frozenset(("lesion_id", "image_id", "dx", "dx_type")), "dx"),)
_FEW = 20  # rows among which classes need not come back


@dataclass
class Reading:
    """What a table says of the images.

    Attributes:
        table: `Table`.
        part: `"train"`, `"val"`, `"test"` or None, by the table's name.
        image_column, label_column: Headers; `label_column` names several for one-hot columns.
        images: For each row the number of its image, NONE or SEVERAL.
        labels: For each row its class, None where it has none.
        question: What must be decided first, a sentence that names the parameter, or None.
        candidates: `{header: labels}` of columns that could be the classes.
        splits: `(header, part of each row)` where a column says it, or None.
        endings: How many files have another ending than in the table.
    """

    table: Table
    part: str
    image_column: str
    images: np.ndarray
    label_column: str | None = None
    labels: list | None = None
    question: str | None = None
    candidates: dict = field(default_factory=dict)
    splits: tuple | None = None
    endings: int = 0
    by_name: bool = False  # a header from LABELS, or one that the user named
    several: frozenset | set = frozenset()  # rows that name several classes
    one_hot: tuple = ()  # headers of the columns of 0 and 1 that are the classes

    @property
    def found(self):
        """How many rows lead to one image."""
        return int((self.images >= 0).sum())


def read_all(found, listing, recipe):
    """`(readings, remarks)`: the tables that name images, and a sentence on each that does not.

    Args:
        found: `(tree, file name, name to show, part or None)` of each table.

    Raises:
        DataError: a table or column that the user names is not there, or a table cannot be read.
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
    for tree, name, shown, part in found:
        if part == "other":
            if recipe.table is None and not _is_share(shown):
                remarks.append(f"{shown} is a sample of a submission by its name and not used")
                continue
            part = None
        table = csv_labels.read(tree, name, recipe.table_encoding)
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
    """Whether a table called `sample` is about a share of the images, and no form to fill in: `sample_labels.csv`."""
    stem = words(os.path.splitext(os.path.basename(path))[0])
    others = {word for word in words(path) if PART_OF.get(word) == "other"}
    return others == {"sample"} and ("sample" not in stem or bool({"label", "labels", "metadata"} & set(stem)))


def _columns(table):
    shown = list(table.columns)
    return "columns " + ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _read(listing, table, part, recipe, alone):
    """The `Reading` of one table, None if it names no image."""
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
            f"data_dir: {table.name} has {name} more than once, and files of several parts are called so. Write the "
            "folder before each name, or give each part a table of its own."
        )
    reading = Reading(table, part, column, images, question=question, endings=endings)
    reading.splits = csv_labels.split_column(table)
    if question is None:
        choose_labels(reading, recipe)
    return reading


def _match(table, columns, listing, part):
    """`Files.match`; a table about all parts may lead into the folder of any, if no name is in several of them."""
    chosen = {column: table.columns[column] for column in columns}
    matches = Files(listing.names, part).match(chosen)
    if part is None:
        ours = Files(listing.names, "train").match(chosen)
        for column, (images, _) in matches.items():
            if (images == SEVERAL).any():
                matches[column] = ours[column]
    return matches


def _doubtful(values, images, listing):
    """A name that a table has twice, where files of several parts are called so: it may be about each. None if not."""
    counts = Counter(values)
    rows = [row for row in np.flatnonzero(images >= 0).tolist() if counts[values[row]] > 1]
    if not rows:
        return None
    parts = {}
    for path in listing.names:
        parts.setdefault(os.path.basename(path), set()).add(_folder_part(path))
    return next(
        (values[row] for row in rows if len(parts[os.path.basename(listing.names[int(images[row])])]) > 1), None
    )


def _choose_images(table, matches):
    """`(header, question)`: the column that matches the files; a question where two lead to different ones."""
    named = list(matches)
    for fits in (
        lambda column: csv_labels.has_endings(table.columns[column]),
        lambda column: not holds_masks(column),
        lambda column: 2 * len(set(table.columns[column])) > len(table),  # classes may be numbers that files have, too
        lambda column: plain(column) not in LABELS,
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
                f"data_dir: columns {best} and {column} of {table.name} both name images, and {differ:,} rows "
                "different ones; say which column counts: image_column."
            )
    return best, None


def choose_labels(reading, recipe):
    """Fill in a `Reading` what the classes are, or the question that decides it."""
    table, rows = reading.table, reading.images != NONE
    where = f"data_dir: {table.name}"
    if recipe.label_column is not None:
        column = table.find(recipe.label_column)
        if column is None:
            reading.question = f"{where} has no column {recipe.label_column} (label_column). It has {_columns(table)}."
            return
        labels = csv_labels.clean_labels(table.columns[column])
        if separator := _separator(set(labels)):
            reading.several = {row for row, label in enumerate(labels) if label and separator in label}
            labels = [None if row in reading.several else label for row, label in enumerate(labels)]
        _take(reading, column, labels, by_name=True)
        return
    others = {
        column: csv_labels.clean_labels(values)
        for column, values in table.columns.items()
        if column != reading.image_column
        and not csv_labels.has_endings(values)
        and not (reading.splits and column == reading.splits[0])
    }
    kinds = {column: _kind([label for label, row in zip(labels, rows, strict=True) if row]) for column, labels in
             others.items()}  # fmt: skip
    several = [column for column, kind in kinds.items() if kind == "several"]
    named = sorted((c for c in others if plain(c) in LABELS), key=lambda column: LABELS.index(plain(column)))
    if named and all(kinds[column] == "empty" for column in named):
        reading.question = f"{where} gives no image a label: column {named[0]} is empty. Name another: label_column."
        return
    named = [column for column in named if kinds[column] != "empty"]
    for columns, column in _PUBLISHED:
        if columns <= set(table.columns):
            named = [column]
    if unfit := [column for column in named if kinds[column] in ("numbers", "unique", "several")]:
        if len(unfit) == len(named):
            reading.question = f"{where}: column {unfit[0]} {_UNFIT[kinds[unfit[0]]]}; name another one: label_column"
            reading.question += f"{_OR_LEFT_OUT if kinds[unfit[0]] == 'several' else ''}."
            return
        named = [column for column in named if column not in unfit]
    fit = named or [column for column in others if kinds[column] == "classes"]
    reading.candidates = {column: others[column] for column in fit}
    one_hot = None if named else _one_hot(others, rows)
    if one_hot is not None:
        columns, labels = one_hot
        fit = [column for column in fit if column not in columns]
        reading.candidates = {column: others[column] for column in fit} | {"one-hot": labels}
        if all(_same(labels, others[column], rows) for column in fit):
            _take(reading, f"{', '.join(columns[:3])}{', ...' if len(columns) > 3 else ''} (one-hot)", labels, True)
            reading.one_hot = tuple(columns)
            return
    several = [] if named else several
    if fit and not several and all(_same(others[fit[0]], others[column], rows) for column in fit[1:]):
        # One reading under several names; text says more than a number.
        text = [column for column in fit if not all(_is_number(label) for label in set(others[column]) - {None})]
        column = (text or fit)[0]
        _take(reading, column, others[column], by_name=bool(named))
    elif fit:
        reading.question = (
            f"{where}: several columns could hold the classes: {', '.join([*several, *fit][:6])}"
            f"{', ...' if len(several) + len(fit) > 6 else ''}; say which: label_column."
        )
    elif several:
        reading.question = (
            f"{where}: column {several[0]} {_UNFIT['several']}; name another one: label_column{_OR_LEFT_OUT}."
        )
    else:
        reading.question = (
            f"{where} names {reading.found:,} images, but none of its columns looks like classes ({_columns(table)}); "
            "say which one is: label_column."
        )


_UNFIT = {
    "numbers": "holds measured numbers, no classes",
    "unique": "holds another value in nearly every row, no classes",
    "several": "names several classes for one image",
}
_OR_LEFT_OUT = ", or this one, so that images with several are left out"


def _take(reading, column, labels, by_name):
    reading.label_column, reading.labels, reading.by_name = column, labels, by_name


def _kind(labels):
    """What the values of a column are: `empty`, `constant`, `numbers`, `several`, `unique` or `classes`."""
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
    """What stands between several classes of one image; None where each label is one class.

    `|` does where classes come back in other company; what also stands in names, only between labels of other images.
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


def _one_hot(columns, rows):
    """`(headers, class of each row)` of columns of 0 and 1 with one 1 in a row, or None."""
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
    """Whether two columns cut the rows into the same classes."""
    pairs = {(a, b) for a, b, row in zip(first, second, rows, strict=True) if row and a is not None and b is not None}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def agrees(labels, images, by_image):
    """In how many of a table's rows the class is another than `by_image` says, but for its name; and of how many."""
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


# --- From readings to sources


def to_sources(tree, listing, readings, remarks, test_only=False):
    """`(training, validation or None)` of the readings that count.

    Raises:
        DataError: a question is open, tables contradict or share images, or give no image a label.
    """
    training, others = _choose_tables(readings)
    shares, remarks = _shares(training, listing), list(remarks)
    for other in others:
        reading = _like(training, other)
        if reading is None:
            remarks.append(f"{other.table.name} is not used: it gives no labels by {training.label_column}")
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
                    f"data_dir: {used[image].table.name} and {reading.table.name} share images, {listing.names[image]} "
                    "among them: training on what is validated on says nothing. Name the table that counts: table."
                )
    parts = {part: to_source(tree, listing, *share, part) for part, share in shares.items()}
    first = parts.get("train") or parts.get(None)
    second = parts.get("val") or parts.get("test")
    if first is None and second is None:
        raise DataError(f"data_dir: {tree.name}/{readings[0].table.name} gives no image a label.")
    passed_over = _left(listing, used, {reading.table.name for reading in readings})
    if parts.get("val") and parts.get("test"):
        names = PackedStrings.of(parts["test"].name(index) for index in range(len(parts["test"])))
        passed_over = add(passed_over, OTHER_SPLITS, names)
    keeper = first if first is not None else second
    notes = tuple(remarks) + sum((reading.table.notes for reading in [training, *others]), ())
    keeper = replace(keeper, passed_over=merge(keeper.passed_over, passed_over), notes=keeper.notes + notes)
    return (keeper, second) if first is not None else (None, keeper)


def _like(training, reading):
    """The `Reading` of another part by the same columns as `training`; None where they are not there, and no header
    says which others hold classes."""
    columns = training.one_hot or (training.label_column,)
    if reading.question is None and (reading.label_column == training.label_column or reading.by_name):
        same = reading
    elif set(columns) <= set(reading.table.columns):
        values = {column: csv_labels.clean_labels(reading.table.columns[column]) for column in columns}
        labels = (
            values[columns[0]] if not training.one_hot else (_one_hot(values, reading.images != NONE) or (0, []))[1]
        )
        same = replace(reading, labels=labels, label_column=training.label_column, question=None)
    else:
        return None
    return same if any(label is not None for label in same.labels) else None


def _choose_tables(readings):
    """`(the one of the training images, those of other parts)`."""
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
        labelled = sum(i >= 0 and b is not None for i, b in zip(reading.images.tolist(), reading.labels, strict=True))
        if differ or common < labelled:
            raise DataError(
                f"data_dir: {best.table.name} (column {best.label_column}) and {reading.table.name} (column "
                f"{reading.label_column}) both say what images show, and not the same; say which counts: table."
            )
    return best, others


def _shares(reading, listing):
    """`{part: (rows, reading)}` by a column that says it, or by the folders of the images."""
    if reading.splits:
        parts = np.array(reading.splits[1])
    else:
        named, ours = reading.part or "train", reading.part in (None, "train")
        parts = np.array(
            [(ours and i >= 0 and _folder_part(listing.names[i])) or named for i in reading.images.tolist()]
        )
        parts[parts == "other"] = named  # a table says more than a folder called sample
    return {str(part): (np.flatnonzero(parts == part), reading) for part in dict.fromkeys(parts.tolist())}


def _folder_part(path):
    """Which part the folders above an image say that it is in, or None."""
    for folder in path.split("/")[:-1]:
        if is_plain_part(folder) and (part := part_of(folder)):
            return part
    return None


def to_source(tree, listing, rows, reading, part):
    """The images that rows name; None if no row has a label. What is wrong with a row is its own matter."""
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
            unreadable[name] = f"is in {table}, but several files are called so"
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
    notes = [f"{reading.endings:,} files have another ending than in {table}"] if reading.endings else []
    if folded := _alike(classes):
        notes.append(f"classes that differ in case only: {' and '.join(folded)}")
    origin = table if not reading.splits else f"column {reading.splits[0]} of {table}"
    return LabeledImages(
        tree.store(listing.names),
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
    """What else lies there, but for the tables; images that no row names by what their folders say."""
    groups = {}
    for index, path in enumerate(listing.names):
        if index not in used:
            folders = path.split("/")[:-1]
            if any(holds_masks(folder) and len(words(folder)) <= 2 for folder in folders):
                reason = MASKS
            elif _folder_part(path) not in (None, "train"):
                reason = OTHER_SPLITS
            else:
                reason = NO_ROW
            groups.setdefault(reason, []).append(path)
    others = [
        (reason, [name for name in names if name not in names_of_tables]) for reason, names in listing.passed_over
    ]
    return merge(others, groups.items())


def add(passed_over, reason, names):
    """`passed_over` with more names under a reason."""
    return merge(passed_over, ((reason, names),)) if len(names) else passed_over


def merge(*groups):
    """Several `passed_over` as one; each name once under a reason."""
    found = {}
    for group in groups:
        for reason, names in group:
            found.setdefault(reason, {}).update(dict.fromkeys(names))
    return tuple((reason, PackedStrings.of(names)) for reason, names in found.items() if names)
