"""How a network with two columns lies on two devices (section 3.2 of the paper)."""

from collections.abc import Iterable, Mapping, Sequence

from alexnet.networks.specs import LRN, Conv, Dense, Flatten, Network
from alexnet.training.distribution.base import Exchange


def column_layouts(network: Network) -> dict[str, tuple[str | None, ...]]:
    """How a network with two columns lies on two devices: by the path of a variable or of a layer's output, the names
    of the mesh's axes over which it is divided.

    Examples:
        >>> from alexnet.networks import NETWORKS
        >>> layouts = column_layouts(NETWORKS["paper"])
        >>> layouts["conv2/kernel"], layouts["fc6/kernel"], layouts["fc8/kernel"]
        ((None, None, None, 'column'), (None, 'column'), ('column', None))
        >>> layouts["norm1/output"]
        ('batch', None, None, 'column')
    """
    found: dict[str, tuple[str | None, ...]] = {}
    flat = False
    last = network.weighted[-1].name
    for layer in network.layers:
        flat = flat or isinstance(layer, Flatten)
        if layer.name == last:
            found[f"{last}/kernel"] = ("column", None)
            continue
        if isinstance(layer, Conv | Dense):
            found[f"{layer.name}/kernel"] = (None,) * (1 if flat else 3) + ("column",)
            found[f"{layer.name}/bias"] = ("column",)
        if not isinstance(layer, Flatten):
            found[f"{layer.name}/output"] = ("batch", "column") if flat else ("batch", None, None, "column")
    return found


def column_parts(network: Network, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shape of one device's part of each variable of a network in two columns.

    Args:
        network: The network.
        shapes: The shape of each whole variable, by its path.

    Examples:
        >>> from alexnet.networks import NETWORKS
        >>> column_parts(NETWORKS["paper"], {"conv2/kernel": (5, 5, 48, 256), "fc8/bias": (1000,)})
        {'conv2/kernel': (5, 5, 48, 128), 'fc8/bias': (1000,)}
    """
    layouts = column_layouts(network)
    return {path: part_of(shape, layouts.get(path, (None,) * len(shape))) for path, shape in shapes.items()}


def part_of(shape: Sequence[int], axes: Sequence[str | None]) -> tuple[int, ...]:
    """The shape of one of two parts of an array that is divided over the axes that have a name."""
    return tuple(n // 2 if axis else n for n, axis in zip(shape, axes, strict=True))


def received_by_layer(network: Network, exchanges: Iterable[Exchange]) -> dict[str, tuple[float, float]]:
    """Megabytes that each of two devices receives in a step, in the forward and in the backward pass: by the layer that
    reads what the other device has computed, in the order of the layers.

    Examples:
        >>> from alexnet.networks import NETWORKS
        >>> gathered = Exchange("all-gather", ("flatten",), False, ((128, 6, 6, 256),), 4718592)
        >>> received_by_layer(NETWORKS["paper"], [gathered])
        {'fc6': (2.359296, 0.0)}
    """
    found: dict[str, list[float]] = {layer.name: [0.0, 0.0] for layer in network.layers}
    names = list(found)
    for exchange in exchanges:
        first = names.index(exchange.layers[0])
        reader = next(layer for layer in network.layers[first:] if isinstance(layer, LRN) or layer in network.weighted)
        found[reader.name][exchange.backward] += exchange.received() / 1e6
    return {name: (forward, backward) for name, (forward, backward) in found.items() if forward or backward}
