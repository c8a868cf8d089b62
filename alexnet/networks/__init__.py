"""Networks by name, each an ordered tuple of layer specs. Plain data, which knows nothing of Keras."""

from alexnet.networks import alexnets, cifar
from alexnet.networks.alexnets import LAYERS as LAYERS
from alexnet.networks.specs import IMAGENET_MEAN as IMAGENET_MEAN
from alexnet.networks.specs import Conv, Dense, LocallyConnected, Network

WEIGHTED_SPECS = (Conv, LocallyConnected, Dense)  # of layers with weights
INITIALIZERS = ("paper", "he_normal")

NETWORKS = {
    "paper": alexnets.PAPER,
    "krizhevsky2012": alexnets.KRIZHEVSKY2012,
    "caffe": alexnets.CAFFE,
    "caffenet": alexnets.CAFFENET,
    "one_tower": alexnets.ONE_TOWER,
    "torchvision": alexnets.TORCHVISION,
    "net147": alexnets.NET147,
    "net148": alexnets.NET148,
    "net150": alexnets.NET150,
    "net145_half": alexnets.NET145_HALF,
    "cifar10_80sec": cifar.CIFAR10_80SEC,
    "cifar10_18pct": cifar.CIFAR10_18PCT,
    "cifar10_13pct": cifar.CIFAR10_13PCT,
    "cifar10_13pct_lrn": cifar.CIFAR10_13PCT_LRN,
    "cifar10_11pct": cifar.CIFAR10_11PCT,
}
PUBLISHED = ("paper", "krizhevsky2012", "caffe", "caffenet", "one_tower", "torchvision")  # those called AlexNet


def find_network(name):
    """The network of that name.

    Raises:
        ValueError: there is none; all names are listed.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"Unknown network. Received: network={name!r}. Known: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def network_of(name, activation="relu", without=()):
    """The row of a network, with a different activation or without some layers.

    Raises:
        ValueError: an unknown network, activation or layer, or a network that cannot do without a layer.
    """
    row = find_network(name)
    if activation not in ("relu", "tanh"):
        raise ValueError(f"Unknown activation. Received: activation={activation!r}. Known: relu, tanh")
    names = (without,) if isinstance(without, str) else tuple(without)
    try:
        row = row.without(*names)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{error.args[0]} Received: without={without!r}") from None
    return row if activation == "relu" else row.with_activation(activation)


def register_network(name, network):
    """Give a network of your own a name that `AlexNet`, recipes and checkpoints know in this process.

    Args:
        name: A new name, or the name of an equal network.
        network: A `Network`.

    Returns:
        The network.

    Raises:
        TypeError: `network` is not a `Network`.
        ValueError: a different network has this name.

    Examples:
        >>> shorter = alexnet.NETWORKS["paper"].without("conv4")
        >>> alexnet.register_network("paper_without_conv4", shorter).title == shorter.title
        True
        >>> model = alexnet.AlexNet("paper_without_conv4", input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> "conv4" in [layer.name for layer in model.layers]
        False
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be an alexnet.networks.Network. Received: {network!r}")
    if NETWORKS.get(name, network) != network:
        raise ValueError(f"A different network is called {name!r}: {NETWORKS[name].title}.")
    NETWORKS[name] = network
    return network


def layers_by_names(names):
    """The layers with weights of the first network in which they have these names, in this order; None without one."""
    for network in NETWORKS.values():
        if [layer.name for layer in network.weighted] == list(names):
            return network.weighted
    return None


def names_by_counts(convolutions, local, dense):
    """Names of the layers with weights, by kind, in the first network that has so many of each kind; None if there is
    none."""
    for network in NETWORKS.values():
        kinds = [[layer.name for layer in network.weighted if isinstance(layer, kind)] for kind in WEIGHTED_SPECS]
        if [len(kind) for kind in kinds] == [convolutions, local, dense]:
            return kinds
    return None
