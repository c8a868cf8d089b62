"""Top-1 and top-5 during training, counted as in `alexnet.evaluate` on every backend."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="alexnet")
class TopK(keras.metrics.Mean):
    """The share of images whose label is among the `k` classes with the highest scores.

    Of equal scores the class with the smaller number goes first, and an image with a NaN among its scores is never
    right. Keras's own metric counts both differently from backend to backend.

    Args:
        k: How many classes count.
        name: Of the metric.
    """

    def __init__(self, k: int, name: str = "top_k", dtype: str = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.k = k

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch: labels `(batch,)` and scores `(batch, classes)`."""
        super().update_state(in_top_k(y_true, y_pred, self.k), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


def in_top_k(labels, scores, k):
    """Whether each label is among the `k` highest scores, booleans `(batch,)`; see `TopK`."""
    scores = ops.convert_to_tensor(scores)
    classes = ops.arange(scores.shape[-1], dtype="int32")[None]
    labels = ops.cast(ops.reshape(ops.convert_to_tensor(labels), (-1, 1)), "int32")
    none = ops.convert_to_tensor(float("-inf"), scores.dtype)
    chosen = ops.max(ops.where(classes == labels, scores, none), axis=-1, keepdims=True)
    ahead = ops.logical_or(scores > chosen, ops.logical_and(scores == chosen, classes < labels))
    rank = ops.sum(ops.cast(ahead, "int32"), axis=-1)
    return ops.logical_and(rank < k, ops.logical_not(ops.any(ops.isnan(scores), axis=-1)))
