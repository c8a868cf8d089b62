"""Top-1, top-5 and loss of a model on labelled images."""

import numpy as np


def evaluate(model, data):
    """How often a model's first guess, or one of its first five, is right.

    Args:
        model: Images `(batch, height, width, 3)`, RGB 0-255, to probabilities `(batch, classes)`.
        data: `alexnet.data.Images`, or anything whose `batches()` yields `(images, labels)`.

    Returns:
        `{"top1": ..., "top5": ..., "loss": ...}`: two shares between 0 and 1, and the mean cross-entropy in nats.
    """
    ranks, losses, batch_size = [], [], None
    for images, labels in data.batches():
        batch_size = batch_size or len(images)
        missing = batch_size - len(images)
        # A last batch filled up to the others' size spares compiling the model for another shape.
        filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images
        probabilities = np.asarray(model.predict_on_batch(filled), np.float64)[: len(images)]
        ranks.append(rank(probabilities, labels))
        chosen = probabilities[np.arange(len(labels)), labels]
        losses.append(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)))
    ranks, losses = np.concatenate(ranks), np.concatenate(losses)
    return {
        "top1": float(np.mean(ranks < 1)),
        "top5": float(np.mean(ranks < 5)),
        "loss": float(np.mean(losses)),
    }


def rank(probabilities, labels):
    """How many classes each image's label stands behind; of equals the first class leads, and NaN is last."""
    probabilities = np.where(np.isnan(probabilities), -np.inf, probabilities)
    chosen = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < np.asarray(labels)[:, None]
    return np.sum((probabilities > chosen) | ((probabilities == chosen) & before), axis=1)
