"""How good a model is: top-1, top-5 and cross-entropy, on one crop of each image or ten."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from alexnet.data import ImageDataset, class_display_name
from alexnet.data.augmentation import center_crop, ten_crop
from alexnet.evaluation.batches import batches
from alexnet.progress import progress

VIEWS = (1, 10)


def evaluate(
    model: keras.Model | Sequence[keras.Model],
    data: ImageDataset | tuple | Iterable,
    views: int = 1,
    verbose: int | None = None,
    details: bool = False,
) -> "dict[str, float] | EvaluationResult":
    """Top-1 and top-5 accuracy, and cross-entropy, of a model on labeled images.

    Args:
        model: From images `(batch, height, width, 3)`, RGB 0-255, to probabilities `(batch, classes)`; or a list of
            models, whose probabilities are averaged, as the paper does with five and seven.
        data: What `alexnet.load_data` and `load_test_data` return; two arrays `(images, labels)`; or batches of such:
            a `keras.utils.PyDataset`, a batched `tf.data.Dataset`, a torch `DataLoader`, any iterable. Images are
            `(n, side, side, 3)`, RGB 0-255, of the model's input size or larger; labels are numbers of classes `(n,)`
            or one-hot `(n, classes)`.
        views: 1 for the central crop, 10 for the paper's four corners and center and their mirror images, whose
            probabilities are averaged (section 4.1).
        verbose: 1 for a progress bar, 0 for silence; None for the bar where a person is watching.
        details: Whether to return the predictions for every image instead of three numbers.

    Returns:
        `{"top1": ..., "top5": ..., "loss": ...}`: two shares between 0 and 1, and the mean cross-entropy in nats. If
        classes have equal probabilities, the one with the smaller number goes first. An image whose prediction is NaN
        is never right, and makes the loss NaN. With `details` an `EvaluationResult`, of which these are the
        `metrics`.

    Raises:
        TypeError: an unsupported kind of data.
        ValueError: a different number of views, images smaller than the model's input, invalid pixels or labels, or a
            model whose outputs are not probabilities.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> images, labels = np.zeros((8, 67, 67, 3), "uint8"), np.arange(8) % 3
        >>> sorted(alexnet.evaluate(model, (images, labels), verbose=0))
        ['loss', 'top1', 'top5']
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 10. Received: views={views!r}")
    models = model if isinstance(model, list | tuple) else [model]
    result = _evaluate(models, data, views, verbose)
    return result if details else result.metrics


@dataclass(frozen=True)
class EvaluationResult:
    """A model's predictions for every image.

    Attributes:
        class_names: A name for each class.
        labels: The true classes, `(n,)`; -1 for an image that could not be read, which is not counted.
        top5: The five most probable classes of each image, `(n, 5)`, or fewer where there are fewer.
        probabilities: Their probabilities, `(n, 5)`.
        label_ranks: The rank of the true class, `(n,)`: 0 if it is the most probable. See `label_rank`.
        losses: Cross-entropy of each image in nats, `(n,)`.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> images, labels = np.zeros((8, 67, 67, 3), "uint8"), np.arange(8) % 3
        >>> result = alexnet.evaluate(model, (images, labels), verbose=0, details=True)
        >>> int(result.confusion().sum()), len(result.misclassified()) <= 8
        (8, True)
    """

    class_names: list[str]
    labels: np.ndarray
    top5: np.ndarray
    probabilities: np.ndarray
    label_ranks: np.ndarray
    losses: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """`{"top1": ..., "top5": ..., "loss": ...}` of all images."""
        read = self.labels >= 0
        return {
            "top1": float(np.mean(self.label_ranks[read] < 1)),
            "top5": float(np.mean(self.label_ranks[read] < 5)),
            "loss": float(np.mean(self.losses[read])),
        }

    def per_class(self) -> list[dict]:
        """A dictionary for each class that has images, lowest accuracy first.

        `class`, `name`, `images`, `top1`, `top5`, and `most_confused_with`: the wrong class most
        often predicted for its images, or nothing.
        """
        rows = []
        for label in np.unique(self.labels[self.labels >= 0]):
            here = self.labels == label
            wrong = self.top5[here, 0][self.label_ranks[here] > 0]
            confused = class_display_name(self.class_names[np.bincount(wrong).argmax()]) if len(wrong) else ""
            rows.append(
                {
                    "class": self.class_names[label],
                    "name": class_display_name(self.class_names[label]),
                    "images": int(here.sum()),
                    "top1": float(np.mean(self.label_ranks[here] < 1)),
                    "top5": float(np.mean(self.label_ranks[here] < 5)),
                    "most_confused_with": confused,
                }
            )
        return sorted(rows, key=lambda row: (row["top1"], row["top5"], row["class"]))

    def confusion(self) -> np.ndarray:
        """How many images of true class i (row) were predicted as class j (column), `(classes, classes)`."""
        counts = np.zeros((len(self.class_names), len(self.class_names)), np.int64)
        read = self.labels >= 0
        np.add.at(counts, (self.labels[read], self.top5[read, 0]), 1)
        return counts

    def misclassified(self, count: int | None = None) -> np.ndarray:
        """Indices of the misclassified images, the most confident mistakes first."""
        wrong = np.flatnonzero((self.label_ranks > 0) & (self.labels >= 0))
        return wrong[np.argsort(-self.probabilities[wrong, 0], kind="stable")][:count]


def _evaluate(models, data, views, verbose):
    """`EvaluationResult`. Batch by batch: of each image only five classes are kept, not all probabilities."""
    kept = {"labels": [], "top5": [], "probabilities": [], "label_ranks": [], "losses": []}
    batch_size = probabilities = None
    for images, labels in progress(*batches(data), "Evaluating", verbose):
        batch_size = batch_size or len(images)
        probabilities = np.mean([predict_probabilities(one, images, views, batch_size) for one in models], axis=0)
        _check(probabilities, labels)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        chosen = probabilities[np.arange(len(labels)), labels]
        kept["labels"].append(labels)
        kept["top5"].append(best)
        kept["probabilities"].append(np.take_along_axis(probabilities, best, 1))
        kept["label_ranks"].append(label_rank(probabilities, labels))
        kept["losses"].append(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)))
    if probabilities is None:
        raise ValueError("There are no images to evaluate on.")
    names = getattr(data, "class_names", None) or [str(i) for i in range(probabilities.shape[1])]
    if len(names) != probabilities.shape[1]:
        raise ValueError(f"The model has {probabilities.shape[1]} classes, the images {len(names)}.")
    result = EvaluationResult(names, **{name: np.concatenate(values) for name, values in kept.items()})
    if not np.any(result.labels >= 0):
        raise ValueError("None of the images could be read.")
    return result


def _check(probabilities, labels):
    sums = probabilities.sum(1)
    if np.min(probabilities) < 0 or np.any(np.abs(sums - 1) > 0.02):  # both comparisons are false for NaN
        raise ValueError(
            f"The model's outputs are not probabilities (they sum to {sums[np.abs(sums - 1).argmax()]:.3g}): "
            "it needs a softmax after its last layer."
        )
    if np.max(labels, initial=0) >= probabilities.shape[1]:
        raise ValueError(f"There is a label {np.max(labels)}, but the model has {probabilities.shape[1]} classes.")


def predict_probabilities(model: keras.Model, images: np.ndarray, views: int = 1, batch_size: int = 32) -> np.ndarray:
    """Probabilities of square images, `(n, classes)` float64, averaged over their views.

    The last batch is filled up to the others' size, so that a model is compiled for one shape only.

    Args:
        images: `(n, side, side, 3)`, RGB 0-255, the model's input or larger.
        views: As for `evaluate`.

    Raises:
        ValueError: images smaller than the model's input, or ten views for a model of unknown input size.
    """
    size = input_size(model)
    if size is None and views == 10:
        raise ValueError("The model does not say its input size, which ten views need.")
    size = size or images.shape[1]
    if images.shape[1] < size:
        raise ValueError(f"The images have {images.shape[1]} pixels a side; the model needs {size}.")
    crops = ten_crop(images, size) if views == 10 else [center_crop(images, size)]
    return np.sum([predict_in_batches(model, crop, batch_size) for crop in crops], axis=0) / views


def predict_in_batches(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """A model's outputs for any number of images, computed in batches of one size, float64."""
    found = []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        filled = np.zeros((batch_size, *batch.shape[1:]), batch.dtype)
        filled[: len(batch)] = batch  # and contiguous, as PyTorch needs it; a mirrored view is not
        found.append(np.asarray(model.predict_on_batch(filled), np.float64)[: len(batch)])
    return np.concatenate(found)


def input_size(model: keras.Model) -> int | None:
    """Pixels a side of a model's input; None if it takes any size or does not say, like a subclassed model."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].shape[1] if inputs else None


def label_rank(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes are ranked before each image's true class, `(n,)`; of equals the smaller number goes first.

    An image with a NaN among its probabilities is never right: all classes count as ranked before it, and at least
    five where there are fewer.
    """
    chosen = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < np.asarray(labels)[:, None]
    ranks = np.sum((probabilities > chosen) | ((probabilities == chosen) & before), axis=1)
    return np.where(np.isnan(probabilities).any(axis=1), max(5, probabilities.shape[1]), ranks)
