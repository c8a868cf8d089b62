"""How a network with two columns lies on two devices (section 3.2 of the paper)."""

from alexnet.networks.specs import Conv, Dense, Flatten, Network


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
