"""The published AlexNets as rows of data. `alexnet.AlexNet` builds any of them."""

from dataclasses import dataclass, replace

IMAGENET_MEAN = (127.30, 119.72, 104.91)  # of the pixels of ILSVRC 2012's training images, RGB, 0-255


@dataclass(frozen=True)
class Convolution:
    """One convolutional layer and what follows it, in order: `"relu"`, `"lrn"`, `"same_map"`, `"pool"`."""

    filters: int
    kernel: int
    then: tuple[str, ...]
    stride: int = 1
    padding: int = 0  # rows and columns of zeros on each side
    columns: int = 1  # each column's filters see only their own column's maps below (figure 2)
    std: float | None = 0.01  # of the Gaussian that the kernel starts from; None for PyTorch's uniform values
    bias: float = 0.0


@dataclass(frozen=True)
class Dense:
    """One fully connected layer, and what lies `before` it and `then` follows: `"relu"`, `"drop"`."""

    units: int | None  # None for as many as there are classes
    then: tuple[str, ...] = ("relu", "drop")
    before: tuple[str, ...] = ()
    std: float | None = 0.01
    bias: float = 0.0


@dataclass(frozen=True)
class Preset:
    """One network: its layers from the pixels up, and the values they start from."""

    title: str
    layers: dict[str, Convolution | Dense]
    lrn: dict[str, float] | None = None
    same_map: dict[str, float] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of the pixels that it was trained on, RGB, 0-255
    scale: float | tuple[float, float, float] = 1.0  # what the difference from the mean is divided by
    image_size: int = 227  # pixels a side that its sizes are counted from
    overhang: str | None = "conv1"  # whose last window reaches past an image of 224 pixels, over zeros

    @property
    def columns(self):
        """How many columns the network is cut into."""
        return max(layer.columns for layer in self.layers.values() if isinstance(layer, Convolution))


# The text of the paper. ReLU follows every layer (3.1), two columns (3.2, figure 2), LRN after ReLU in the first two
# (3.3), overlapping pooling (3.4), sizes (3.5), initial values (5), ImageNet's mean (2).
PAPER = Preset(
    title="the text of the paper",
    layers={
        "conv1": Convolution(96, 11, stride=4, then=("relu", "lrn", "pool")),
        "conv2": Convolution(256, 5, padding=2, columns=2, bias=1.0, then=("relu", "lrn", "pool")),
        "conv3": Convolution(384, 3, padding=1, then=("relu",)),
        "conv4": Convolution(384, 3, padding=1, columns=2, bias=1.0, then=("relu",)),
        "conv5": Convolution(256, 3, padding=1, columns=2, bias=1.0, then=("relu", "pool")),
        "fc6": Dense(4096, bias=1.0),
        "fc7": Dense(4096, bias=1.0),
        "fc8": Dense(None, then=()),
    },
    lrn={"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75},
)


def _changed(preset, layers, **others):
    """A preset like another one but for some fields, and for some fields of some layers."""
    changed = {name: replace(layer, **layers.get(name, {})) for name, layer in preset.layers.items()}
    return replace(preset, layers=changed, **others)


# What was really trained: net 145 of the source code that the Computer History Museum released.
KRIZHEVSKY2012 = _changed(
    PAPER,
    {
        "conv1": {"then": ("lrn", "pool", "relu")},
        "conv2": {"then": ("relu", "lrn", "same_map", "pool")},
        "conv3": {"std": 0.03},
        "conv4": {"std": 0.03},
        "conv5": {"std": 0.03, "then": ("pool", "relu")},
    },
    title="net 145 of the 2012 code",
    lrn={"n": 5, "k": 2.0, "alpha": 1e-4 / 5, "beta": 0.75, "groups": 2},  # a window stays in its column
    same_map={"size": 5, "k": 1.0, "alpha": 1e-3 / 25, "beta": 0.75},
)

_CAFFE = {
    "lrn": {"n": 5, "k": 1.0, "alpha": 1e-4 / 5, "beta": 0.75},
    "mean": (122.679, 116.669, 104.007),
    "overhang": "pool1",  # Caffe rounds down in a convolution, and up in a pooling
}
CAFFE = _changed(
    PAPER,
    {
        **{name: {"bias": 0.1} for name in ("conv2", "conv4", "conv5")},
        **{name: {"bias": 0.1, "std": 0.005} for name in ("fc6", "fc7")},
    },
    title="Caffe's bvlc_alexnet",
    **_CAFFE,
)
CAFFENET = _changed(
    PAPER,
    {
        **{name: {"then": ("relu", "pool", "lrn")} for name in ("conv1", "conv2")},
        **{name: {"std": 0.005} for name in ("fc6", "fc7")},
    },
    title="Caffe's bvlc_reference_caffenet",
    **_CAFFE,
)

# "One weird trick for parallelizing convolutional neural networks" (2014): one column, of other sizes.
ONE_TOWER = _changed(
    PAPER,
    {
        "conv1": {"filters": 64, "then": ("lrn", "pool", "relu")},
        "conv2": {"filters": 192, "columns": 1},
        "conv3": {"std": 0.03},
        "conv4": {"filters": 256, "columns": 1, "std": 0.03},
        "conv5": {"columns": 1, "std": 0.03, "then": ("pool", "relu")},
    },
    title="cuda-convnet2's single column",
    lrn={"n": 5, "k": 2.0, "alpha": 1e-4 / 5, "beta": 0.75},
)
TORCHVISION = _changed(
    ONE_TOWER,
    {
        "conv1": {"padding": 2, "then": ("relu", "pool"), "std": None},
        "conv2": {"then": ("relu", "pool"), "std": None},
        "conv3": {"std": None},
        "conv4": {"std": None},
        "conv5": {"then": ("relu", "pool", "average"), "std": None},
        "fc6": {"before": ("drop",), "then": ("relu",), "std": None},
        "fc7": {"before": ("drop",), "then": ("relu",), "std": None},
        "fc8": {"std": None},
    },
    title="torchvision's alexnet",
    lrn=None,
    mean=(123.675, 116.28, 103.53),
    scale=(58.395, 57.12, 57.375),
    image_size=224,
    overhang=None,
)

PRESETS = {
    "paper": PAPER,
    "krizhevsky2012": KRIZHEVSKY2012,
    "caffe": CAFFE,
    "caffenet": CAFFENET,
    "one_tower": ONE_TOWER,
    "torchvision": TORCHVISION,
}

LAYERS = tuple(PAPER.layers)  # the eight with weights, which every preset has
INITIALIZERS = ("paper", "he_normal")
SMALLEST_INPUT = 67  # pixels a side; below it nothing is left for pool5
