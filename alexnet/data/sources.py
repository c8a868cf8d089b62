"""Where images come from: a folder of class folders, or a data set that Keras knows."""

import os

import numpy as np

from alexnet.data import decoding, imagenet, shapes
from alexnet.data.source import DataError, Source
from alexnet.data.stores import Arrays, Folder, Names
from alexnet.recipe import PROJECT, nearest, resolve

KERAS_DATASETS = ("cifar10", "cifar100", "mnist", "fashion_mnist")
NAMED = (*shapes.SETS, *KERAS_DATASETS)
VALIDATION_FOLDERS = ("val", "valid", "validation", "test")

CLASS_NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": None,
    "mnist": list("0123456789"),
    "fashion_mnist": ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"],
}


def find_sources(recipe):
    """`(training, validation)` sources of a recipe's `data_dir`.

    A folder holds class folders, or `train/` and one of `val/`, `valid/`, `validation/`, `test/` that hold them, or
    ImageNet as Kaggle ships it. Without a second folder, `validation_split` of each class is held out, drawn with
    `seed`.

    Raises:
        DataError: nothing usable there.
    """
    data_dir = recipe.data_dir
    training, validation = _find(data_dir)
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
    training, validation = _find(recipe.data_dir, test_only=part == "validation")
    first, second = (training, validation) if part == "training" else (validation, training)
    return second if first is None else first


def _find(data_dir, test_only=False):
    """`(training, validation)` as they lie there; one of them may be None.

    With `test_only` training images are not listed where there are others: ImageNet's take a while.
    """
    if data_dir in shapes.SETS:
        try:
            folder = shapes.prepare(PROJECT / "data" / data_dir, data_dir)
        except OSError as error:
            raise DataError(
                f"data_dir: {data_dir} cannot be drawn into {PROJECT / 'data'} ({error.strerror})."
            ) from None
        return _find_in(folder, test_only)
    if data_dir in KERAS_DATASETS:
        return _keras_sources(data_dir)
    folder = resolve(data_dir)
    if not folder.exists():
        raise DataError(
            f"data_dir: there is no folder {data_dir}, and no data set of that name ({', '.join(NAMED)})."
            + nearest(data_dir, NAMED)
        )
    if not folder.is_dir():
        raise DataError(f"data_dir: {data_dir} is a file; a folder of class folders is needed.")
    return _find_in(folder, test_only)


def _find_in(folder, test_only):
    if imagenet.is_kaggle(folder):
        return _read_kaggle(folder, test_only)
    held_out = next((folder / name for name in VALIDATION_FOLDERS if (folder / name).is_dir()), None)
    if (folder / "train").is_dir():
        training = None if test_only and held_out else _read_folder(folder / "train")
        return training, held_out and _read_folder(held_out)
    if held_out and {entry.name for entry in os.scandir(folder) if entry.is_dir()} <= set(VALIDATION_FOLDERS):
        return None, _read_folder(held_out)
    return _read_folder(folder), None


def _read_kaggle(folder, test_only):
    """ImageNet's challenge: `train/<wnid>/*.JPEG`, and validation images in one folder with their classes in a file."""
    images, training = folder / imagenet.IMAGES, None
    try:
        classes = imagenet.read_mapping(folder)
        if (images / "train").is_dir() and not test_only:
            training = _read_folder(images / "train").relabelled(classes)
        rows = imagenet.read_solution(folder)
        present = {os.path.splitext(entry.name)[0]: entry.name for entry in os.scandir(images / "val")}
        rows = [(present[name], classes.index(wnid)) for name, wnid in rows if name in present]
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"data_dir: {error.filename or folder} cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"data_dir: {folder} looks like ImageNet from Kaggle, but {imagenet.SOLUTION} or {imagenet.MAPPING} cannot "
            f"be used ({error})."
        ) from None
    if not rows:
        raise DataError(f"data_dir: {images / 'val'} holds none of the images of {imagenet.SOLUTION}.")
    names, labels = zip(*rows, strict=True)
    return training, Source.whole(
        Folder(images / "val", Names.of(names)), labels, classes, "ImageNet as Kaggle ships it"
    )


def _read_folder(folder):
    """All images in the class folders of `folder`, sorted by name."""
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
        files = {name: _list_images(folder / name) for name in found}
    except OSError as error:
        raise DataError(f"data_dir: {error.filename or folder} cannot be read ({error.strerror}).") from None
    filled = [name for name in found if files[name]]
    if not filled:
        raise DataError(
            f"data_dir: {folder} holds no images; expected {folder.name}/<class>/<image>, "
            f"images ending in {', '.join(decoding.EXTENSIONS)}."
        )
    names = Names.of(os.path.relpath(path, folder) for name in filled for path in files[name])
    labels = np.repeat(np.arange(len(filled)), [len(files[name]) for name in filled])
    return Source.whole(Folder(folder, names), labels, filled, "class folders")


def _list_images(folder):
    """Paths of the images at any depth below `folder`, sorted."""
    paths = []
    for entry in os.scandir(folder):
        if entry.is_dir():
            paths += _list_images(entry.path)
        elif entry.name.lower().endswith(decoding.EXTENSIONS) and not entry.name.startswith("."):
            paths.append(entry.path)
    return sorted(paths)


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


def _keras_sources(name):
    """A data set of `keras.datasets`, which downloads it once to Keras's own cache."""
    import keras

    try:
        training, validation = getattr(keras.datasets, name).load_data()
    except Exception as error:  # urllib, ssl, tarfile and keras all have their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"data_dir: {name} could not be loaded by keras.datasets ({reason}).") from None
    class_names = CLASS_NAMES[name] or [str(label) for label in range(int(training[1].max()) + 1)]
    return tuple(
        Source.whole(Arrays(images), labels.reshape(-1), class_names, f"keras.datasets.{name}")
        for images, labels in (training, validation)
    )
