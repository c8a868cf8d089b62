"""Several devices and processes on JAX, by `keras.distribution`."""

import contextlib
import functools
import math
import re

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet.networks.specs import Conv, Network
from alexnet.training.distribution.base import DistributionError, Exchange, Group
from alexnet.training.distribution.columns import column_layouts, part_of


def find(recipe, processes):
    devices = jax.device_count()
    if jax.process_count() != processes:
        raise DistributionError(
            f"This is one of {processes} processes, and JAX has computed something before it met the others: call "
            "alexnet.tune_process() or alexnet.train first."
        )
    if devices == 1:
        raise DistributionError(
            f"distribute: {recipe.distribute} needs several devices, and JAX has one here, {jax.devices()[0]}. Start "
            "processes with `python -m alexnet launch`, or set XLA_FLAGS=--xla_force_host_platform_device_count=2 to "
            "try it on a processor, or set distribute to none."
        )
    if recipe.distribute == "data":
        return JaxData()
    if not any(isinstance(layer, Conv) and layer.groups == 2 for layer in recipe.row.layers):
        raise DistributionError(f"distribute: the network {recipe.network} has no two columns. Set distribute to data.")
    if processes > 1 or devices % 2:
        raise DistributionError(
            f"distribute: two_columns takes pairs of devices in one process, and there are {devices} in {processes}. "
            "Set distribute to data, which takes any number."
        )
    if not hasattr(jax, "shard_map"):
        raise DistributionError(f"distribute: two_columns needs JAX 0.6.1 or newer, and this is {jax.__version__}.")
    return JaxColumns(recipe.row)


class JaxData(Group):
    """`keras.distribution.DataParallel` over the devices of all processes."""

    def __init__(self):
        self.devices, self.processes, self.rank = jax.device_count(), jax.process_count(), jax.process_index()
        self.keras = self._keras_distribution()
        self.replicas = self.keras.num_model_replicas
        self._mesh = self.keras.device_mesh.backend_mesh
        self._pending, self._evaluable = None, {}

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
        rows = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        given = np.tile(np.array(flags, np.int32), (jax.local_device_count(), 1))
        # Only starts the sum over all processes. Its result is looked at in the next call.
        before, self._pending = self._pending, self._sum(jax.make_array_from_process_local_data(rows, given))
        return (False,) * len(flags) if before is None else tuple((np.asarray(before) > 0).tolist())

    @functools.cached_property
    def _sum(self):
        return jax.jit(lambda rows: rows.sum(0), out_shardings=NamedSharding(self._mesh, PartitionSpec()))

    def _all_gather(self, array):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array))

    def parts(self, model):
        return {v.path: tuple(v.value.addressable_shards[0].data.shape) for v in model.variables}

    def exchanges(self, training_model, batch_size):
        def loss(trained, others, images, labels):
            logits, _ = training_model.stateless_call(trained, others, images, training=True)
            return training_model.loss(labels, logits)

        with self.scope():
            variables = training_model.trainable_variables, training_model.non_trainable_variables
            trained, others = ([variable.value for variable in some] for some in variables)
            shape = (batch_size, *training_model.input_shape[1:])
            images, labels = (
                jax.device_put(zeros, self.keras.get_data_layout(zeros.shape).backend_layout)
                for zeros in (np.zeros(shape, np.uint8), np.zeros(batch_size, np.int32))
            )
            gradient = jax.jit(jax.grad(loss), out_shardings=[value.sharding for value in trained])
            return read_exchanges(gradient.lower(trained, others, images, labels).compile().as_text())

    def copies(self, variable):
        return [np.asarray(part.data) for part in variable.value.addressable_shards]

    def evaluable(self, network):
        if id(network) not in self._evaluable:
            self._evaluable[id(network)] = _Replica(network, self._evaluation_mesh())
        return self._evaluable[id(network)]

    def _evaluation_mesh(self):
        return Mesh(np.array(jax.local_devices()), ("batch",))


class _Replica:
    """A network as the devices of this process alone compute it, each its part of a batch: Keras's own `predict` fails
    where other processes hold a part of the result."""

    def __init__(self, network, mesh):
        self.inputs = network.inputs
        self._network, self._mesh = network, mesh
        self._compute = jax.jit(self._call)

    def _call(self, trainable, non_trainable, images):
        return self._network.stateless_call(trainable, non_trainable, images, training=False)[0]

    def predict_on_batch(self, images):
        network, parts, batch = self._network, self._mesh.shape["batch"], len(images)
        filled = np.zeros((-(-batch // parts) * parts, *images.shape[1:]), images.dtype)
        filled[:batch] = images
        divided = jax.device_put(filled, NamedSharding(self._mesh, PartitionSpec("batch")))
        variables = [
            list(map(self._local, some)) for some in (network.trainable_variables, network.non_trainable_variables)
        ]
        return np.asarray(self._compute(*variables, divided))[:batch]

    def _local(self, variable):
        """A variable's value on the devices of this process; nothing is copied."""
        value = variable.value
        if value.is_fully_addressable:
            return value
        parts = [part.data for part in value.addressable_shards]
        return jax.make_array_from_single_device_arrays(value.shape, NamedSharding(self._mesh, PartitionSpec()), parts)


class JaxColumns(JaxData):
    """The paper's two columns (section 3.2), each on its device; with more devices, several such pairs, each of which
    has a part of the batch.

    Of conv1 to conv5 each device holds the kernels of its column, and of fc6 and fc7 half of the units. Convolutions
    with two groups stay where they are; conv3 and the fully connected layers read what the other device has computed.
    Of the last layer's sums each device computes a part, and the logits are added up.

    Args:
        network: The `Network` that will be built.
    """

    def __init__(self, network: Network):
        self._layouts = column_layouts(network)
        super().__init__()

    def _keras_distribution(self):
        mesh = keras.distribution.DeviceMesh((self.devices // 2, 2), ("batch", "column"))
        layout_map = keras.distribution.LayoutMap(mesh)
        for path, axes in self._layouts.items():
            layout_map[f"^{path}$"] = keras.distribution.TensorLayout(axes, mesh)
        return keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")

    def start(self, training_model):
        """Check that each layout was heeded: Keras replicates without a word what none of them names."""
        optimizer = getattr(training_model.optimizer, "inner_optimizer", training_model.optimizer)
        trained = [variable.path for variable in training_model.trainable_variables]
        momentums = dict(zip(trained, optimizer.momentums, strict=True)) if optimizer.momentum else {}
        variables = {variable.path: variable for variable in training_model.variables}
        for path, axes in self._layouts.items():
            if path.endswith("/output"):
                training_model.get_layer(path.partition("/")[0])  # Keras raises if there is none
                continue
            for variable in (variables[path], momentums.get(path, variables[path])):
                expected = part_of(variable.shape, axes)
                found = variable.value.addressable_shards[0].data.shape
                if found != expected:
                    raise DistributionError(f"{variable.path} lies in parts of {found} on each device, not {expected}.")

    def _evaluation_mesh(self):
        return self._mesh


_EXCHANGE = re.compile(r"= (\(.*?\)|\S+) (all-\w+|collective-\w+|reduce-scatter)(-start)?\(")
_ARRAY = re.compile(r"[a-z]+(\d+)\[([\d,]*)\]")  # as in bf16[5,5,48,128]
_EACH_ALONE = re.compile(r"replica_groups=\{(\{\d+\},?)+\}")


def read_exchanges(program: str) -> list[Exchange]:
    """The exchanges in the text of a compiled program of XLA, except those of single numbers.

    Examples:
        >>> line = '%x = f32[4,64]{0,1} all-gather(%y), replica_groups={{0,1}}, metadata={op_name="f/jvp(fc6)/dot"}'
        >>> read_exchanges(line)
        [Exchange(operation='all-gather', layers=('fc6',), backward=False, shapes=((4, 64),), bytes=1024)]
    """
    found = []
    for line in program.splitlines():
        exchange = _EXCHANGE.search(line)
        if not exchange or _EACH_ALONE.search(line):
            continue
        results, operation, starts = exchange.groups()
        arrays = [
            (int(bits), tuple(map(int, filter(None, sides.split(","))))) for bits, sides in _ARRAY.findall(results)
        ]
        if starts and operation != "all-reduce":  # what goes in comes first, and then what comes out
            arrays = [array for array in arrays if array[1]]
            arrays = arrays[len(arrays) // 2 :]
        shapes = tuple(shape for _, shape in arrays)
        if max(map(math.prod, shapes), default=0) > 1:
            origin = (re.search(r'op_name="([^"]*)"', line) or [""])[0]
            layers = tuple(dict.fromkeys(re.findall(r"jvp\((\w+)\)", origin)))
            size = sum(bits * math.prod(shape) // 8 for bits, shape in arrays)
            found.append(Exchange(operation, layers, "transpose(" in origin, shapes, size))
    return found
