"""Several devices of one host on TensorFlow, by `tf.distribute`."""

import os

import numpy as np
import tensorflow as tf

from alexnet.training.distribution.base import Distribution, DistributionError


def find(recipe, processes):
    if os.environ.get("TF_CONFIG"):
        raise DistributionError(
            "distribute: TensorFlow has it for the devices of one host, and TF_CONFIG names several hosts. Use JAX or "
            "PyTorch, or unset TF_CONFIG."
        )
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        raise DistributionError(
            f"distribute: data needs several devices, and TensorFlow has one here, {devices[0].name}. To try it on a "
            "processor, call alexnet.divide_processor(2) first; otherwise set distribute to none."
        )
    return TensorFlowData(devices)


class TensorFlowData(Distribution):
    """`tf.distribute.MirroredStrategy` over the devices of one host, in one process.

    The devices draw masks of dropout each for itself, so that only without dropout a run equals that of one device.

    Args:
        devices: TensorFlow's logical devices.
    """

    def __init__(self, devices):
        self.devices = self.replicas = len(devices)
        self._strategy = tf.distribute.MirroredStrategy([device.name for device in devices])

    def scope(self):
        return self._strategy.scope()

    def copies(self, variable):
        return [value.numpy() for value in self._strategy.experimental_local_results(variable.value)]

    def evaluable(self, network):
        return _Mirrored(network, self._strategy)


class _Mirrored:
    """A network that computes a part of each batch on each device; Keras would compute all of it on each."""

    def __init__(self, network, strategy):
        self.inputs = network.inputs
        self._network, self._strategy = network, strategy

    def predict_on_batch(self, images):
        parts, batch = self._strategy.num_replicas_in_sync, len(images)
        size = -(-batch // parts)
        filled = np.zeros((size * parts, *images.shape[1:]), images.dtype)
        filled[:batch] = images

        def own(context):
            first = size * context.replica_id_in_sync_group
            return tf.constant(filled[first : first + size])

        divided = self._strategy.experimental_distribute_values_from_function(own)
        return self._network.predict_on_batch(divided)[:batch]
