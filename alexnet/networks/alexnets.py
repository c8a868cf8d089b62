"""The published AlexNets and the ablations of 2012, each as a row of data."""

from alexnet.networks.specs import (
    LRN,
    Activation,
    AdaptivePool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Network,
    Pool,
    WithinChannelLRN,
)

# The text of the paper. ReLU follows every layer (3.1), two columns (3.2, figure 2), LRN after ReLU in the first two
# (3.3), overlapping pooling (3.4), sizes (3.5), dropout (4.2), initial values (5), ImageNet's mean (2).
PAPER = Network(
    title="the text of the paper",
    layers=(
        Conv("conv1", 96, 11, stride=4),
        Activation("relu1"),
        LRN("norm1"),
        Pool("pool1"),
        Conv("conv2", 256, 5, padding=2, groups=2, init_bias=1.0),
        Activation("relu2"),
        LRN("norm2"),
        Pool("pool2"),
        Conv("conv3", 384, 3, padding=1),
        Activation("relu3"),
        Conv("conv4", 384, 3, padding=1, groups=2, init_bias=1.0),
        Activation("relu4"),
        Conv("conv5", 256, 3, padding=1, groups=2, init_bias=1.0),
        Activation("relu5"),
        Pool("pool5"),
        Flatten("flatten"),
        Dense("fc6", 4096, init_bias=1.0),
        Activation("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096, init_bias=1.0),
        Activation("relu7"),
        Dropout("drop7"),
        Dense("fc8", None),
    ),
    overhang="conv1",
)

LAYERS = tuple(layer.name for layer in PAPER.weighted)  # the eight that every published AlexNet has


def _all(layers=LAYERS, **fields):
    return {name: dict(fields) for name in layers}


# The programs of 2012 and 2014, and Caffe, move biases at twice the rate of kernels.
_FAST_BIASES = _all(learning_rate_factors=(1.0, 2.0))

# What was really trained: net 145 of the source code that the Computer History Museum released. Its LRN stays in each
# column.
_ALPHA_OVER_N = 1e-4 / 5  # these programs divide alpha by the size of the window
KRIZHEVSKY2012 = (
    PAPER.changed(_FAST_BIASES)
    .changed(
        {
            **_all(("norm1", "norm2"), alpha=_ALPHA_OVER_N, groups=2),
            **_all(("conv3", "conv4", "conv5"), init_std=0.03),
        },
        title="net 145 of the 2012 code",
    )
    .moved("relu1", after="pool1")
    .inserted(WithinChannelLRN("map_norm2"), after="norm2")
    .moved("relu5", after="pool5")
)

# Its neighbors, which the paper's sections 3.2 to 3.4 compare it with.
NET147 = KRIZHEVSKY2012.changed(
    {
        **_all(("pool1", "pool2", "pool5"), size=2, rounding="ceil"),
        "conv2": {"padding": 1},
        "conv5": {"padding": 0},
    },
    title="net 147 of the 2012 code: pools do not overlap",
)
NET148 = KRIZHEVSKY2012.without("norm1", "norm2", "map_norm2").changed(
    title="net 148 of the 2012 code: no response normalization"
)
# Its convolutional columns do not meet. fc6 and fc7 see both; no source at hand says how they were connected.
NET150 = KRIZHEVSKY2012.changed(
    {"conv3": {"groups": 2}}, title="net 150 of the 2012 code: the columns first meet in fc6"
)
NET145_HALF = KRIZHEVSKY2012.changed(
    {
        **_all(("norm1", "norm2"), groups=1),
        "conv1": {"filters": 48},
        "conv2": {"filters": 128, "groups": 1},
        "conv3": {"filters": 192},
        "conv4": {"filters": 192, "groups": 1},
        "conv5": {"groups": 1},
    },
    title="net 145-half of the 2012 code: one column",
)

CAFFE = PAPER.changed(_FAST_BIASES).changed(
    {
        **_all(("norm1", "norm2"), k=1.0, alpha=_ALPHA_OVER_N),
        **_all(("conv2", "conv4", "conv5"), init_bias=0.1),
        **_all(("fc6", "fc7"), init_bias=0.1, init_std=0.005),
    },
    title="Caffe's bvlc_alexnet",
    pixel_mean=(122.679, 116.669, 104.007),
    overhang="pool1",  # Caffe rounds down in a convolution, and up in a pooling
)
CAFFENET = (
    CAFFE.changed(
        _all(("conv2", "conv4", "conv5", "fc6", "fc7"), init_bias=1.0),
        title="Caffe's bvlc_reference_caffenet",
    )
    .moved("norm1", after="pool1")
    .moved("norm2", after="pool2")
)

# "One weird trick for parallelizing convolutional neural networks" (2014): one column, of other sizes.
ONE_TOWER = (
    PAPER.changed(_FAST_BIASES)
    .changed(
        {
            **_all(("norm1", "norm2"), alpha=_ALPHA_OVER_N),
            "conv1": {"filters": 64},
            "conv2": {"filters": 192, "groups": 1},
            "conv3": {"init_std": 0.03},
            "conv4": {"filters": 256, "groups": 1, "init_std": 0.03},
            "conv5": {"groups": 1, "init_std": 0.03},
        },
        title="cuda-convnet2's single column",
    )
    .moved("relu1", after="pool1")
    .moved("relu5", after="pool5")
)
# PyTorch's optimizer has one rate and one decay for kernels and biases.
TORCHVISION = (
    ONE_TOWER.without("norm1", "norm2")
    .changed({"conv1": {"padding": 2}})
    .changed(
        _all(init_std=None, learning_rate_factors=(1.0, 1.0), decay_factors=(1.0, 1.0)),
        title="torchvision's alexnet",
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        image_size=224,
        overhang=None,
    )
    .moved("relu1", after="conv1")
    .moved("relu5", after="conv5")
    .inserted(AdaptivePool("average", 6), after="pool5")
    .moved("drop6", after="flatten")
    .moved("drop7", after="relu6")
)
