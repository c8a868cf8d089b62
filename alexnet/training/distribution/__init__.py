"""Several devices and processes: what the parameter `distribute` means on each backend.

`find_distribution` is called before anything is built and returns a `Distribution`. That class itself is one device, as
without any of it; `on_jax`, `on_tensorflow` and `on_torch` do the same on several, by the engine that Keras or the
backend has. The global batches are those of one device, so that the same seed gives the same run.
"""

import importlib

import keras

from alexnet.recipe import Recipe
from alexnet.runtime import group_of_processes
from alexnet.training.distribution.base import Distribution, DistributionError, Exchange
from alexnet.training.distribution.columns import column_layouts, column_parts, received_by_layer

__all__ = [
    "CAN",
    "Distribution",
    "DistributionError",
    "Exchange",
    "column_layouts",
    "column_parts",
    "find_distribution",
    "received_by_layer",
]

# What each backend can do.
CAN = {"jax": ("data", "two_columns"), "tensorflow": ("data",), "torch": ("data",)}


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
    able = CAN[backend]
    if recipe.distribute not in able:
        others = " and ".join(other for other, can in CAN.items() if recipe.distribute in can)
        raise DistributionError(f"distribute: {recipe.distribute} is for {others}; {backend} has {', '.join(able)}.")
    found = importlib.import_module(f"{__name__}.on_{backend}").find(recipe, processes)
    replicas = found.replicas
    if recipe.batch_size % replicas:
        raise DistributionError(
            f"batch_size: received {recipe.batch_size}; allowed: a multiple of {replicas}, because each of {replicas} "
            "copies of the network gets an equal part of every batch."
        )
    return found
