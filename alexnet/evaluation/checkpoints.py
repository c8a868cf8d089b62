"""Facts about a checkpoint that its model does not hold."""

import json
from os import PathLike

import keras

from alexnet.data import imagenet
from alexnet.evaluation.metrics import input_size
from alexnet.weights import recognize


def checkpoint_info(weights: str | PathLike, model: keras.Model) -> tuple[list[str] | None, int]:
    """Facts that a model does not hold: its classes, and how large images should be before the crop.

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
    classes, size = model.output.shape[-1], input_size(model) or 227
    try:
        metrics = json.loads((recognize(weights)[0].parent / "metrics.json").read_text(encoding="utf-8"))
        names, resize = metrics["data"]["class_names"], metrics["parameters"]["resize"]
        if len(names) == classes and resize >= size:
            return names, resize
    except (OSError, ValueError, KeyError, TypeError):
        pass
    names = list(imagenet.names()) if classes == 1000 else None
    return names, 256 if 224 <= size <= 256 else round(size * 256 / 227)
