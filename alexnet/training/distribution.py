"""Several devices and processes: what the parameter `distribute` means on each backend.

`find_distribution` is called before anything is built and returns one of the classes here. `Distribution` is one device,
as without any of it; the others do the same on several, by the engine that Keras or the backend has: `keras.distribution`
on JAX, `tf.distribute` on TensorFlow, `torch.distributed` on PyTorch. The global batches are those of one device.
"""

import atexit
import contextlib
import datetime
import functools
import hashlib
import json
import os
import types
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from alexnet.evaluation import evaluate
from alexnet.recipe import Recipe
from alexnet.runtime import group_of_processes
from alexnet.training.stopping import RunError

# Gradients are summed over the processes in groups of so many bytes, while the backward pass goes on: each exchange has
# a fixed cost, and the first should start early. PyTorch's own DistributedDataParallel has the same size.
BUCKET_BYTES = 25 * 2**20
PROCESS_SECONDS = 100  # after which a process that waits in vain for another one gives up


class DistributionError(RunError):
    """`distribute` asks for what this backend or this machine cannot do; the message says what can."""


class Distribution:
    """One device and one process.

    Attributes:
        devices: How many devices take part, in all processes together.
        processes: How many processes.
        rank: The number of this one, from 0.
    """

    devices = processes = 1
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
        if self.processes == 1:
            return evaluate(network, images, views, verbose)
        sums = [0.0] * 4
        if images.count:
            result = evaluate(network, images, views, verbose, details=True)
            read = result.labels >= 0
            counted = {name: value * int(read.sum()) for name, value in result.metrics.items()}
            sums = [counted["top1"], counted["top5"], counted["loss"], int(read.sum())]
        top1, top5, loss, count = np.sum(self.gather(sums), axis=0)
        return {"top1": float(top1 / count), "top5": float(top5 / count), "loss": float(loss / count)}

    def check_replicas(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Compare the arrays of all processes.

        Raises:
            RunError: they differ; names the processes.
        """
        if self.processes == 1:
            return
        digest = hashlib.blake2b(digest_size=16)
        for name, array in arrays.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        digests = self.gather(digest.hexdigest())
        different = [str(rank) for rank, other in enumerate(digests) if other != digests[0]]
        if different:
            raise RunError(
                f"The networks have drifted apart: process {', '.join(different)} of {self.processes} has different "
                "weights from process 0. Nothing was saved; start again from the last saved state."
            )

    def describe(self) -> dict[str, int]:
        """How many devices and processes, for a run's record."""
        return {"devices": self.devices, "processes": self.processes}


class _Group(Distribution):
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


class JaxData(_Group):
    """`keras.distribution.DataParallel` over the devices of all processes."""

    def __init__(self):
        import jax

        self._jax = jax
        self.devices, self.processes, self.rank = jax.device_count(), jax.process_count(), jax.process_index()
        self.keras = self._keras_distribution()
        self._pending, self._replicas = None, {}

    def _keras_distribution(self):
        return keras.distribution.DataParallel(auto_shard_dataset=False)

    def scope(self):
        return self.keras.scope()

    @contextlib.contextmanager
    def paused(self):
        # While a distribution is set, Keras waits for all processes when one saves.
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(self.keras)

    def any(self, *flags):
        if self.processes == 1:
            return flags
        before, self._pending = self._pending, self._summed(np.array(flags, np.int32))
        return (False,) * len(flags) if before is None else tuple(np.asarray(before).tolist())

    def _summed(self, flags):
        """Starts the sum over all processes; nobody waits for it here."""
        jax, mesh = self._jax, self.keras.device_mesh.backend_mesh
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
        given = np.tile(flags, (jax.local_device_count(), 1))
        return self._are_any(jax.make_array_from_process_local_data(rows, given))

    @functools.cached_property
    def _are_any(self):
        jax, mesh = self._jax, self.keras.device_mesh.backend_mesh
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        return jax.jit(lambda flags: flags.sum(0) > 0, out_shardings=everywhere)

    def _all_gather(self, array):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array))

    def evaluable(self, network):
        if id(network) not in self._replicas:
            self._replicas[id(network)] = _JaxReplica(network)
        return self._replicas[id(network)]


class _JaxReplica:
    """A network as the devices of this process alone compute it, each its part of a batch: Keras's own `predict` fails
    where other processes hold a part of the result."""

    def __init__(self, network):
        import jax

        self.inputs = network.inputs
        self._jax, self._network = jax, network
        self._mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("batch",))
        self._compute = jax.jit(self._call)

    def _call(self, trainable, non_trainable, images):
        return self._network.stateless_call(trainable, non_trainable, images, training=False)[0]

    def predict_on_batch(self, images):
        jax, network = self._jax, self._network
        spec = jax.sharding.PartitionSpec
        parts, batch = self._mesh.size, len(images)
        filled = np.zeros((-(-batch // parts) * parts, *images.shape[1:]), images.dtype)
        filled[:batch] = images
        placed = jax.device_put(filled, jax.sharding.NamedSharding(self._mesh, spec("batch")))
        variables = [list(map(self._local, some)) for some in (network.trainable_variables, network.non_trainable_variables)]
        with Distribution().scope():
            return np.asarray(self._compute(*variables, placed))[:batch]

    def _local(self, variable):
        """A variable's value on the devices of this process; nothing is copied."""
        jax, value = self._jax, variable.value
        if value.is_fully_addressable:
            return value
        here = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
        return jax.make_array_from_single_device_arrays(value.shape, here, [part.data for part in value.addressable_shards])


class TensorFlowData(Distribution):
    """`tf.distribute.MirroredStrategy` over the devices of one host, in one process."""

    def __init__(self, devices):
        import tensorflow as tf

        self.devices = len(devices)
        self._strategy = tf.distribute.MirroredStrategy([device.name for device in devices])

    def scope(self):
        return self._strategy.scope()


class TorchData(_Group):
    """A process for each device, as `torchrun` or `python -m alexnet launch` starts them. Gradients are averaged over
    all processes in the backward pass, and each network makes the same step."""

    def __init__(self):
        import torch

        self._torch, self._dist = torch, torch.distributed
        self._local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", self._local_rank) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(self._device)
        if not self._dist.is_initialized():
            limit = datetime.timedelta(seconds=PROCESS_SECONDS)
            self._dist.init_process_group("nccl" if on_gpu else "gloo", timeout=limit)
            atexit.register(self._dist.destroy_process_group)
        self.rank, self.processes = self._dist.get_rank(), self._dist.get_world_size()
        self.devices = self.processes
        self._pending = None

    def start(self, training_model):
        variables = [*training_model.variables, *training_model.optimizer.variables]
        for variable in variables:
            self._dist.broadcast(variable.value.data, 0)
        trained = [variable.value for variable in training_model.trainable_variables]
        optimizer = training_model.optimizer  # which may be Keras's own, around ours, that scales the loss for float16
        optimizer.apply = _Averaged(optimizer.apply, trained, self.processes)
        for layer in training_model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.call = types.MethodType(self._dropout_of_all, layer)

    def _dropout_of_all(self, layer, inputs, training=False):
        """Dropout whose mask is this process's part of the mask that one process would draw for the whole batch."""
        if not training or not layer.rate:
            return inputs
        ones = keras.ops.ones((len(inputs) * self.processes, *inputs.shape[1:]), inputs.dtype)
        mask = keras.random.dropout(ones, layer.rate, seed=layer.seed_generator)
        return inputs * mask[len(inputs) * self.rank : len(inputs) * (self.rank + 1)]

    def any(self, *flags):
        if self.processes == 1:
            return flags
        before = self._pending
        given = self._torch.tensor(flags, dtype=self._torch.int32, device=self._device)
        self._pending = given, self._dist.all_reduce(given, async_op=True)
        if before is None:
            return (False,) * len(flags)
        summed, work = before
        work.wait()
        return tuple(bool(flag) for flag in summed.tolist())

    def _all_gather(self, array):
        given = self._torch.from_numpy(np.array(array)).to(self._device)
        rows = [self._torch.empty_like(given) for _ in range(self.processes)]
        self._dist.all_gather(rows, given)
        return np.stack([row.cpu().numpy() for row in rows])

    def merge_metrics(self, arrays):
        return [self._all_gather(array).sum(0, dtype=array.dtype) for array in arrays]

    def merge_results(self, training_model, logs):
        variables = training_model.metrics_variables
        merged = self.merge_metrics([keras.ops.convert_to_numpy(variable) for variable in variables])
        for variable, value in zip(variables, merged, strict=True):
            variable.assign(value)
        logs.update({name: float(value) for name, value in training_model.get_metrics_result().items()})

    def own_metrics(self, arrays):
        return arrays if self.is_chief else [np.zeros_like(array) for array in arrays]


class _Averaged:
    """An optimizer's `apply`, to gradients that are averaged over all processes.

    The sums begin in the backward pass, a bucket at a time as its gradients become known, and `apply` waits for them.

    Args:
        apply: The optimizer's own.
        parameters: PyTorch's parameters in the order in which `apply` receives their gradients.
        processes: How many processes.
    """

    def __init__(self, apply, parameters, processes):
        import torch

        self._torch, self._dist = torch, torch.distributed
        self._apply, self._processes = apply, processes
        self._buckets = _buckets([parameter.nbytes for parameter in parameters])
        self._bucket_of = {place: number for number, bucket in enumerate(self._buckets) for place in bucket}
        self._forget()
        for place, parameter in enumerate(parameters):
            parameter.register_post_accumulate_grad_hook(functools.partial(self._arrived, place))

    def _forget(self):
        self._gradients, self._sums = {}, []

    def _arrived(self, place, parameter):
        self._gradients[place] = parameter.grad
        # In the order of the buckets, which is the same in every process.
        while len(self._sums) < len(self._buckets):
            bucket = self._buckets[len(self._sums)]
            if not all(each in self._gradients for each in bucket):
                break
            gradients = [self._gradients[each] for each in bucket]
            joined = self._torch.cat([each.reshape(-1) for each in gradients]) if len(bucket) > 1 else gradients[0]
            self._sums.append((bucket, joined, self._dist.all_reduce(joined, async_op=True)))

    def __call__(self, gradients, variables=None):
        averaged = list(gradients)
        for bucket, joined, work in self._sums:
            work.wait()
            joined.div_(self._processes)
            parts = joined.split([averaged[each].numel() for each in bucket]) if len(bucket) > 1 else [joined]
            for each, part in zip(bucket, parts, strict=True):
                averaged[each] = part.view_as(averaged[each])
        self._forget()
        return self._apply(averaged, variables)


def _buckets(sizes):
    """Places in a list of `sizes` in bytes, in groups of `BUCKET_BYTES` or a little more, the last places first: the
    backward pass reaches the last layer's gradients first."""
    groups, filled = [[]], 0
    for place in reversed(range(len(sizes))):
        if filled >= BUCKET_BYTES or (filled and sizes[place] >= BUCKET_BYTES):
            groups.append([])
            filled = 0
        groups[-1].append(place)
        filled += sizes[place]
    return groups


def find_distribution(recipe: Recipe) -> Distribution:
    """What `recipe.distribute` means on this backend, on the devices and processes at hand.

    Raises:
        DistributionError: it cannot be done here, or the batch cannot be shared in equal parts. Never one device in
            silence.
    """
    backend = keras.backend.backend()
    processes = group_of_processes(backend)
    if recipe.distribute == "none":
        if processes > 1:
            raise DistributionError(
                f"This is one of {processes} processes, and distribute is none: each would train the same network. Set "
                "distribute to data, or start a single process."
            )
        return Distribution()
    found = _FINDERS[backend](recipe.distribute, processes)
    if recipe.batch_size % found.devices:
        raise DistributionError(
            f"batch_size: received {recipe.batch_size}; allowed: a multiple of {found.devices}, the number of devices, "
            "each of which gets an equal part of every batch"
        )
    return found


def _find_on_jax(distribute, processes):
    import jax

    if distribute == "two_columns":
        raise NotImplementedError
    if jax.device_count() == 1:
        raise DistributionError(
            f"distribute: {distribute} needs several devices, and JAX has one here, {jax.devices()[0]}. Start processes "
            "with `python -m alexnet launch`, set XLA_FLAGS=--xla_force_host_platform_device_count=2 to try it on a "
            "processor, or set distribute to none."
        )
    return JaxData()


def _find_on_tensorflow(distribute, processes):
    import tensorflow as tf

    _only_data(distribute, "TensorFlow")
    if os.environ.get("TF_CONFIG"):
        raise DistributionError(
            "distribute: with TensorFlow it is the devices of one host, and TF_CONFIG names several. Use JAX or PyTorch, "
            "or unset TF_CONFIG."
        )
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        raise DistributionError(
            f"distribute: data needs several devices, and TensorFlow has one here, {devices[0].name}. "
            "tf.config.set_logical_device_configuration divides it to try things out; otherwise set distribute to none."
        )
    return TensorFlowData(devices)


def _find_on_torch(distribute, processes):
    _only_data(distribute, "PyTorch")
    if processes == 1:
        raise DistributionError(
            "distribute: data takes a process for each device with PyTorch, and this is a single one. Start them with "
            "`python -m alexnet launch -n 2 -- train ...` or torchrun, or set distribute to none."
        )
    return TorchData()


def _only_data(distribute, backend):
    if distribute != "data":
        raise DistributionError(f"distribute: {distribute} is for JAX; {backend} has data.")


_FINDERS = {"jax": _find_on_jax, "tensorflow": _find_on_tensorflow, "torch": _find_on_torch}
