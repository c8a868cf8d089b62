"""Where images come from: what `data_dir` means, and the recognizers of each layout."""

import hashlib
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet.data import packed, shapes
from alexnet.data.decoding import EXTENSIONS, NOT_READ
from alexnet.data.readers import arrays, flat_parts, flowers, folders, huggingface, ilsvrc, lists, table_labels
from alexnet.data.readers.copies import drop_copies
from alexnet.data.readers.csv_labels import ENDINGS
from alexnet.data.readers.filesystem import FolderTree, ZipTree
from alexnet.data.readers.parts import is_plain_part, part_of
from alexnet.data.source import ENDING, OTHER_SPLITS, DataError
from alexnet.recipe import PROJECT, nearest, resolve

NAMED = (*shapes.SETS, *arrays.KERAS_DATASETS)
KAGGLE_INPUT = Path("/kaggle/input")
_SLUG = re.compile(r"(?:([A-Za-z0-9][\w.-]{0,99})/)?([A-Za-z0-9][\w.-]{0,99})")
LAYOUTS = (
    "class folders, train/ and val/ with class folders, images named by class and number (cat.0.jpg), images beside a "
    "CSV, ImageNet as Kaggle or as ILSVRC ships it, an .npz with x_train and y_train, a data set of Hugging Face, "
    "a packed set, or a .zip of one of these"
)


def find_sources(recipe):
    """`(training, validation)` sources of a recipe's `data_dir`, in any layout of `LAYOUTS`.

    Without a validation part, `validation_split` of each class is held out; `split_by` and `seed` say which images.

    Raises:
        DataError: nothing usable there.
    """
    return _to_train(recipe, *_with_limits(recipe, *_find(recipe)))


def find_parts(recipe):
    """`({part: source}, why)` of whatever lies in a recipe's `data_dir`, also where nobody could train on it.

    The parts are those of `find_sources`, and `why` is None. Otherwise they are `training`, `validation`, or `all`
    where no part has a name, and `why` is the sentence with which `find_sources` refuses them.

    Raises:
        DataError: nothing there that could be understood.
    """
    training, validation = _with_limits(recipe, *_find(recipe))
    try:
        training, validation = _to_train(recipe, training, validation)
        why = None
    except DataError as error:
        why = str(error)
    parts = {"training": training, "validation": validation}
    parts = {part: source for part, source in parts.items() if source is not None}
    if len(parts) == 1:
        ((part, source),) = parts.items()
        parts = {part if source.origin else "all": source}
    return parts, why


def _to_train(recipe, training, validation):
    """The parts made fit for training, as `find_sources` says."""
    data_dir = recipe.data_dir
    if training is None:
        refused = [f" ({path} {reason})" for path, reason in validation.unreadable][:1]
        raise DataError(f"data_dir: {data_dir} has no training images{''.join(refused)}.")
    if len(training.class_names) == 1:
        raise DataError(f"data_dir: {data_dir} holds one class ({training.class_names[0]}); two or more are needed.")
    if validation is None:
        return _split(training, recipe)
    if strangers := sorted(set(validation.class_names) - set(training.class_names)):
        where = f" in {validation.origin}" if validation.origin else ""
        raise DataError(
            f"data_dir: {data_dir} has{where} classes that the training images lack: {', '.join(strangers[:5])}"
            f"{', ...' if len(strangers) > 5 else ''}. If it holds no validation images, say which folder does: "
            "validation_dir."
        )
    return training, validation.relabelled(training.class_names)


def find_test_source(recipe, part="validation"):
    """One `part` of a recipe's `data_dir`, `"validation"` or `"training"`, or all images where it has no such part.

    Raises:
        DataError: nothing usable there.
    """
    training, validation = _with_limits(recipe, *_find(recipe, test_only=part == "validation"))
    first, second = (training, validation) if part == "training" else (validation, training)
    return second if first is None else first


def _with_limits(recipe, *sources):
    """The same sources, whose images are decoded as the recipe says."""
    for source in sources:
        if source is not None:
            source.store.max_pixels = int(recipe.max_megapixels * 1e6)
            source.store.white_level = recipe.white_level
    return sources


def _find(recipe, test_only=False):
    """`(training, validation)` as they lie there; one of them may be None.

    With `test_only` training images are not listed where there are others: ImageNet's take a while.
    """
    data_dir, cache = recipe.data_dir, recipe.run_folder.parent / ".listings"
    if data_dir in shapes.SETS:
        try:
            folder = shapes.prepare(PROJECT / "data" / data_dir, data_dir)
        except OSError as error:
            raise DataError(
                f"data_dir: {data_dir} cannot be drawn into {PROJECT / 'data'} ({error.strerror})."
            ) from None
        return _find_in(FolderTree(folder, cache), recipe, test_only)
    if data_dir in arrays.KERAS_DATASETS:
        return arrays.find_keras(data_dir)
    path = resolve(data_dir)
    if not os.path.exists(path):  # unlike Path's, never an error
        path = kaggle_folder(data_dir)
    if path is None:
        raise DataError(
            f"data_dir: there is no folder {data_dir}, and no data set of that name ({', '.join(NAMED)})."
            + nearest(data_dir, NAMED)
        )
    if os.path.isdir(path):
        return _find_in(FolderTree(path, cache), recipe, test_only)
    if path.suffix.lower() == ".zip":
        return _find_in(ZipTree.open(path), recipe, test_only)
    if path.suffix.lower() == ".npz":
        return arrays.read(path, recipe.white_level)
    raise DataError(f"data_dir: {data_dir} is a file; a folder of images, a .zip or an .npz is needed.")


def kaggle_folder(data_dir):
    """The folder that a notebook on Kaggle sees `slug` or `owner/slug` in, None if there is none."""
    match = _SLUG.fullmatch(data_dir)
    if not match:
        return None
    owner, slug = match.groups()
    datasets = KAGGLE_INPUT / "datasets"
    if owner:
        places = [datasets / owner / slug, KAGGLE_INPUT / slug]
    else:
        places = [KAGGLE_INPUT / slug, KAGGLE_INPUT / "competitions" / slug, *sorted(datasets.glob(f"*/{slug}"))]
    return next((place for place in places if place.is_dir()), None)


def _find_in(tree, recipe, test_only, tables=()):
    """What the first recognizer finds that knows the layout; folders that hold but one folder are opened.

    Args:
        tables: Those beside a zip, as `_tables` finds them.
    """
    for level in _levels(tree):
        for find in _RECOGNIZERS:
            if found := find(level, recipe, test_only):
                return found
    listing = tree.images()
    if len(listing.names):
        return _find_images(tree, drop_copies(tree, listing), recipe, tables)
    for level in _levels(tree):
        for find in (_arrays, _zipped):
            if found := find(level, recipe, test_only):
                return found
    refused = f" ({listing.unreadable[0][0]} {listing.unreadable[0][1]})" if listing.unreadable else ""
    raise DataError(
        f"data_dir: {tree.name} holds no images{refused or _what_lies_there(listing)}; expected "
        f"{os.path.basename(tree.name)}/<class>/<image>, images ending in {', '.join(EXTENSIONS)}, or another layout: "
        f"{LAYOUTS}."
    )


def _what_lies_there(listing):
    """What files there are instead, by their endings."""
    endings = Counter(
        os.path.splitext(name)[1].lower() or "without an ending"
        for reason, names in listing.passed_over
        if reason == ENDING
        for name in names
    )
    if not endings:
        return ""
    counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(3))
    reasons = [f"; {ending}: {NOT_READ[ending]}" for ending, _ in endings.most_common(3) if ending in NOT_READ]
    return f" ({counts} there{''.join(reasons)})"


def _levels(tree):
    """A tree, and what it holds as long as that is but one folder."""
    for _ in range(8):  # a link may lead back
        yield tree
        if len(tree.folders) != 1:
            return
        tree = tree.sub(tree.folders[0])


def _find_images(tree, listing, recipe, outer=()):
    """`(training, validation)` of files in folders: tables, folders and file names, which must not contradict."""
    layout = folders.read(tree, listing, recipe)
    readings, remarks = table_labels.read_all([*outer, *_tables(tree, listing, recipe)], listing, recipe)
    if not (readings or layout.classes or layout.question):  # train.txt: a name and a class in each line
        readings = list(flat_parts.read_texts(tree, listing, ("train", "val", "test")))
        for reading in readings:
            table_labels.choose_labels(reading, recipe)
    if recipe.classes_from == "table" or (
        readings and recipe.classes_from is None and _table_counts(layout, readings, listing)
    ):
        if not readings:
            raise DataError(
                f"data_dir: {tree.name}: classes_from is table, but no table there names its images. "
                + "; ".join(remarks)
            )
        return _second_part(tree, listing, recipe, *table_labels.to_sources(tree, listing, readings, remarks))
    if layout.question:
        raise DataError(layout.question)
    training, validation, passed_over = folders.to_sources(tree, listing, layout)
    used = None
    if training is not None and validation is None:
        validation, used, notes = flat_parts.find(tree, listing, training, readings, recipe)
        remarks += notes
    for reading in readings:
        if reading.table.name != used:
            why = "no column of it names their classes" if reading.part in ("val", "test") else "they say the classes"
            remarks.append(f"{reading.table.name} is not used beside the folders: {why}")
    source = training if training is not None else validation
    if source is None:
        raise DataError(
            f"data_dir: {tree.name} holds images, but nothing that says what they show; understood are {LAYOUTS}."
            + layout.hint
            + "".join(f" {remark[0].upper()}{remark[1:]}." for remark in remarks)
        )
    source = replace(
        source,
        passed_over=table_labels.merge(listing.passed_over, passed_over),
        notes=(*source.notes, *layout.notes, *remarks),
    )
    if training is None:
        return None, source
    if used is not None:
        source = _without(source, [used, *(listing.names[index] for index in validation.indices.tolist())])
    return _second_part(tree, listing, recipe, source, validation)


def _second_part(tree, listing, recipe, training, validation):
    """The same, with a validation part where the user or lists of parts say one and nothing else did.

    Raises:
        DataError: nothing says what the images show that the user names.
    """
    if training is None or validation is not None:
        return training, validation
    if recipe.validation_dir is not None:
        folder = f"/{recipe.validation_dir.strip('/')}/"
        inside = np.array([folder in f"/{listing.names[index]}" for index in training.indices.tolist()])
        if inside.all() or not inside.any():
            raise DataError(
                f"data_dir: validation_dir: nothing says what images in {recipe.validation_dir} show, or it holds all."
            )
        validation = replace(training.take(np.flatnonzero(inside)), origin=folder[1:], passed_over=(), notes=())
        return training.take(np.flatnonzero(~inside)), validation
    training, validation, used = lists.split(tree, listing, training)
    return _without(training, used), validation


def _without(source, names):
    """A source that does not count some files as passed over, since they serve."""
    names = set(names)
    passed_over = [(reason, [name for name in found if name not in names]) for reason, found in source.passed_over]
    return replace(source, passed_over=table_labels.merge(passed_over))


def _table_counts(layout, readings, listing):
    """Whether tables say the classes and not folders.

    Raises:
        DataError: both do, and not the same.
    """
    clear = [reading for reading in readings if reading.question is None]
    if layout.question:
        return not clear or any(reading.by_name for reading in clear)
    by_image = folders.class_by_image(listing, layout)
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
                    f"data_dir: the folders and column {reading.label_column} of {reading.table.name} say different "
                    f"classes, of {differ:,} of {common:,} images; say which count: classes_from (folders or table)."
                )
    return splits and "val" not in layout.classes


def _tables(tree, listing, recipe):
    """`(tree, file, name to show, part or None)` of the tables that may be about a tree's images: around the images'
    folders, beside them, in the folders of parts and in the one that the user trains on."""
    root, found, prefix = folders.Node.tree(listing), [], ""

    def add(tree, prefix, part):
        for name in tree.files:
            if name.lower().endswith(ENDINGS):
                stem = os.path.splitext(name)[0]
                found.append((tree, name, prefix + name, part_of(stem) or part))

    node = root
    while True:
        add(tree, prefix, None)
        inside = node.filled()
        if node.own or len(inside) != 1 or (is_plain_part(inside[0].name) and part_of(inside[0].name) != "other"):
            break
        for name in tree.folders:
            if name != inside[0].name:
                add(tree.sub(name), f"{prefix}{name}/", None)
        node, tree, prefix = inside[0], tree.sub(inside[0].name), f"{prefix}{inside[0].name}/"
    for name in tree.folders:
        child = node.children.get(name)
        if child is None or not child.total or is_plain_part(name):
            part = part_of(name) if is_plain_part(name) else None
            inner, inner_prefix = tree.sub(name), f"{prefix}{name}/"
            add(inner, inner_prefix, part)
            while child and not child.own and len(inside := child.filled()) == 1:  # Final_Test/Images/
                child, inner, inner_prefix = inside[0], inner.sub(inside[0].name), f"{inner_prefix}{inside[0].name}/"
                add(inner, inner_prefix, part)
        elif child in (root.find(recipe.training_dir or ""), node.find(recipe.training_dir or "")):
            add(tree.sub(name), f"{prefix}{name}/", None)
    return found


def _packed(tree, recipe, test_only):
    return packed.find(tree.path) if tree.path and packed.is_packed(tree.path) else None


def _arrays(tree, recipe, test_only):
    return arrays.find(tree, recipe.white_level)


def _kaggle(tree, recipe, test_only):
    return ilsvrc.find_kaggle(tree, test_only)


def _tars(tree, recipe, test_only):
    return ilsvrc.find_tars(tree, test_only)


def _flowers(tree, recipe, test_only):
    return flowers.find(tree)


def _saved(tree, recipe, test_only):
    return huggingface.find_saved(tree, test_only, recipe)


def _parquet(tree, recipe, test_only):
    return huggingface.find_parquet(tree, test_only, recipe)


def _zipped(tree, recipe, test_only):
    """Zips as competitions leave them, `train.zip` with `test.zip` and a table beside them; or the only zip there."""
    zips = [name for name in tree.files if name.lower().endswith(".zip")]
    if not zips:
        return None
    if tree.path is None:
        raise DataError(f"data_dir: {tree.name} holds other zips ({', '.join(zips[:3])}); unzip it once.")
    parts = {}
    for name in zips:
        parts.setdefault(part_of(os.path.splitext(name)[0]) if len(zips) > 1 else "train", []).append(name)
    first = parts.get("train", [])
    if len(first) != 1:
        shown = ", ".join(zips[:5])
        raise DataError(f"data_dir: {tree.name} holds several zips ({shown}); name one as data_dir, or unzip them.")
    outer = [
        (tree, name, name, part_of(os.path.splitext(name)[0])) for name in tree.files if name.lower().endswith(ENDINGS)
    ]
    training, validation = _find_in(ZipTree.open(tree.path / first[0]), recipe, False, outer)
    second = [name for part in ("val", "test") for name in sorted(parts.get(part, []))]
    for name in second:
        inside = ZipTree.open(tree.path / name)
        if validation is None:
            try:
                pair = _find_in(inside, recipe, True)
                validation = replace(pair[0] if pair[1] is None else pair[1], origin=name)
                continue
            except DataError as error:
                why = f" ({error})" if part_of(os.path.splitext(name)[0]) == "val" else ""
                if why:
                    raise DataError(f"data_dir: {name} cannot serve as validation images{why}.") from None
        names = [f"{name}/{image}" for image in inside.images().names]
        training = replace(training, passed_over=table_labels.add(training.passed_over, OTHER_SPLITS, names))
    return training, validation


_RECOGNIZERS = (_packed, _kaggle, _tars, _flowers, _saved, _parquet)


# --- Held out


def _split(source, recipe):
    """Hold out `validation_split` of each class, one image at least, and leave one at least for training."""
    choose = _by_name if recipe.split_by == "name" else _ByOrder(recipe.seed)
    held_out = np.zeros(len(source), bool)
    few = []
    for label, name in enumerate(source.class_names):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            raise DataError(f"data_dir: class {name} has one image; two are needed to hold one out for validation.")
        chosen, enough = choose(source, members, name, recipe)
        held_out[chosen] = True
        if not enough:
            few.append(name)
    share = f"{recipe.validation_split:.3g} of each class held out, split_by {recipe.split_by}"
    training, validation = source.take(np.flatnonzero(~held_out)), source.take(np.flatnonzero(held_out))
    return training, replace(validation, origin=share, few=tuple(few), passed_over=(), notes=())


def _by_name(source, members, class_name, recipe):
    """Members that are held out by a hash of class and name, and whether the hash alone decided: an image stays where
    it is when others come or go. Of a class so small that no hash is below the share, the lowest one is taken."""
    hashes = np.array([_hash(recipe.seed, class_name, source.key(index)) for index in members.tolist()])
    chosen = hashes < recipe.validation_split
    if chosen.any() and not chosen.all():
        return members[chosen], True
    if not chosen.any():
        return members[[hashes.argmin()]], False
    return np.delete(members, hashes.argmax()), False


def _hash(seed, class_name, key):
    """A number in [0, 1), the same on every machine."""
    text = f"{seed}\n{class_name}\n{key}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big") / 2**56


class _ByOrder:
    """Members drawn by their place in the list, as runs before `split_by` did: a new image moves others."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def __call__(self, source, members, class_name, recipe):
        members = self._rng.permutation(members)
        count = min(max(1, round(len(members) * recipe.validation_split)), len(members) - 1)
        return members[:count], True
