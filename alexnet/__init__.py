"""AlexNet (Krizhevsky, Sutskever, Hinton 2012) in Keras 3, for TensorFlow, JAX and PyTorch.

Names are imported when first used, so that the backend can be chosen after `import alexnet`:
`alexnet.import_keras(backend)`.
"""

import importlib
import importlib.util
import sys
import threading

_LAZY_ATTRS = {
    "AlexNet": "model",
    "CheckpointError": "weights",
    "summarize_layers": "model",
    "load_checkpoint": "saving",
    "save_checkpoint": "saving",
    "without_softmax": "model",
    "NETWORKS": "networks",
    "Network": "networks",
    "register_network": "networks",
    "AveragePooling2D": "layers",
    "GroupedConv2D": "layers",
    "LocallyConnected2D": "layers",
    "LocalResponseNormalization": "layers",
    "WithinChannelLRN": "layers",
    "BackendError": "runtime",
    "divide_processor": "runtime",
    "import_keras": "runtime",
    "restore_process": "runtime",
    "tune_process": "runtime",
    "Recipe": "recipe",
    "RecipeError": "recipe",
    "check_parameters": "recipe",
    "DataError": "data",
    "ImageError": "data",
    "load_data": "data",
    "load_test_data": "data",
    "class_display_name": "data",
    "EvaluationResult": "evaluation",
    "checkpoint_info": "evaluation",
    "evaluate": "evaluation",
    "Run": "training",
    "RunError": "training",
    "build_model": "training",
    "load_or_train": "training",
    "print_versions": "training",
    "read_history": "training",
    "train": "training",
}

__all__ = sorted(_LAZY_ATTRS)
__version__ = "0.1.0"


def __getattr__(name):
    if name not in _LAZY_ATTRS:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"alexnet.{_LAZY_ATTRS[name]}"), name)


def __dir__():
    return [*globals(), *__all__]


class _SGD:
    """Represents `alexnet.training.SGD` in Keras's registry: the training code is imported when a model needs it."""

    @staticmethod
    def from_config(config):
        return importlib.import_module("alexnet.training.optimizer").SGD.from_config(config)


def _register():
    importlib.import_module("alexnet.layers")
    sys.modules["keras"].saving.get_custom_objects().setdefault("alexnet>SGD", _SGD)


class _AfterKeras:
    """Registers our layers once Keras is imported, so that `keras.saving.load_model` knows those of a saved model.

    Keras finds classes by what has been registered, and a program may import it before this package or after.
    Others may look for Keras without importing it: the finder stays until Keras is there.
    """

    _looking = threading.local()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "keras" or getattr(cls._looking, "now", False):
            return None
        cls._looking.now = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            cls._looking.now = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                if cls in sys.meta_path:
                    sys.meta_path.remove(cls)
                _register()

            spec.loader.exec_module = execute_and_register
        return spec


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterKeras)
