"""Reads data sets of Hugging Face: Arrow files that `save_to_disk` wrote, and Parquet files. Needs pyarrow."""

import json
import os
from dataclasses import replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.formats import EXTENSIONS
from alexnet.data.listing import is_file, is_folder
from alexnet.data.readers.arrow_columns import find_image, find_label, require_columns, split_column
from alexnet.data.readers.arrow_tables import SplitTable
from alexnet.data.readers.filesystem import DirectoryView
from alexnet.data.readers.shards import ENDINGS, open_shard
from alexnet.data.readers.splits import Split, check_complete, choose, group, kind_of, some, words
from alexnet.data.source import ENDING, NO_LABEL, NO_ROW, OTHER_SPLITS, LabeledImages, Parts
from alexnet.recipe import Recipe

SAVED = "a data set that Hugging Face saved"
PARQUET = "Parquet files (pack them to read much faster: python -m alexnet pack)"
ARROW = "Arrow files"

# --- Detectors


def detect_saved(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """A data set that `save_to_disk` wrote: `dataset_dict.json` with a folder for each split, or one split."""
    if view.path is None:
        return None
    if "state.json" in view.files and "dataset_info.json" in view.files:
        return _sources(view, [_saved(view, Split("", "", None))], SAVED, recipe, test_only, [])
    folders = [name for name in view.folders if os.path.isfile(view.path / name / "state.json")]
    if "dataset_dict.json" in view.files:
        folders = _json(view, "dataset_dict.json").get("splits", folders)
        if not isinstance(folders, list) or not all(isinstance(name, str) for name in folders):
            raise DataError(f"data_dir: {view.name}/dataset_dict.json does not list its splits.")
        if missing := [name for name in folders if name not in view.folders]:
            raise DataError(f"data_dir: {view.name} lacks the splits {some(missing)} that dataset_dict.json lists.")
        if not folders:
            raise DataError(f"data_dir: {view.name} has no splits.")
    elif folders and (tables := _tables(view)[0]):
        raise DataError(
            f"data_dir: {view.name} holds data sets that Hugging Face saved ({some(folders)}) and other tables "
            f"({some(tables)}). Choose one of them as data_dir."
        )
    if not folders:
        return None
    others = [(ENDING, name) for name in view.files if name != "dataset_dict.json"]
    others += [(OTHER_SPLITS, f"{name}/") for name in view.folders if name not in folders]
    splits = [Split(f"{name}/", " ".join(words(name)), kind_of(name), files=[name]) for name in folders]
    parts = [_saved(view.sub(split.files[0]), split) for split in splits]
    return _sources(view, parts, SAVED, recipe, test_only, others)


def _saved(view, split):
    """The `SplitTable` of one folder that `save_to_disk` wrote."""

    def prepare(part):
        state, part.info = _json(view, "state.json"), _json(view, "dataset_info.json")
        part.info_name = f"{split.name}dataset_info.json"
        part.word = split.files[0] if split.files else state.get("_split")
        listed = _listed(view, state, "_data_files")
        indices = _listed(view, state, "_indices_data_files") or _listed(view, state, "_indices_files") or []
        present = [name for name in view.files if name.lower().endswith(".arrow")]
        if listed is None:  # state.json lists nothing: take the files with names of data
            listed = [name for name in present if not name.startswith(("cache-", "indices"))]
            part.notes += check_complete(view.name, listed)
        if missing := [name for name in listed + indices if name not in view.files]:
            raise DataError(f"data_dir: {view.name} lacks {some(missing)}, which its state.json lists.")
        if not listed:
            raise DataError(f"data_dir: {view.name} holds no .arrow file.")
        used = ("state.json", "dataset_info.json", *listed, *indices)
        left = [name for name in view.files if name not in used]
        part.passed_over += [(OTHER_SPLITS if name in present else ENDING, split.name + name) for name in left]
        part.passed_over += [(OTHER_SPLITS, f"{split.name}{name}/") for name in view.folders]
        part.paths = [view.path / name for name in listed]
        if indices:
            part.rows = _indices(part, [open_shard(view.path / name) for name in indices])

    return SplitTable(split, view.name, prepare)


def _listed(view, state, key):
    """File names under a key of `state.json`; None if there is no such key."""
    entries = state.get(key)
    if entries is None:
        return None
    entries = [entry if isinstance(entry, dict) else {} for entry in entries] if isinstance(entries, list) else [{}]
    names = [entry.get("filename") for entry in entries]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise DataError(f"data_dir: {view.name}/state.json does not list its files.")
    if cut := [entry["filename"] for entry in entries if entry.get("skip") or entry.get("take")]:
        raise DataError(
            f"data_dir: {view.name}/state.json takes only some rows of {some(cut)}; save the data set again."
        )
    return names


def _indices(part, shards):
    """The rows, in their order, of a data set that was selected or shuffled but not rewritten."""
    names, total = some(shard.name for shard in shards), sum(map(len, part.shards))
    columns = [shard.column(shard.schema.names[0]) for shard in shards]
    rows = np.array([value for column in columns for value in column.to_pylist()])
    if rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= total:
        raise DataError(f"data_dir: {part.where}: {names} must hold row numbers from 0 to {total - 1:,}.")
    part.notes.append(f"{part.split.name}{names} picks {len(rows):,} of {total:,} rows")
    left = np.setdiff1d(np.arange(total), rows)
    part.passed_over += [(OTHER_SPLITS, part.row(row)) for row in left.tolist()]
    return rows.astype(np.int64)


def detect_tables(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """Parquet or Arrow files, `train-00000-of-00002.parquet` or `train/0000.parquet`, perhaps in a subfolder."""
    if view.path is None:
        if any(name.lower().endswith(ENDINGS) for name in view.files) and not len(view.list_images().names):
            raise DataError(f"data_dir: {view.name} holds Parquet or Arrow files; unzip it once.")
        return None
    if recipe.classes_from not in (None, "table"):
        return None
    files, others = _tables(view)
    if not files:
        return None
    infos = next((name for name in ("dataset_info.json", "dataset_infos.json") if name in view.files), None)
    info = _json(view, infos) if infos else {}
    if infos == "dataset_infos.json":  # of each configuration
        info = next(iter(info.values())) if len(info) == 1 else {}
    parts = [_part(view, split, infos, info) for split in group(files)]
    if not any(part.split.kind == "train" for part in parts) and len(parts) > 1:
        # A table without images is about something else.
        tables = [part for part in parts if part.split.kind is None and not part.held()]
        if len(tables) < len(parts):
            others += [(ENDING, name) for part in tables for name in part.split.files]
            parts = [part for part in parts if part not in tables]
    if recipe.classes_from != "table":
        _require_one_reading(view, parts)
    layout = PARQUET if files[0].lower().endswith((".parquet", ".pq")) else ARROW
    return _sources(view, parts, layout, recipe, test_only, others)


def _part(view, split, infos, info):
    paths = [view.path / name for name in split.files]
    first = str(paths[0])  # distinguishes the rows of training and validation, which have the same numbers

    def prepare(part):
        part.paths, part.info, part.info_name = paths, info if isinstance(info, dict) else {}, infos
        if len({os.path.splitext(path)[1].lower() for path in paths}) > 1:
            raise DataError(
                f"data_dir: {view.name} holds the same split in several formats ({some(split.files)}). Keep only one "
                "of them."
            )
        part.notes += check_complete(view.name, split.files)

    return SplitTable(split, first if len(paths) == 1 else f"{first} and {len(paths) - 1} more", prepare)


def _tables(view):
    """`(paths of Parquet and Arrow files, (reason, path) of the other files)`, in a view of few folders."""
    found, others, waiting = [], [], [("", view.files, view.folders)]
    while waiting:
        prefix, files, folders = waiting.pop()
        for name in files:
            if name.lower().endswith(ENDINGS) and not name.startswith("cache-"):
                found.append(prefix + name)
            elif name not in ("dataset_info.json", "dataset_infos.json"):
                others.append((NO_ROW if name.lower().endswith(EXTENSIONS) else ENDING, prefix + name))
        for name in folders:
            inner = _entries(view.path / prefix / name) if prefix.count("/") < 3 and len(folders) <= 64 else None
            if inner is None:
                others.append((NO_ROW, f"{prefix}{name}/"))
            elif "state.json" in inner[0]:  # what `save_to_disk` wrote
                others.append((OTHER_SPLITS, f"{prefix}{name}/"))
            else:
                waiting.append((f"{prefix}{name}/", *inner))
    return sorted(found), sorted(others)


def _entries(path):
    """`(files, folders)` in a folder; None if it holds images, which may be many."""
    files, folders = [], []
    patient = kind_of(path.name) is not None or path.name == "data"
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_folder(entry):
                    folders.append(entry.name)
                elif is_file(entry):
                    files.append(entry.name)
                    if not patient and entry.name.lower().endswith(EXTENSIONS):
                        return None
    except OSError:
        return None
    return files, folders


def _require_one_reading(view, parts):
    """Check that there are no folders of images beside the tables, which could be meant instead."""
    held = next((part for part in parts if part.split.kind == "train"), parts[0]).held()
    listing = view.list_images()
    with_images = [name for name, count in zip(listing.directories, listing.counts, strict=True) if name and count]
    parents = [name.rpartition("/")[0] for name in with_images]
    folders = [name for name, parent in zip(with_images, parents, strict=True) if parents.count(parent) > 1]
    if len(listing.names) and not held:
        part = parts[0]
        raise DataError(
            f"data_dir: {view.name}/{part.split.files[0]} is beside images and holds none (columns: "
            f"{some(part.columns)}). If it gives their classes, save it as CSV. If not, say where they come from: "
            "classes_from folders, or names."
        )
    if folders and held:
        raise DataError(
            f"data_dir: {view.name} holds images in tables ({parts[0].split.name}) and in folders ({some(folders, 3)})"
            "; choose by classes_from table, or folders."
        )


def _json(view, name):
    try:
        found = json.loads(view.read(name))
    except (ValueError, RecursionError) as error:
        raise DataError(f"data_dir: {view.name}/{name} is not JSON ({error}).") from None
    if not isinstance(found, dict):
        raise DataError(f"data_dir: {view.name}/{name} is not a JSON object.")
    return found


# --- Sources


def _sources(view, parts, layout, recipe, test_only, others):
    """`(training, validation)` of some splits; one of them may be None."""
    asked = [recipe.training_dir, recipe.validation_dir]
    of = {id(part.split): part for part in parts}
    first, second = choose(view.name, [part.split for part in parts], *asked, test_only)
    training, second = of[id(first)] if first else None, [of[id(split)] for split in second]
    others = others + [
        (OTHER_SPLITS, name) for part in parts if part not in (training, *second) for name in part.shown()
    ]
    reader = training or second[0]  # training decides, so that validation alone is read from the same column
    image = find_image(reader, recipe.image_column)
    label, notes = find_label(reader, image, recipe.label_column)
    require_columns(reader, image, label)
    hidden = [part for part in second if asked[1] is None and label not in part.columns and part.is_within(reader)]
    second = [part for part in second if part not in hidden]
    for part in second:
        require_columns(part, image, label)
    if training and asked == [None, None]:
        training, second, left = _split_rows(training, second, label)
        others += left
    reader = training or second[0]
    for part in second:
        _require_same_classes(reader, part, label)
    signed = _minus_is_a_class(reader, label)
    validation = found = None
    for part in second:
        if validation:
            others += [(OTHER_SPLITS, name) for name in part.shown()]
        elif not (validation := _source(part, image, label, signed, layout)):
            hidden.append(part)
    if training and test_only and validation:
        others += [(OTHER_SPLITS, name) for name in training.shown()]
    elif training and not (found := _source(training, image, label, signed, layout)):
        hidden.append(training)
    if not found and not validation:
        raise DataError(f"data_dir: {view.name} has no labels.")
    for part in hidden:
        others += [*part.passed_over, *((NO_LABEL, part.row(row)) for row in part.all_rows())]
    # What belongs to neither part is listed with the first.
    told = found or validation
    told = replace(told, passed_over=_by_reason(others, told.passed_over), notes=(*told.notes, *notes))
    return (told, validation) if found else (None, told)


def _require_same_classes(training, part, label):
    """Check that numbers of a part can be matched with the classes of the training part, which may have names."""
    numbers = any(isinstance(value, int) for value in part.codes(label)[0])
    if training.class_names(label) and not part.class_names(label) and numbers:
        raise DataError(
            f"data_dir: {part.where}: column {label} holds numbers, and nothing says which classes of "
            f"{training.where} they mean."
        )


def _by_reason(pairs, known=()):
    """`(reason, names)`, one pair for each reason, of `(reason, name)` pairs."""
    found = {reason: list(names) for reason, names in known}
    for reason, name in pairs:
        found.setdefault(reason, []).append(name)
    return tuple((reason, tuple(names)) for reason, names in found.items())


def _split_rows(training, second, label):
    """`(training, second, passed over)`, divided by the column that names the split of each row, if there is one."""
    for part in (training, *second):
        column, kinds = split_column(part, label) or (None, None)
        if column is None or set(kinds) <= {part.split.kind}:
            continue
        if second or "train" not in kinds:
            raise DataError(
                f"data_dir: {part.where}: column {column} and the file put rows into different splits. Name the file "
                "or folder to validate on: validation_dir."
            )
        kinds = {kind: part.take(np.flatnonzero(kinds == kind)) for kind in ("train", "val", "test", None)}
        for taken in kinds.values():
            taken.origin = f"column {column}"
        kinds["train"].passed_over, kinds["train"].notes = part.passed_over, part.notes
        second = [kinds[kind] for kind in ("val", "test") if len(kinds[kind].rows)]
        return kinds["train"], second, [(OTHER_SPLITS, row) for row in kinds[None].shown()]
    return training, second, []


def _minus_is_a_class(part, label):
    """Whether -1 is one of the two classes -1 and 1. Otherwise it means that there is no label."""
    values, _ = part.codes(label)
    return part.class_names(label) is None and set(values) == {-1, 1}


def _source(part, image, label, signed, layout):
    """`LabeledImages` of the rows with a label; None if no row has one. A hidden label is -1 or missing."""
    names, (values, codes) = part.class_names(label), part.codes(label)
    used = [values[code] for code in np.unique(codes[codes >= 0])]
    used = [value for value in used if value != -1 or signed or isinstance(value, bool)]
    if names is None:
        classes = sorted(used)
        names = [str(value) for value in classes]
        number = {value: label for label, value in enumerate(classes)}
    else:
        number = {value: value for value in used if isinstance(value, int) and 0 <= value < len(names)}
        number |= {value: names.index(value) for value in used if value in names}
        if len(number) < len(used):
            raise DataError(f"data_dir: {part.where} has labels that are not among its {len(names)} classes.")
    labels = np.array([*(number.get(value, -1) for value in values), -1], np.int32)[codes]
    chosen = np.flatnonzero(labels >= 0)
    if not len(chosen):
        return None
    rows = part.all_rows()
    without = [(NO_LABEL, part.row(row)) for row in rows[labels < 0]]
    return LabeledImages(
        part.reader(image),
        rows[chosen],
        labels[chosen],
        names,
        layout,
        labels_from=f"column {label}",
        paths_from=f"column {image}",
        origin=part.origin,
        passed_over=_by_reason([*part.passed_over, *without]),
        notes=(*part.notes, *part.counted()),
    )
