"""The backend of the process is KERAS_BACKEND; on each, the references are torch, TensorFlow and onnxruntime."""

import os
import signal

import torch  # noqa: F401  before TensorFlow: the other order crashes in some builds

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # what a shell starts in the background ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402
from helpers import RUNS, write_class_folders  # noqa: E402

import alexnet  # noqa: E402

keras = alexnet.import_keras()
alexnet.tune_process()  # as every run does; on JAX it must come before the first computation


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    """A small version of the built-in data set: three classes, 24 + 6 images each."""
    return write_class_folders(tmp_path_factory.mktemp("data") / "small", {"train": 24, "val": 6})


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    """Runs, and the listings cached beside them, are in a folder of their own."""
    monkeypatch.setitem(RUNS, "run_dir", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def tiny(shapes_folder, tmp_path):
    """Fields of a recipe that trains in a second."""
    return {
        "data_dir": str(shapes_folder),
        "run_dir": str(tmp_path / "runs"),
        "name": "tiny",
        "resize": 72,
        "width": 0.0625,
        "epochs": 2,
        "batch_size": 12,
    }
