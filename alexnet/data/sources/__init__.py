"""Where images come from: what `data_dir` means, and the recognizers of each layout."""

import os
import re
from pathlib import Path

import numpy as np

from alexnet.data import packed, shapes
from alexnet.data.source import DataError
from alexnet.data.sources import arrays, columns, folders, ilsvrc, tables
from alexnet.data.sources.trees import FolderTree, ZipTree
from alexnet.recipe import PROJECT, nearest, resolve

NAMED = (*shapes.SETS, *arrays.KERAS_DATASETS)
KAGGLE_INPUT = Path("/kaggle/input")
_SLUG = re.compile(r"(?:([A-Za-z0-9][\w.-]{0,99})/)?([A-Za-z0-9][\w.-]{0,99})")
_DOCUMENTS = (".md", ".txt", ".pdf", ".html")


def find_sources(recipe):
    """`(training, validation)` sources of a recipe's `data_dir`, in any layout of `folders.LAYOUTS`.

    Without a validation part, `validation_split` of each class is held out, drawn with `seed`.

    Raises:
        DataError: nothing usable there.
    """
    data_dir = recipe.data_dir
    training, validation = _find(recipe)
    if training is None:
        raise DataError(f"data_dir: {data_dir} has no training images.")
    if len(training.class_names) == 1:
        raise DataError(f"data_dir: {data_dir} holds one class ({training.class_names[0]}); two or more are needed.")
    if validation is None:
        return _split(training, recipe.validation_split, recipe.seed)
    if strangers := sorted(set(validation.class_names) - set(training.class_names)):
        raise DataError(f"data_dir: {data_dir} has classes that the training images lack: {', '.join(strangers[:5])}.")
    return training, validation.relabelled(training.class_names)


def find_test_source(recipe, part="validation"):
    """One `part` of a recipe's `data_dir`, `"validation"` or `"training"`, or all images where it has no such part.

    Raises:
        DataError: nothing usable there.
    """
    training, validation = _find(recipe, test_only=part == "validation")
    first, second = (training, validation) if part == "training" else (validation, training)
    return second if first is None else first


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
        return _find_in(FolderTree(folder, cache), test_only)
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
        return _find_in(FolderTree(path, cache), test_only)
    if path.suffix.lower() == ".zip":
        return _find_in(ZipTree.open(path), test_only)
    if path.suffix.lower() == ".npz":
        return arrays.read(path)
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


def _find_in(tree, test_only):
    """What the first recognizer finds that knows the layout; folders that hold but one folder are opened."""
    for _ in range(8):  # a link may lead back
        for find in _RECOGNIZERS:
            if found := find(tree, test_only):
                return found
        wrapped = _wrapped(tree)
        if wrapped is None:
            break
        tree = wrapped
    return folders.find(tree, test_only)


def _packed(tree, test_only):
    return packed.find(tree.path) if tree.path and packed.is_packed(tree.path) else None


def _wrapped(tree):
    """The only folder in a tree if that is no class folder: more is in it than images of one class."""
    if len(tree.folders) != 1 or any(folders.parts(tree)) or _others(tree.files, _DOCUMENTS):
        return None
    inner = tree.sub(tree.folders[0])
    if inner.folders or _others(inner.files, (*folders.EXTENSIONS, *_DOCUMENTS)):
        return inner
    return inner if folders.in_names(inner.images().names) else None


def _others(files, endings):
    return any(not name.lower().endswith(endings) for name in files)


def _zipped(tree, test_only):
    """`train.zip` as competitions leave it, with `val.zip` where there is one; or the only zip in a folder."""
    zips = [name for name in tree.files if name.lower().endswith(".zip")]
    if not zips or any(folders.parts(tree)):
        return None
    if tree.path is None:
        if tree.folders:
            return None
        raise DataError(f"data_dir: {tree.name} holds other zips ({', '.join(zips[:3])}); unzip it once.")
    if "train.zip" not in zips:
        return _find_in(ZipTree.open(tree.path / zips[0]), test_only) if len(zips) == 1 else None
    second = next((name for name in ("val.zip", "valid.zip", "validation.zip") if name in zips), None)
    training, validation = _find_in(ZipTree.open(tree.path / "train.zip"), False)
    if second:
        pair = _find_in(ZipTree.open(tree.path / second), True)
        validation = pair[0] if pair[1] is None else pair[1]
    return training, validation


_RECOGNIZERS = (
    _packed,
    ilsvrc.find_kaggle,
    ilsvrc.find_tars,
    columns.find_saved,
    columns.find_parquet,
    arrays.find,
    tables.find,
    _zipped,
)


def _split(source, validation_split, seed):
    """Hold out `validation_split` of each class, one image at least, and leave one at least for training."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(source), bool)
    for label, name in enumerate(source.class_names):
        members = rng.permutation(np.flatnonzero(source.labels == label))
        if len(members) < 2:
            raise DataError(f"data_dir: class {name} has one image; two are needed to hold one out for validation.")
        held_out[members[: min(max(1, round(len(members) * validation_split)), len(members) - 1)]] = True
    return source.take(np.flatnonzero(~held_out)), source.take(np.flatnonzero(held_out))
