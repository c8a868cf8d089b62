"""A process for each device on PyTorch, by `torch.distributed`."""

import atexit
import datetime
import functools
import os
import types

import keras
import numpy as np
import torch
import torch.distributed as dist

from alexnet.training.distribution.base import DistributionError, Group

# Gradients are summed over the processes in groups of so many bytes, while the backward pass goes on: each exchange has
# a fixed cost, and the first should start early. PyTorch's own DistributedDataParallel has the same size.
BUCKET_BYTES = 25 * 2**20
PROCESS_SECONDS = 100  # after which a process that waits in vain for another one gives up


def find(recipe, processes):
    if processes == 1:
        raise DistributionError(
            "distribute: data takes a process for each device with PyTorch, and this is a single one. Start them with "
            "`python -m alexnet launch -n 2 -- train ...` or torchrun, or set distribute to none."
        )
    return TorchData()


class TorchData(Group):
    """A process for each device, as `torchrun` or `python -m alexnet launch` starts them. Gradients are averaged over
    all processes in the backward pass, and each network makes the same step."""

    def __init__(self):
        self._local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", self._local_rank) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(self._device)
        if not dist.is_initialized():
            limit = datetime.timedelta(seconds=PROCESS_SECONDS)
            dist.init_process_group("nccl" if on_gpu else "gloo", timeout=limit)
            atexit.register(dist.destroy_process_group)
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.devices = self.replicas = self.processes
        self._pending = None

    def start(self, training_model):
        variables = [*training_model.variables, *training_model.optimizer.variables]
        for variable in variables:
            dist.broadcast(variable.value.data, 0)
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
        before = self._pending
        given = torch.tensor(flags, dtype=torch.int32, device=self._device)
        self._pending = given, dist.all_reduce(given, async_op=True)
        if before is None:
            return (False,) * len(flags)
        summed, work = before
        work.wait()
        return tuple(bool(flag) for flag in summed.tolist())

    def _all_gather(self, array):
        given = torch.from_numpy(np.array(array)).to(self._device)
        rows = [torch.empty_like(given) for _ in range(self.processes)]
        dist.all_gather(rows, given)
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
        self._apply, self._processes = apply, processes
        self._buckets = _buckets([parameter.nbytes for parameter in parameters])
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
            joined = torch.cat([each.reshape(-1) for each in gradients]) if len(bucket) > 1 else gradients[0]
            self._sums.append((bucket, joined, dist.all_reduce(joined, async_op=True)))

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
