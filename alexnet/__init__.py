"""AlexNet (Krizhevsky, Sutskever, Hinton 2012) in Keras 3, for TensorFlow, JAX and PyTorch.

Names are imported when first used, so that the backend can be chosen after `import alexnet`:
`alexnet.import_keras(backend)`.
"""

import importlib

_HOMES = {
    "AlexNet": "model",
    "CheckpointError": "checkpoints",
    "layer_table": "model",
    "load_checkpoint": "model",
    "save_checkpoint": "model",
    "logits_model": "model",
    "PRESETS": "presets",
    "PROJECT": "recipe",
    "GroupedConv2D": "layers",
    "LocalResponseNormalization": "layers",
    "SameMapNormalization": "layers",
    "BackendError": "backend",
    "import_keras": "backend",
    "Recipe": "recipe",
    "RecipeError": "recipe",
    "check_parameters": "recipe",
    "resolve": "recipe",
    "DataError": "data",
    "ImageError": "data",
    "load_data": "data",
    "load_test_data": "data",
    "readable": "data",
    "Assessment": "evaluation",
    "about": "evaluation",
    "assess": "evaluation",
    "evaluate": "evaluation",
    "Run": "training",
    "RunError": "training",
    "build": "training",
    "finished_run": "training",
    "read_history": "training",
    "train": "training",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"alexnet.{_HOMES[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
