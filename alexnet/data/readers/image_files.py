"""Images as files in folders. Their classes come from folders, file names or tables, which must not contradict."""

import os
from dataclasses import replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers import flat_parts, folders, lists, table_labels, table_sources
from alexnet.data.readers.copies import drop_copies
from alexnet.data.readers.csv_labels import ENDINGS
from alexnet.data.readers.filesystem import DirectoryView
from alexnet.data.readers.folder_classes import FolderReading, in_names
from alexnet.data.readers.folder_nodes import FolderNode
from alexnet.data.readers.naming import is_plain_part, part_of
from alexnet.data.source import MASKS, OTHER_SPLITS, OUTSIDE, LabeledImages, Parts, merge_passed_over
from alexnet.recipe import Recipe

LAYOUTS = (
    "class folders, train/ and val/ with class folders, images named by class and number (cat.0.jpg), images beside a "
    "CSV, ImageNet from Kaggle or in ILSVRC's tars, an .npz with x_train and y_train, a data set of Hugging Face, a "
    "packed set, or a .zip of one of these"
)


def detect(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """Image files in folders. A detector for `readers.DETECTORS`.

    Raises:
        DataError: nothing tells the classes, or tables, folders and names contradict each other.
    """
    listing = view.list_images()
    if not len(listing.names):
        return None
    listing = drop_copies(view, listing)
    by_folder = folders.read(view, listing, recipe)
    readings, remarks = table_labels.read_all([*view.tables, *_tables(view, listing, recipe)], listing, recipe)
    if not (readings or by_folder.classes or by_folder.question):  # train.txt: a name and a class in each line
        readings = list(flat_parts.read_texts(view, listing, ("train", "val", "test")))
        for reading in readings:
            table_labels.choose_labels(reading, recipe)
    if recipe.classes_from == "table" or (
        readings and recipe.classes_from is None and _table_counts(by_folder, readings, listing)
    ):
        if not readings:
            raise DataError(
                f"data_dir: {view.name}: classes_from is table, but no table names the images. " + "; ".join(remarks)
            )
        return _second_part(view, listing, recipe, *table_sources.to_sources(view, listing, readings, remarks))
    if by_folder.question:
        raise DataError(by_folder.question)
    training, validation, passed_over = _from_folders(view, listing, by_folder)
    used = None
    if training is not None and validation is None:
        validation, used, notes = flat_parts.find(view, listing, training, readings, recipe)
        remarks += notes
    for reading in readings:
        if reading.table.name != used:
            why = "no column names their classes" if reading.part in ("val", "test") else "they tell the classes"
            remarks.append(f"{reading.table.name} is not used beside the folders: {why}")
    source = training if training is not None else validation
    if source is None:
        raise DataError(
            f"data_dir: {view.name} holds images, but nothing that tells their classes. Supported layouts: {LAYOUTS}."
            + by_folder.hint
            + "".join(f" {remark[0].upper()}{remark[1:]}." for remark in remarks)
        )
    source = replace(
        source,
        passed_over=merge_passed_over(listing.passed_over, passed_over),
        notes=(*source.notes, *by_folder.notes, *remarks),
    )
    if training is None:
        return None, source
    if used is not None:
        source = _without(source, [used, *(listing.names[index] for index in validation.indices.tolist())])
    return _second_part(view, listing, recipe, source, validation)


def _second_part(view, listing, recipe, training, validation):
    """`(training, validation)`. If there is no validation part yet, it comes from the user or from lists of parts.

    Raises:
        DataError: the images that the user names have no classes, or they are all images.
    """
    if training is None or validation is not None:
        return training, validation
    if recipe.validation_dir is not None:
        folder = f"/{recipe.validation_dir.strip('/')}/"
        inside = np.array([folder in f"/{listing.names[index]}" for index in training.indices.tolist()])
        if inside.all() or not inside.any():
            raise DataError(
                f"data_dir: validation_dir: {recipe.validation_dir} holds no images with classes, or all of them."
            )
        validation = replace(training.take(np.flatnonzero(inside)), origin=folder[1:], passed_over=(), notes=())
        return training.take(np.flatnonzero(~inside)), validation
    training, validation, used = lists.split(view, listing, training)
    return _without(training, used), validation


def _without(source, names):
    """The source without `names` among the files that are passed over, because they are used."""
    names = set(names)
    passed_over = [(reason, [name for name in found if name not in names]) for reason, found in source.passed_over]
    return replace(source, passed_over=merge_passed_over(passed_over))


def _table_counts(by_folder, readings, listing):
    """Whether tables tell the classes, and not folders.

    Raises:
        DataError: both do, and they differ.
    """
    clear = [reading for reading in readings if reading.question is None]
    if by_folder.question:
        return not clear or any(reading.by_name for reading in clear)
    by_image = _class_by_image(listing, by_folder)
    if len(set(by_image.values())) < 2:
        return True
    splits = False
    for reading in readings:
        columns = {reading.label_column: reading.labels} if reading.question is None else reading.candidates
        compared = {column: table_labels.agrees(labels, reading.images, by_image) for column, labels in columns.items()}
        apart = compared and not any(common for _, common in compared.values())
        if apart and (reading.part in ("val", "test") or 2 * reading.found < len(by_image)):
            continue  # about other images, such as those of a test part
        if any(differ == 0 for differ, common in compared.values() if common):
            splits |= reading.question is None and (reading.splits is not None or reading.part in ("val", "test"))
            continue
        if reading.question is None and compared:
            (differ, common) = compared[reading.label_column]
            if reading.by_name or 2 * common > len(by_image):
                raise DataError(
                    f"data_dir: the folders and column {reading.label_column} of {reading.table.name} give different "
                    f"classes for {differ:,} of {common:,} images. Decide by classes_from (folders or table)."
                )
    return splits and "val" not in by_folder.classes


def _tables(view, listing, recipe):
    """`(view, file, name to show, part or None)` of the tables that may be about a view's images.

    They are around the images' folders, beside them, in the folders of parts, or in the one that the user trains on.
    """
    root, found, prefix = FolderNode.of(listing), [], ""

    def add(view, prefix, part):
        for name in view.files:
            if name.lower().endswith(ENDINGS):
                stem = os.path.splitext(name)[0]
                found.append((view, name, prefix + name, part_of(stem) or part))

    node = root
    while True:
        add(view, prefix, None)
        inside = node.filled()
        if node.own or len(inside) != 1 or (is_plain_part(inside[0].name) and part_of(inside[0].name) != "other"):
            break
        for name in view.folders:
            if name != inside[0].name:
                add(view.sub(name), f"{prefix}{name}/", None)
        node, view, prefix = inside[0], view.sub(inside[0].name), f"{prefix}{inside[0].name}/"
    for name in view.folders:
        child = node.children.get(name)
        if child is None or not child.total or is_plain_part(name):
            part = part_of(name) if is_plain_part(name) else None
            inner, inner_prefix = view.sub(name), f"{prefix}{name}/"
            add(inner, inner_prefix, part)
            while child and not child.own and len(inside := child.filled()) == 1:  # Final_Test/Images/
                child, inner, inner_prefix = inside[0], inner.sub(inside[0].name), f"{inner_prefix}{inside[0].name}/"
                add(inner, inner_prefix, part)
        elif child in (root.find(recipe.training_dir or ""), node.find(recipe.training_dir or "")):
            add(view.sub(name), f"{prefix}{name}/", None)
    return found


# --- From folders to sources


def from_class_folders(view):
    """The images of a view whose folders are the classes, whatever their names."""
    listing = view.list_images()
    if not len(listing.names):
        raise DataError(f"data_dir: {view.name} holds no images.")
    tops = [directory.partition("/")[0] for directory in listing.directories]
    by_folder = FolderReading(classes={"train": {top: top for top in tops if top}})
    source, _, passed_over = _from_folders(view, listing, by_folder)
    if source is None:
        raise DataError(f"data_dir: {view.name} holds images, but no class folders.")
    return replace(source, passed_over=(*listing.passed_over, *passed_over))


def _from_folders(view, listing, by_folder):
    """`(training or None, validation or None, passed_over)` of a `FolderReading` with classes."""
    labels = np.full(len(listing.names), -1, np.int64)
    part_of_image = np.zeros(len(listing.names), np.int8)
    reasons = np.zeros(len(listing.names), np.int8)
    kinds = (OUTSIDE, MASKS, OTHER_SPLITS)
    names, by_name = [], False
    number = {}
    first = 0
    for directory, count in zip(listing.directories, listing.counts.tolist(), strict=True):
        images = slice(first, first + count)
        first += count
        if not count:
            continue
        reason = _nearest(directory, by_folder.passed_over)
        found = [
            (part, path) for part, paths in by_folder.classes.items() if (path := _above(directory, paths)) is not None
        ]
        if found and (reason is None or len(max(path for _, path in found)) > len(reason[0])):
            part, path = max(found, key=lambda pair: len(pair[1]))
            name = by_folder.classes[part][path]
            part_of_image[images] = 1 if part == "train" else 2
            if name is None:
                by_name = True
                own = in_names([listing.names[i] for i in range(images.start, images.stop)]) or []
                labels[images] = [number.setdefault(own_name, len(number)) for own_name in own]
            else:
                labels[images] = number.setdefault(name, len(number))
        else:
            reasons[images] = 0 if reason is None else kinds.index(reason[1])
    names = list(number)
    reader = view.reader(listing.names)
    sources = {}
    for part, code in (("train", 1), ("val", 2)):
        indices = np.flatnonzero((part_of_image == code) & (labels >= 0))
        if not len(indices):
            sources[part] = None
            continue
        classes = sorted({names[label] for label in np.unique(labels[indices])})
        place = np.array([classes.index(name) if name in classes else -1 for name in names])
        sources[part] = LabeledImages(
            reader,
            indices,
            place[labels[indices]].astype(np.int32),
            classes,
            "classes in the file names" if by_name else "class folders",
            listing.unreadable,
            labels_from="the names of the files" if by_name else "the names of the folders",
            origin=by_folder.origins.get(part, ""),
        )
    return sources["train"], sources["val"], _left_out(listing, labels < 0, reasons, kinds)


def _class_by_image(listing, by_folder):
    """`{number of an image: its class}` of a `FolderReading`, without classes from file names."""
    found, first = {}, 0
    paths = {path: name for part in by_folder.classes.values() for path, name in part.items() if name is not None}
    for directory, count in zip(listing.directories, listing.counts.tolist(), strict=True):
        path = _above(directory, paths)
        if path is not None and count:
            found.update(dict.fromkeys(range(first, first + count), paths[path]))
        first += count
    return found


def _left_out(listing, left, reasons, kinds):
    """`passed_over` of the images in the mask `left`, given the index of each one's reason in `kinds`."""
    found = []
    for number, kind in enumerate(kinds):
        if len(indices := np.flatnonzero(left & (reasons == number))):
            found.append((kind, PackedStrings.of(listing.names[index] for index in indices.tolist())))
    return tuple(found)


def _above(directory, paths):
    """The longest of `paths` that is `directory` or a folder above it; None if there is none."""
    path = directory
    while True:
        if path in paths:
            return path
        if not path:
            return None
        path = path.rpartition("/")[0]


def _nearest(directory, passed_over):
    path = _above(directory, passed_over)
    return None if path is None else (path, passed_over[path])
