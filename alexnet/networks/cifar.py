"""The CIFAR-10 networks of cuda-convnet (section 3.3 of the paper), and one with LRN for comparison, as rows of data.

They were trained at a learning rate of .001 in batches of 128, with momentum .9. `decay_factors` are theirs for a
weight decay of .004. Those of 13 % and 11 % train on crops of 24 pixels, the others on all 32.
"""

from alexnet.networks.specs import (
    LRN,
    Activation,
    Conv,
    Dense,
    Flatten,
    LocallyConnected,
    Network,
    Pool,
    WithinChannelLRN,
)

CIFAR10_MEAN = (125.31, 122.95, 113.87)  # of the pixels of CIFAR-10's training images, RGB, 0-255


def _rates(kernel_decay):
    """Factors: twice the learning rate for biases, `kernel_decay` for kernels, no decay for biases."""
    return {"learning_rate_factors": (1.0, 2.0), "decay_factors": (kernel_decay, 0.0)}


def _pool(name, kind="max"):
    return Pool(name, kind=kind, rounding="ceil")


CIFAR10_80SEC = Network(
    title="cuda-convnet's layers-80sec",
    layers=(
        Conv("conv1", 32, 5, padding=2, init_std=1e-4, **_rates(1.0)),
        _pool("pool1"),
        Activation("relu1"),
        Conv("conv2", 32, 5, padding=2, **_rates(1.0)),
        Activation("relu2"),
        _pool("pool2", "average"),
        Conv("conv3", 64, 5, padding=2, **_rates(1.0)),
        Activation("relu3"),
        _pool("pool3", "average"),
        Flatten(),
        Dense("fc4", 64, init_std=0.1, **_rates(0.03 / 0.004)),
        Activation("relu4"),
        Dense("fc5", None, init_std=0.1, **_rates(0.03 / 0.004)),
    ),
    pixel_mean=CIFAR10_MEAN,
    image_size=32,
)

_MAP_LRN: dict = {"size": 3, "alpha": 5e-5 / 9}
CIFAR10_18PCT = (
    CIFAR10_80SEC.without("fc4")
    .inserted(WithinChannelLRN("map_norm1", **_MAP_LRN), after="relu1")
    .inserted(WithinChannelLRN("map_norm2", **_MAP_LRN), after="pool2")
    .changed({"fc5": {"name": "fc4", "init_std": 0.01, **_rates(1 / 0.004)}}, title="cuda-convnet's layers-18pct")
)

CIFAR10_13PCT = Network(
    title="cuda-convnet's layers-conv-local-13pct",
    layers=(
        Conv("conv1", 64, 5, padding=2, init_std=1e-4, **_rates(0.0)),
        Activation("relu1"),
        _pool("pool1"),
        Conv("conv2", 64, 5, padding=2, **_rates(0.0)),
        Activation("relu2"),
        _pool("pool2"),
        LocallyConnected("local3", 32, 3, padding=1, init_std=0.04, **_rates(1.0)),
        Activation("relu3"),
        LocallyConnected("local4", 32, 3, padding=1, init_std=0.04, **_rates(1.0)),
        Activation("relu4"),
        Flatten(),
        Dense("fc5", None, **_rates(1.0)),
    ),
    pixel_mean=CIFAR10_MEAN,
    image_size=24,
)
# The 13 % network with LRN before each pool and nothing else changed: what the paper's "13 % to 11 %" (3.3) compares.
CIFAR10_13PCT_LRN = (
    CIFAR10_13PCT.inserted(LRN("norm1", n=5, k=1.0, alpha=1e-3 / 5), after="relu1")
    .inserted(LRN("norm2", n=5, k=1.0, alpha=1e-3 / 5), after="relu2")
    .changed(title="layers-conv-local-13pct with LRN before its pools")
)
CIFAR10_11PCT = (
    CIFAR10_13PCT.inserted(LRN("norm1", n=9, k=1.0, alpha=1e-3 / 9), after="pool1")
    .inserted(LRN("norm2", n=9, k=1.0, alpha=1e-3 / 9), after="relu2")
    .changed({"local3": {"filters": 64}, "fc5": _rates(0.01 / 0.004)}, title="cuda-convnet's layers-conv-local-11pct")
)
