"""Labeled images as other programs hold them: arrays, a Keras data set, `tf.data`, a torch `DataLoader`."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

KINDS = (
    "the images of alexnet.load_data or load_test_data, two arrays (images, labels), or batches of such: a "
    "keras.utils.PyDataset, a batched tf.data.Dataset, a torch DataLoader"
)
BATCH_SIZE = 32  # of arrays


def batches(data: Any) -> tuple[Iterable, int | None]:
    """Batches `(images, labels)` of labeled images in any supported form, and their number, or None if unknown.

    Images are NumPy arrays `(n, side, side, 3)`, RGB 0-255, labels `(n,)` integers.

    Raises:
        TypeError: an unsupported kind of data.
        ValueError: endless data; and while iterating, invalid pixels or labels.
    """
    if callable(getattr(data, "images", None)):
        return data.images(), getattr(data, "steps_per_epoch", None)
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple):
        images, labels = _pair(data)
        return _slices(images, labels), -(-len(images) // BATCH_SIZE)
    if isinstance(data, str | bytes | dict) or not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise TypeError(f"data: expected {KINDS}. Received: {type(data).__name__}")
    count = _count(data)
    if isinstance(data, keras.utils.PyDataset):  # iterating over it would not end
        return (_pair(data[i]) for i in range(count)), count
    return map(_pair, data), count


def _count(data):
    if int(np.asarray(data.cardinality() if hasattr(data, "cardinality") else 0)) == -1:  # what tf.data calls infinite
        raise ValueError("data: these batches never end; use take(n).")
    try:
        return len(data)
    except TypeError:
        return None


def _slices(images, labels):
    for first in range(0, len(images), BATCH_SIZE):
        yield images[first : first + BATCH_SIZE], labels[first : first + BATCH_SIZE]


def _pair(batch):
    """One batch, or all of the data, as validated arrays."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        what = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise TypeError(f"data: a batch must be a pair (images, labels). Received: {what}. Expected in all: {KINDS}.")
    images, labels = map(_array, batch)
    _check_images(images)
    labels = _numbers(labels)
    if len(images) != len(labels):
        raise ValueError(f"data: there are {len(images)} images and {len(labels)} labels.")
    return images if images.dtype == np.uint8 else images.astype(np.float32), labels


def _array(values):
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (ValueError, TypeError) as error:
        raise TypeError(f"data: cannot be made into an array ({error}). Expected: {KINDS}.") from None


def _check_images(images):
    if images.dtype.kind not in "uif":
        raise TypeError(f"data: pixels must be numbers. Received: {images.dtype} {images.shape}")
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        swap = " Move their channels to the end." if images.ndim == 4 and images.shape[1] == 3 else ""
        raise ValueError(f"data: expected images (n, side, side, 3). Received: {images.shape}.{swap}")
    if images.dtype == np.uint8 or not images.size:
        return
    least, most = images.min(), images.max()
    if not (least > -0.5 and most < 255.5):  # nor for a NaN
        raise ValueError(f"data: pixels must be 0 to 255, as in an image file. Received: {least:g} to {most:g}")
    if images.dtype.kind == "f" and 0 < most <= 1:
        raise ValueError(f"data: pixels must be 0 to 255. Received: {least:g} to {most:g}; multiply them by 255.")


def _numbers(labels):
    """Labels as integers `(n,)`."""
    if labels.dtype.kind not in "buif":
        raise TypeError(f"data: labels must be numbers of classes. Received: {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not np.all(((labels == 0) | (labels == 1)).all(1) & (labels.sum(1) == 1)):
            raise ValueError("data: of labels (n, classes) each row must have a single 1, and 0 elsewhere.")
        return labels.argmax(1)
    if labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"data: expected labels (n,) or (n, classes). Received: {labels.shape}")
    if not np.all((labels >= 0) & (labels == np.floor(labels)) & (labels < 2**31)):
        raise ValueError("data: labels must be whole numbers from 0 on.")
    return labels.astype(np.int64)
