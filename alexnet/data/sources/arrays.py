"""Images that are one array: an `.npz`, or a data set of `keras.datasets`."""

import zipfile
import zlib

import numpy as np

from alexnet.data.source import DataError, Source
from alexnet.data.stores import Arrays

KERAS_DATASETS = ("cifar10", "cifar100", "mnist", "fashion_mnist")
CLASS_NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": None,
    "mnist": list("0123456789"),
    "fashion_mnist": ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"],
}


def find_keras(name):
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


def find(tree, test_only=False):
    """The only `.npz` in a folder."""
    files = [name for name in tree.files if name.lower().endswith(".npz")]
    return read(tree.path / files[0]) if tree.path and len(files) == 1 else None


def read(path):
    """`(training, validation or None)` of an `.npz` with `x_train` and `y_train`, and `x_test` or `x_val` with theirs.

    Images are `(n, height, width)`, `(n, height, width, 1)` or `(n, height, width, 3)`: whole numbers from 0 to 255,
    or floats, which go from 0 to 1 if none of any part is above 1, and otherwise from 0 to 255. Labels are `(n,)`,
    `(n, 1)` or one-hot, numbers or text; `class_names` may name the numbers.

    Raises:
        DataError: something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = {key.lower(): key for key in file.files}
            parts = [_arrays(file, keys, part) for part in ("train", "val", "valid", "validation", "test")]
            names = file[keys["class_names"]] if "class_names" in keys else None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, MemoryError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition("\n")[0]
        raise DataError(f"data_dir: {path} cannot be read ({reason}).") from None
    training, validation = parts[0], next((part for part in parts[1:] if part is not None), None)
    if training is None and validation is None:
        raise DataError(
            f"data_dir: {path} must hold x_train and y_train, and may hold x_test and y_test or x_val and y_val. "
            f"Received: {', '.join(keys) or 'nothing'}."
        )
    present = [part for part in (training, validation) if part is not None]
    scale = _scale(path, [images for images, _ in present])
    labels = [_labels(path, labels, len(images)) for images, labels in present]
    if names is None and len(labels) == 2 and (strangers := set(labels[1].tolist()) - set(labels[0].tolist())):
        shown = ", ".join(sorted(map(str, strangers))[:5])
        raise DataError(f"data_dir: {path} has labels that the training images lack: {shown}.")
    class_names, labels = _named(path, labels, names)
    sources = [
        Source.whole(Arrays(_bytes(images, scale)), own, class_names, f"the arrays in {path.name}")
        for (images, _), own in zip(present, labels, strict=True)
    ]
    return (None if training is None else sources[0]), (None if validation is None else sources[-1])


def _arrays(file, keys, part):
    for x, y in ((f"x_{part}", f"y_{part}"), (f"{part}_images", f"{part}_labels")):
        if x in keys and y in keys:
            return file[keys[x]], file[keys[y]]
    return None


def _scale(path, arrays):
    """What pixels are multiplied by, once for all parts: a dark part must not be taken for another range."""
    lowest, highest = np.inf, -np.inf
    for array in arrays:
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)) or 0 in array.shape:
            raise DataError(
                f"data_dir: {path}: images must be (n, height, width), (n, height, width, 1) or (n, height, width, 3). "
                f"Received: {array.shape}."
            )
        if array.dtype.kind not in "uif":
            raise DataError(f"data_dir: {path}: images must be whole numbers or floats. Received: {array.dtype}.")
        lowest, highest = np.minimum(lowest, array.min()), np.maximum(highest, array.max())  # a NaN stays one
    if not (lowest >= 0 and highest <= 255):
        raise DataError(
            f"data_dir: {path}: pixels must go from 0 to 1 or from 0 to 255. Received: {lowest:g} to {highest:g}."
        )
    return 255 if highest <= 1 and all(array.dtype.kind == "f" for array in arrays) else 1


def _bytes(array, scale):
    array = array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
    if array.dtype == np.uint8:
        return array
    found = np.empty(array.shape, np.uint8)
    for index, image in enumerate(array):  # one by one: all at once would need several times the memory
        found[index] = np.rint(image * scale)
    return found


def _labels(path, labels, count):
    """Labels `(n,)`."""
    received = f"Received: {labels.dtype} {labels.shape} for {count:,} images."
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "uifb":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise DataError(f"data_dir: {path}: labels of two dimensions must be one-hot. {received}")
        labels = labels.argmax(1)
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if (
        labels.shape != (count,)
        or labels.dtype.kind not in "uifU"
        or (labels.dtype.kind == "f" and not (labels == np.rint(labels)).all())
    ):
        raise DataError(f"data_dir: {path}: labels must be (n,), (n, 1) or one-hot. {received}")
    return labels.astype(np.int64) if labels.dtype.kind in "uif" else labels


def _named(path, labels, names):
    """`(class names, labels as indices into them)`."""
    if names is None or labels[0].dtype.kind == "U":
        values, places = np.unique(np.concatenate(labels), return_inverse=True)
        return [str(value) for value in values], np.split(places, np.cumsum([len(own) for own in labels])[:-1])
    if names.ndim != 1 or len(set(names.tolist())) < len(names):
        raise DataError(f"data_dir: {path}: class_names must be a list of different names.")
    if any(own.min() < 0 or own.max() >= len(names) for own in labels):
        raise DataError(f"data_dir: {path}: labels must be 0 to {len(names) - 1}, one for each of class_names.")
    return [str(name) for name in names], labels
