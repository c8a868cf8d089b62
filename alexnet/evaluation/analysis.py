"""What a model sees: features, neighbors in feature space, and which part of an image matters."""

import keras
import numpy as np

from alexnet.data.augmentation import center_crop
from alexnet.evaluation.metrics import input_size, predict_in_batches


def extract_features(model: keras.Model, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """The activations of the last hidden layer, `(n, units)`: for the paper's network those of fc7 (figure 4).

    Args:
        images: `(n, side, side, 3)`, the model's input or larger; the central crop is taken.
    """
    classifier = next(layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense))
    network = keras.Model(model.inputs[0], classifier.input)  # dropout before it has no effect in prediction
    return predict_in_batches(network, center_crop(images, input_size(model) or images.shape[1]), batch_size)


def nearest_neighbors(queries: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """For each query the indices of its `count` nearest vectors by Euclidean distance, `(n, count)`."""
    distances = (vectors**2).sum(1) - 2 * queries @ vectors.T
    return np.argsort(distances, axis=1, kind="stable")[:, :count]


def occlusion_sensitivity(
    model: keras.Model, image: np.ndarray, label: int, places: int = 13, batch_size: int = 32
) -> np.ndarray:
    """How probable a class stays when a square hides a part of the image (Zeiler and Fergus, 2013).

    The square is a fifth of the image wide, of the image's median color, and moves to `places` positions in each
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
    return predict_in_batches(model, hidden, batch_size)[:, label].reshape(places, places)
