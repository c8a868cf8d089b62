"""A candidate in a process of its own, which is stopped while others are measured."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from alexnet.packages import install

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {
    "tensorflow": ("ours", "keras", "function", "xla"),
    "jax": ("ours", "keras", "columns", "grouped"),
    "torch": ("ours", "keras", "eager", "channels_last", "compile"),
}
NORMALIZATIONS = {
    "tensorflow": ("ours", "ours XLA", "tf.nn.lrn eager", "tf.nn.lrn XLA"),
    "jax": ("ours", "shifted sum"),
    "torch": ("ours", "LocalResponseNorm"),
}


class BenchmarkError(RuntimeError):
    """A benchmark cannot continue. The message says why."""


class Candidate:
    """A process of `benchmarks/harness/worker.py` for one candidate. It is stopped between requests.

    Args:
        backend: The framework.
        name: One of `NETWORKS` or `NORMALIZATIONS`.

    Attributes:
        import_seconds: How long the imports took with which its process began.

    Raises:
        BenchmarkError: it cannot be started.
    """

    def __init__(self, backend, name):
        self.backend = backend
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        self._chatter = open(Path(self._folder.name) / "stderr", "w+")  # noqa: SIM115  closed with the candidate
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            # An empty cache, so that the first step is a user's first one; and no compilers that wait in memory.
            "TORCHINDUCTOR_CACHE_DIR": str(Path(self._folder.name) / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            # Several candidates share a GPU's memory, so none may take all of it.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }
        # A process group of its own, so that Ctrl-C reaches only this process, which closes the candidate.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.harness.worker", backend, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._chatter,
            text=True,
            env=environment,
            process_group=0,
        )
        self._handle = psutil.Process(self._process.pid)
        try:
            self.import_seconds = self._answer()["import_seconds"]
        except BaseException:
            self.close()
            raise
        self._pause()

    def request(self, do, **arguments):
        """The answer to a command, as a dictionary; `benchmarks/harness/worker.py` lists them."""
        with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it has ended, and `_answer` says how
            self._handle.resume()
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        self._pause()
        return answer

    def _pause(self):
        """Stop the process and wait until it has stopped: a signal takes time, and the next candidate is measured."""
        self._handle.suspend()
        while self._handle.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._chatter.seek(0)
            last = (["", *self._chatter.read().strip().splitlines()])[-1]
            killed = " It was killed, perhaps for lack of memory." if status == -9 else f" {last}".rstrip()
            raise BenchmarkError(f"{self.backend} {self.name} ended with status {status}.{killed}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{self.backend} {self.name}: {answer['error'].strip().splitlines()[0]}")
        return answer

    def close(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            self._handle.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # a command that nobody will read
            self._process.stdin.close()
        self._process.stdout.close()
        self._chatter.close()
        self._folder.cleanup()


def normalization_shape(batch_size, image_size, width):
    """The shape of the first layer's activations, on which LRN is measured: `(batch, rows, columns, channels)`."""
    side = (image_size - 11) // 4 + 1
    return batch_size, side, side, 2 * round(96 * width / 2)


def require_backends(backends):
    """Check that each backend is installed.

    Raises:
        BenchmarkError: one is not.
    """
    for backend in backends:
        if importlib.util.find_spec(backend) is None:
            raise BenchmarkError(f"{backend} is not installed here. {install(backend)}")
