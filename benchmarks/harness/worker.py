"""One candidate in a process of its own. It reads commands as JSON lines, and writes an answer to each as a line.

    python -m benchmarks.harness.worker torch channels_last <<END
    {"do": "network", "width": 1.0, "image_size": 227, "batch_size": 32}
    {"do": "train", "count": 3}
    {"do": "predict", "batch_size": 1, "count": 10}
    END

| command | answer |
|---|---|
| `network`: `batch_size`, arguments of `Network` | `build_seconds`, `first_step_seconds` including building, `loss` |
| `train`: `count` of steps | `seconds`, `loss` after them |
| `predict`: `batch_size`, `count` of batches | `seconds` |
| `normalization`: `shape` | `first_step_seconds` including compiling |
| `normalize`: `count` of times | `seconds`, forward and backward |

Every answer has `memory`, the process's peak memory so far in bytes. The first line, before any command, has
`import_seconds`, for the framework and everything that the candidate needs from it. The answer to a failed command has
`error`.
"""

import ctypes
import importlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

OWN_MODULE = {"ours": "ours", "ours XLA": "ours", "keras": "plain_keras"}


def module_of(backend, name):
    """The module that has a candidate."""
    module = importlib.import_module(f"benchmarks.baselines.{OWN_MODULE.get(name, f'plain_{backend}')}")
    if name not in (*module.CANDIDATES, *module.NORMALIZATIONS):
        raise ValueError(f"{module.__name__} has no {name!r}")
    return module


class Worker:
    """Carries out commands on a candidate in this process."""

    def __init__(self, backend, name):
        self.name = name
        self.module = module_of(backend, name)

    def request(self, do, **arguments):
        return getattr(self, do)(**arguments)

    def network(self, batch_size=32, image_size=227, classes=1000, **settings):
        import numpy as np

        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
        labels = rng.integers(0, classes, batch_size, np.int32)
        began = time.perf_counter()
        self.baseline = self.module.Network(self.name, image_size=image_size, classes=classes, **settings)
        self.batch = self.baseline.batch(images, labels)
        built = time.perf_counter() - began
        loss, _ = self.baseline.train(self.batch, 1)
        self.batches = {batch_size: self.batch}
        self.images, self.labels = images, labels
        return {"build_seconds": built, "first_step_seconds": time.perf_counter() - began, "loss": loss}

    def train(self, count):
        loss, seconds = self.baseline.train(self.batch, count)
        return {"seconds": seconds, "loss": loss}

    def predict(self, batch_size, count):
        if batch_size not in self.batches:
            self.batches[batch_size] = self.baseline.batch(self.images[:batch_size], self.labels[:batch_size])
        batch = self.batches[batch_size]
        began = time.perf_counter()
        for _ in range(count):
            self.baseline.predict(batch)
        return {"seconds": time.perf_counter() - began}

    def normalization(self, shape):
        import numpy as np

        rng = np.random.default_rng(0)
        activations = np.maximum(rng.normal(0, 50, shape), 0).astype(np.float32)  # as they come from ReLU
        above = rng.normal(0, 1, shape).astype(np.float32)
        began = time.perf_counter()
        self.run = self.module.normalization(self.name, activations, above)
        self.run()
        return {"first_step_seconds": time.perf_counter() - began}

    def normalize(self, count):
        began = time.perf_counter()
        for _ in range(count):
            self.run()
        return {"seconds": time.perf_counter() - began}


def peak_memory():
    """The peak memory of this process in bytes: that of the GPU if it computes on one.

    On Linux `getrusage` is not used, because its peak includes the process that started this one.
    """
    return peak_memory_of_gpu() or peak_memory_of_host()


def peak_memory_of_gpu():
    """Peak memory in bytes as the framework counts it; 0 without a GPU."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if jax is not None and jax.default_backend() == "gpu":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return 0


def peak_memory_of_host():
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    import psutil

    usage = psutil.Process().memory_info()
    return getattr(usage, "peak_wset", usage.rss)


def end_with_parent():
    """Let Linux kill this process when its parent ends: a stopped process would not notice."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(backend, name):
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print goes to the error stream
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def answer(**values):
        print(json.dumps({**values, "memory": peak_memory()}), file=answers, flush=True)

    try:
        began = time.perf_counter()
        worker = Worker(backend, name)
        answer(import_seconds=time.perf_counter() - began)
        for line in sys.stdin:
            answer(**worker.request(**json.loads(line)))
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
