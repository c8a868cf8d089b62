"""A program that uses the package and checks that its own state has not changed; see test_side_effects.py.

KERAS_BACKEND=jax python tests/side_effects.py using FOLDER
"""

import gc
import logging
import os
import random
import reprlib
import signal
import sys
import threading
import warnings

import keras
import numpy as np
from PIL import Image, ImageFile

BACKEND = keras.backend.backend()


def torch_state():
    import torch

    switches = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()
    return {"threads": torch.get_num_threads(), "switches": switches, "random": torch.get_rng_state().tolist()}


def jax_state():
    import jax

    return dict(jax.config.values)


def tensorflow_state():
    import tensorflow as tf

    threads = tf.config.threading
    return {
        "threads": (threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()),
        "switches": (tf.executing_eagerly(), tf.config.functions_run_eagerly(), tf.config.get_soft_device_placement()),
    }


def state():
    """The settings that a program may have made, by name."""
    config, numbers = keras.config, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "sys.path": list(sys.path),
        "finders": list(sys.meta_path),
        "random": random.getstate(),
        "numpy.random": str(np.random.get_state()),
        "numpy.errstate": np.geterr(),
        "dtype policy": config.dtype_policy().name,
        "floatx": config.floatx(),
        "epsilon": config.epsilon(),
        "image_data_format": config.image_data_format(),
        "interactive logging": config.is_interactive_logging_enabled(),
        "traceback filtering": config.is_traceback_filtering_enabled(),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "signals": {number: signal.getsignal(number) for number in numbers},
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "recursion": sys.getrecursionlimit(),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "root logger": (list(logging.getLogger().handlers), logging.getLogger().level),
        "own warnings": [rule for rule in warnings.filters if rule[0] == "error"],
        BACKEND: {"torch": torch_state, "jax": jax_state, "tensorflow": tensorflow_state}[BACKEND](),
    }


class Watch:
    """Compares the state of the process with that at the last check."""

    def __init__(self):
        self.before = state()

    def unchanged(self, after, but=()):
        now = state()
        for name, value in self.before.items():
            if name not in but and now[name] != value:
                raise AssertionError(f"{after} changed {name}: {reprlib.repr(value)} -> {reprlib.repr(now[name])}")
        self.before = now
        print(after)


def prepare():
    """Settings that are not the usual ones."""
    random.seed(7)
    np.random.seed(7)
    np.seterr(divide="ignore")
    keras.config.set_epsilon(1e-5)
    Image.MAX_IMAGE_PIXELS = 12_345_678
    warnings.simplefilter("error", UserWarning)


def importing():
    prepare()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    keras.config.set_image_data_format("channels_first")
    watch = Watch()
    import alexnet

    watch.unchanged("import")
    for name in alexnet.__all__:
        getattr(alexnet, name)
    watch.unchanged("every name")
    assert alexnet.import_keras() is keras
    watch.unchanged("import_keras")


def draw_images(folder):
    for split, count in (("train", 8), ("val", 4)):
        for name in "ab":
            os.makedirs(f"{folder}/{split}/{name}")
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 256, (70, 70, 3), np.uint8)
                Image.fromarray(pixels).save(f"{folder}/{split}/{name}/{number}.jpg")


def using(folder):
    """Building a model draws seeds from Python's generator, as every Keras layer does; nothing else changes."""
    import alexnet

    draw_images(f"{folder}/data")
    prepare()
    fields = {"data_dir": f"{folder}/data", "run_dir": folder, "resize": 67, "width": 0.0625, "epochs": 1}
    recipe = alexnet.Recipe(**fields, name="tiny", batch_size=8, dtype_policy="mixed_bfloat16", pca_color=0.1)
    watch = Watch()
    _, validation = alexnet.load_data(recipe)
    watch.unchanged("load_data")
    alexnet.train(recipe, verbose=0)
    watch.unchanged("train")
    model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=2, width=0.0625)
    watch.unchanged("AlexNet", but=["random"])
    alexnet.evaluate(model, validation)
    alexnet.evaluate(model, validation, details=True)
    watch.unchanged("evaluate")
    alexnet.summarize_layers(model)
    alexnet.without_softmax(model)
    watch.unchanged("without_softmax")
    for ending in (".keras", ".weights.h5", ".pth", ".safetensors", ".onnx"):
        path = f"{folder}/saved{ending}"
        alexnet.save_checkpoint(model, path)
        watch.unchanged(f"saving {ending}")
        alexnet.load_checkpoint(path, network="paper" if ending in (".weights.h5", ".pth") else None)
        watch.unchanged(f"loading {ending}", but=["random"])
    from alexnet import plotting

    plotting.filters(model, model)
    watch.unchanged("figures")


def kept_megabytes():
    """How many of 256 MB that were used and freed the process still holds."""
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    blocks = [np.ones(1 << 22) for _ in range(8)]
    del blocks
    return (process.memory_info().rss - before) / 2**20


def memory():
    """Freed memory goes back to the system after an import and after a run; it is kept only while tuned."""
    import alexnet
    from alexnet.runtime import trim_memory, tuned_process

    assert alexnet.AlexNet and kept_megabytes() < 20
    alexnet.tune_process()
    assert kept_megabytes() > 200
    trim_memory()
    assert kept_megabytes() > 200  # returned to the system and requested again
    alexnet.restore_process()
    assert kept_megabytes() < 20
    with tuned_process():
        assert kept_megabytes() > 200
    assert kept_megabytes() < 20
    alexnet.tune_process()
    with tuned_process():  # as in `train`, but the program wants it for longer
        kept_megabytes()
    blocks = np.ones(1 << 24)
    del blocks
    alexnet.restore_process()
    assert kept_megabytes() < 20
    print("memory")


def users_memory():
    """A user's settings of malloc in the environment are kept."""
    import alexnet

    assert any(name.startswith("MALLOC_") for name in os.environ)
    alexnet.tune_process()
    assert kept_megabytes() < 20
    print("memory")


if __name__ == "__main__":
    {"importing": importing, "using": using, "memory": memory, "users_memory": users_memory}[sys.argv[1]](*sys.argv[2:])
