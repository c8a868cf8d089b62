"""What every kind of distribution does: `Distribution`, one device, and `Group`, several processes."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from alexnet.evaluation import evaluate
from alexnet.training.stopping import RunError


class DistributionError(RunError):
    """`distribute` asks for what this backend or this machine cannot do; the message says what can."""


@dataclass(frozen=True)
class Exchange:
    """One exchange of the devices in a training step, as the compiled program has it.

    Attributes:
        operation: What XLA calls it: `"all-gather"` (each device gets the parts of all), `"all-reduce"` (each gets the
            sum), `"collective-permute"` (each sends to one other).
        layers: The layers for which it happens.
        backward: Whether it belongs to the backward pass.
        shapes: The shapes of its results on each device.
        bytes: Their size.
    """

    operation: str
    layers: tuple[str, ...]
    backward: bool
    shapes: tuple[tuple[int, ...], ...]
    bytes: int

    def received(self, devices: int = 2) -> float:
        """Bytes that each of so many devices receives, if they pass the parts round in a ring."""
        share = {"all-gather": 1, "all-reduce": 2, "collective-permute": devices / (devices - 1)}.get(self.operation, 1)
        return share * (devices - 1) / devices * self.bytes


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest of arrays and of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


class Distribution:
    """One device and one process.

    Attributes:
        devices: How many devices take part, in all processes together.
        replicas: How many copies of the network they hold.
        processes: How many processes.
        rank: The number of this one, from 0.
    """

    devices = replicas = processes = 1
    rank = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """A context in which models are built, compiled and trained."""
        return contextlib.nullcontext()

    def paused(self) -> contextlib.AbstractContextManager:
        """A context in which the chief alone may save a model."""
        return contextlib.nullcontext()

    def start(self, training_model: keras.Model) -> None:
        """Make the replicas of a compiled model equal, and keep them so in training."""

    def on_chief(self, function: Callable[[], Any]) -> Any:
        """What `function` returns on the chief, as JSON, in every process; an error there is raised in all."""
        return function()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it was true in any process. With several processes the answer is of the call before,
        so that none waits for it; it is the same in all of them."""
        return flags

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, anything that can be JSON, in the order of the ranks."""
        return [value]

    def merge_metrics(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The values of metrics' variables for all processes together."""
        return arrays

    def own_metrics(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """What this process goes on with of such values."""
        return arrays

    def merge_results(self, training_model: keras.Model, logs: dict[str, Any]) -> None:
        """Replace the results of an epoch by those of all processes together."""

    def evaluable(self, network: keras.Model) -> Any:
        """The network as `alexnet.evaluate` takes it, in one process."""
        return network

    def evaluate(self, network: keras.Model, images: Any, views: int = 1, verbose: int = 0) -> dict[str, float]:
        """`alexnet.evaluate` where each process has its share of the images."""
        network = self.evaluable(network)
        sums = [0.0] * 4
        if images.count:
            result: Any = evaluate(network, images, views, verbose, details=self.processes > 1)
            if self.processes == 1:
                return result
            read = int(np.sum(result.labels >= 0))
            sums = [result.metrics[name] * read for name in ("top1", "top5", "loss")] + [read]
        top1, top5, loss, count = np.sum(self.gather(sums), axis=0)
        return {"top1": float(top1 / count), "top5": float(top5 / count), "loss": float(loss / count)}

    def check_replicas(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Compare the arrays of all processes.

        Raises:
            RunError: they differ; names the processes.
        """
        if self.processes == 1:
            return
        digests = self.gather(digest_of(arrays))
        different = [str(rank) for rank, other in enumerate(digests) if other != digests[0]]
        if different:
            raise RunError(
                f"The networks have drifted apart: process {', '.join(different)} of {self.processes} has different "
                "weights from process 0. Nothing was saved; start again from the last saved state."
            )

    def parts(self, model: keras.Model) -> dict[str, tuple[int, ...]]:
        """The shape of what one device holds of each variable, by its path: all of it, unless it is divided."""
        return {variable.path: tuple(variable.shape) for variable in model.variables}

    def exchanges(self, training_model: keras.Model, batch_size: int) -> list[Exchange]:
        """What the devices exchange to compute the gradients of a batch: read from the compiled program.

        Raises:
            DistributionError: the backend's program cannot be read.
        """
        if self.devices == 1:
            return []
        raise DistributionError("Only JAX's compiled program says what the devices exchange.")

    def copies(self, variable: keras.Variable) -> list[np.ndarray]:
        """The value of a variable on each device of this process."""
        return [keras.ops.convert_to_numpy(variable)]

    def replica_digests(self, variables: Sequence[keras.Variable]) -> list[str]:
        """For each replica, in all processes together, the digest of some variables; all are equal unless the replicas
        have drifted apart."""
        replicas = zip(*map(self.copies, variables), strict=True)
        own = [digest_of({str(i): array for i, array in enumerate(arrays)}) for arrays in replicas]
        return [digest for of_process in self.gather(own) for digest in of_process]

    def describe(self) -> dict[str, int]:
        """How many devices and processes, for a run's record."""
        return {"devices": self.devices, "processes": self.processes}


class Group(Distribution):
    """Several processes, each of which runs the same program. What is said of one here holds for all of them: they must
    call the same methods in the same order."""

    def on_chief(self, function):
        if self.processes == 1:
            return function()
        answer, error = {}, None
        if self.is_chief:
            try:
                answer = {"value": function()}
            except Exception as problem:
                answer, error = {"error": str(problem)}, problem
        answer = self.gather(answer)[0]
        if error is not None:
            raise error
        if "error" in answer:
            raise RunError(f"Process 0 says: {answer['error']}")
        return answer["value"]

    def gather(self, value):
        if self.processes == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = self._all_gather(np.array([len(text)], np.int32))[:, 0]
        padded = np.zeros(int(sizes.max()), np.uint8)
        padded[: len(text)] = text
        rows = self._all_gather(padded)
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes.tolist(), strict=True)]

    def _all_gather(self, array):
        """Arrays of one shape, of all processes: `(processes, ...)`."""
        raise NotImplementedError
