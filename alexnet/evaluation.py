"""How good a model is, where it fails, and what it sees."""

import json
from dataclasses import dataclass

import keras
import numpy as np

from alexnet.batches import batches
from alexnet.data import imagenet
from alexnet.data.augmentation import center_crop, ten_crop
from alexnet.progress import progress
from alexnet.weights import recognize

VIEWS = (1, 10)


def evaluate(model, data, views=1, verbose=None):
    """How often a model's first guess, or one of its first five, is right.

    Args:
        model: From images `(batch, height, width, 3)`, RGB 0-255, to probabilities `(batch, classes)`; or a list of
            models, whose probabilities are averaged, as the paper does with five and seven.
        data: What `alexnet.load_data` and `load_test_data` return; two arrays `(images, labels)`; or batches of such:
            a `keras.utils.PyDataset`, a batched `tf.data.Dataset`, a torch `DataLoader`, any iterable. Images are
            `(n, side, side, 3)`, RGB 0-255, of the model's input size or larger; labels are numbers of classes `(n,)`
            or one-hot `(n, classes)`.
        views: 1 for the central crop, 10 for the paper's four corners and centre and their mirror images, whose
            probabilities are averaged (section 4.1).
        verbose: 1 for a progress bar, 0 for silence; None for the bar where a person is watching.

    Returns:
        `{"top1": ..., "top5": ..., "loss": ...}`: two shares between 0 and 1, and the mean cross-entropy in nats. Of
        classes with equal probabilities the one with the smaller number goes first. An image of which the model says
        NaN is never right, and makes the loss NaN.

    Raises:
        TypeError: data of another kind.
        ValueError: another number of views, images smaller than the model's input, pixels or labels that cannot be
            what is meant, a model whose output are no probabilities.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> images, labels = np.zeros((8, 67, 67, 3), "uint8"), np.arange(8) % 3
        >>> sorted(alexnet.evaluate(model, (images, labels), verbose=0))
        ['loss', 'top1', 'top5']
    """
    return assess(model, data, views, verbose).scores


@dataclass(frozen=True)
class EvaluationResult:
    """What a model said about every image.

    Attributes:
        class_names: A name for each class.
        labels: The right classes, `(n,)`; -1 for an image that could not be read, which counts nowhere.
        guesses: The five most probable classes of each image, `(n, 5)`, or fewer where there are fewer.
        probabilities: Theirs, `(n, 5)`.
        ranks: How many classes the right one stands behind, `(n,)`, as `rank` counts them.
        losses: Cross-entropy of each image in nats, `(n,)`.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> images, labels = np.zeros((8, 67, 67, 3), "uint8"), np.arange(8) % 3
        >>> result = alexnet.assess(model, (images, labels), verbose=0)
        >>> int(result.confusion().sum()), len(result.mistakes()) <= 8
        (8, True)
    """

    class_names: list
    labels: np.ndarray
    guesses: np.ndarray
    probabilities: np.ndarray
    ranks: np.ndarray
    losses: np.ndarray

    @property
    def scores(self):
        """`{"top1": ..., "top5": ..., "loss": ...}` of all images."""
        read = self.labels >= 0
        return {
            "top1": float(np.mean(self.ranks[read] < 1)),
            "top5": float(np.mean(self.ranks[read] < 5)),
            "loss": float(np.mean(self.losses[read])),
        }

    def per_class(self):
        """A dictionary for each class that has images, the worst first.

        `class`, `name`, `images`, `top1`, `top5`, and `most_confused_with`: the name that its images are most often
        wrongly given, or nothing.
        """
        rows = []
        for label in np.unique(self.labels[self.labels >= 0]):
            here = self.labels == label
            wrong = self.guesses[here, 0][self.ranks[here] > 0]
            mistaken = imagenet.class_display_name(self.class_names[np.bincount(wrong).argmax()]) if len(wrong) else ""
            rows.append(
                {
                    "class": self.class_names[label],
                    "name": imagenet.class_display_name(self.class_names[label]),
                    "images": int(here.sum()),
                    "top1": float(np.mean(self.ranks[here] < 1)),
                    "top5": float(np.mean(self.ranks[here] < 5)),
                    "most_confused_with": mistaken,
                }
            )
        return sorted(rows, key=lambda row: (row["top1"], row["top5"], row["class"]))

    def confusion(self):
        """How many images of class i (row) were taken for class j (column), `(classes, classes)`."""
        counts = np.zeros((len(self.class_names), len(self.class_names)), np.int64)
        read = self.labels >= 0
        np.add.at(counts, (self.labels[read], self.guesses[read, 0]), 1)
        return counts

    def mistakes(self, count=None):
        """Indices of the images whose first guess is wrong, the most confident first."""
        wrong = np.flatnonzero((self.ranks > 0) & (self.labels >= 0))
        return wrong[np.argsort(-self.probabilities[wrong, 0], kind="stable")][:count]


def assess(model, data, views=1, verbose=None):
    """What a model, or the average of several, says about every image; arguments as for `evaluate`.

    Batch by batch: what is kept of an image is five guesses, not the probabilities of all classes.

    Returns:
        `EvaluationResult`.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> images, labels = np.zeros((8, 67, 67, 3), "uint8"), np.arange(8) % 3
        >>> alexnet.assess(model, (images, labels), verbose=0).confusion().shape
        (3, 3)
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1 or 10. Received: views={views!r}")
    models = model if isinstance(model, list | tuple) else [model]
    kept = {"labels": [], "guesses": [], "probabilities": [], "ranks": [], "losses": []}
    batch_size = probabilities = None
    for squares, labels in progress(*batches(data), "Evaluating", verbose):
        batch_size = batch_size or len(squares)
        probabilities = np.mean([predict_probabilities(one, squares, views, batch_size) for one in models], axis=0)
        _check(probabilities, labels)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        chosen = probabilities[np.arange(len(labels)), labels]
        kept["labels"].append(labels)
        kept["guesses"].append(best)
        kept["probabilities"].append(np.take_along_axis(probabilities, best, 1))
        kept["ranks"].append(label_rank(probabilities, labels))
        kept["losses"].append(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)))
    if probabilities is None:
        raise ValueError("There are no images to evaluate on.")
    names = getattr(data, "class_names", None) or [str(i) for i in range(probabilities.shape[1])]
    if len(names) != probabilities.shape[1]:
        raise ValueError(f"The model has {probabilities.shape[1]} classes, the images {len(names)}.")
    assessment = EvaluationResult(names, **{name: np.concatenate(values) for name, values in kept.items()})
    if not np.any(assessment.labels >= 0):
        raise ValueError("None of the images could be read.")
    return assessment


def _check(probabilities, labels):
    sums = probabilities.sum(1)
    if np.min(probabilities) < 0 or np.any(np.abs(sums - 1) > 0.02):  # neither is true of NaN
        raise ValueError(
            f"The model's outputs are no probabilities, they sum to {sums[np.abs(sums - 1).argmax()]:.3g}: it needs a "
            "softmax after its last layer."
        )
    if np.max(labels, initial=0) >= probabilities.shape[1]:
        raise ValueError(f"There is a label {np.max(labels)}, and the model has {probabilities.shape[1]} classes.")


def predict_probabilities(model, squares, views=1, batch_size=32):
    """Probabilities of square images, `(n, classes)` float64, averaged over their views.

    The last batch is filled up to the others' size, so that a model is compiled for one shape only.
    """
    size = input_size(model)
    if size is None and views == 10:
        raise ValueError("The model does not say how large its images are, and ten views are cut to that size.")
    size = size or squares.shape[1]
    if squares.shape[1] < size:
        raise ValueError(f"The images have {squares.shape[1]} pixels a side, the model takes {size}.")
    crops = ten_crop(squares, size) if views == 10 else [center_crop(squares, size)]
    return sum(_predict(model, crop, batch_size) for crop in crops) / views


def _predict(model, images, batch_size):
    """What a model says to any number of images, in batches of one size, float64."""
    found = []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        filled = np.zeros((batch_size, *batch.shape[1:]), batch.dtype)
        filled[: len(batch)] = batch  # and contiguous, which a mirror image is not: PyTorch takes no other
        found.append(np.asarray(model.predict_on_batch(filled), np.float64)[: len(batch)])
    return np.concatenate(found)


def input_size(model):
    """Pixels a side of a model's input; None of one that takes any size, or does not say, as a subclass of Keras's."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].shape[1] if inputs else None


def label_rank(probabilities, labels):
    """How many classes each image's label stands behind, `(n,)`; of equals the class with the smaller number leads.

    With a NaN among its probabilities an image is never right: it stands behind all, and behind five where there are
    fewer classes.
    """
    chosen = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < np.asarray(labels)[:, None]
    ranks = np.sum((probabilities > chosen) | ((probabilities == chosen) & before), axis=1)
    return np.where(np.isnan(probabilities).any(axis=1), max(5, probabilities.shape[1]), ranks)


def checkpoint_info(weights, model):
    """What a model does not say itself: its classes, and how large images should be before the crop.

    A run recorded both beside its `model.keras`. Any other model of 1000 classes has ImageNet's, in the order of the
    published checkpoints; of others the names are unknown.

    Returns:
        `(class_names, resize)`; `class_names` is None where they are unknown.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> alexnet.save_checkpoint(model, f"{folder}/nameless.keras")
        >>> alexnet.checkpoint_info(f"{folder}/nameless.keras", model)
        (None, 76)
    """
    classes, size = model.output.shape[-1], input_size(model)
    try:
        metrics = json.loads((recognize(weights)[0].parent / "metrics.json").read_text(encoding="utf-8"))
        names, resize = metrics["data"]["class_names"], metrics["parameters"]["resize"]
        if len(names) == classes and resize >= size:
            return names, resize
    except (OSError, ValueError, KeyError, TypeError):
        pass
    names = list(imagenet.names()) if classes == 1000 else None
    return names, 256 if 224 <= size <= 256 else round(size * 256 / 227)


def extract_features(model, images, batch_size=32):
    """What the last hidden layer makes of images, `(n, units of fc7)`: the space of the paper's figure 4.

    Args:
        images: `(n, side, side, 3)`, the model's input or larger; the central crop is taken.
    """
    network = keras.Model(model.inputs[0], model.get_layer("relu7").output)
    return _predict(network, center_crop(images, input_size(model)), batch_size)


def nearest_neighbors(queries, vectors, count):
    """For each query the indices of its `count` nearest vectors by Euclidean distance, `(n, count)`."""
    squares = (vectors**2).sum(1) - 2 * queries @ vectors.T
    return np.argsort(squares, axis=1, kind="stable")[:, :count]


def occlusion_sensitivity(model, image, label, places=13, batch_size=32):
    """How probable a class stays when a square hides a part of the image (Zeiler and Fergus, 2013).

    The square is a fifth of the image wide, of the image's median colour, and moves to `places` places in each
    direction.

    Args:
        image: `(side, side, 3)`, the model's input or larger; the central crop is taken.
        label: The class.

    Returns:
        `(places, places)`, probabilities.
    """
    image = center_crop(image[None], input_size(model) or len(image))[0]
    side = len(image)
    corners = np.linspace(-side // 10, side - side // 10, places).round().astype(int)
    hidden = np.repeat(image[None], places**2, axis=0)
    for number, (y, x) in enumerate((y, x) for y in corners for x in corners):
        part = slice(max(0, y), max(0, y + side // 5)), slice(max(0, x), max(0, x + side // 5))
        hidden[number][part] = np.median(image, axis=(0, 1))
    return _predict(model, hidden, batch_size)[:, label].reshape(places, places)
