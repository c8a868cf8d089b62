import numpy as np
import pytest

from alexnet.evaluation import evaluate, rank

pytestmark = pytest.mark.once


class Fixed:
    """A model that knows the probabilities of each image, which bears its number in its first pixel."""

    def __init__(self, probabilities):
        self.probabilities = probabilities
        self.sizes = set()

    def predict_on_batch(self, images):
        self.sizes.add(len(images))
        return self.probabilities[images[:, 0, 0, 0]]


class Numbered:
    def __init__(self, labels, batch_size):
        self.labels, self.batch_size = np.array(labels), batch_size

    def batches(self):
        for first in range(0, len(self.labels), self.batch_size):
            numbers = np.arange(first, min(first + self.batch_size, len(self.labels)))
            yield np.broadcast_to(numbers[:, None, None, None], (len(numbers), 4, 4, 3)), self.labels[numbers]


def test_by_hand_with_a_short_last_batch():
    probabilities = np.array(
        [[0.7, 0.1, 0.1, 0.04, 0.03, 0.03], [0.1, 0.2, 0.3, 0.2, 0.15, 0.05], [0.2, 0.2, 0.2, 0.2, 0.2, 0.0]]
    )
    model = Fixed(probabilities)
    found = evaluate(model, Numbered([0, 1, 5], 2))
    # Right at once; second of two equals behind the first guess; last of six, with a probability of zero.
    assert found["top1"] == pytest.approx(1 / 3)
    assert found["top5"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-(np.log(0.7) + np.log(0.2) + np.log(np.finfo(np.float32).tiny)) / 3)
    assert model.sizes == {2}  # one shape, one compilation


def test_a_model_without_opinion_is_no_better_than_chance():
    labels = np.arange(1000) % 10
    assert np.mean(rank(np.full((1000, 10), 0.1), labels) < 1) == pytest.approx(0.1)
    assert np.mean(rank(np.full((1000, 10), np.nan), labels) < 1) == pytest.approx(0.1)
