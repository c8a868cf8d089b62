"""The published AlexNets as rows of data. `alexnet.AlexNet` builds any of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Convolution:
    """One convolutional layer and what follows it, in order: `"relu"`, `"lrn"`, `"pool"`."""

    filters: int
    kernel: int
    then: tuple[str, ...]
    stride: int = 1
    padding: str = "same"
    columns: int = 1  # each column's filters see only their own column's maps below (figure 2)
    bias: float = 0.0


@dataclass(frozen=True)
class Preset:
    """One network: its layers from the pixels up, and the values they start from."""

    convolutions: dict[str, Convolution]
    hidden: dict[str, int]  # fully connected layers but the last, and their units
    hidden_bias: float
    std: float  # of the Gaussian that kernels start from
    lrn: dict[str, float]
    mean: tuple[float, float, float]  # of ImageNet's pixels, RGB, 0-255


PRESETS = {
    # The text of the paper. ReLU follows every layer (3.1), two columns (3.2, figure 2), LRN after ReLU in the
    # first two (3.3), overlapping pooling (3.4), sizes (3.5), initial values (5), ImageNet's mean (2).
    "paper": Preset(
        convolutions={
            "conv1": Convolution(96, 11, stride=4, padding="valid", then=("relu", "lrn", "pool")),
            "conv2": Convolution(256, 5, columns=2, bias=1.0, then=("relu", "lrn", "pool")),
            "conv3": Convolution(384, 3, then=("relu",)),
            "conv4": Convolution(384, 3, columns=2, bias=1.0, then=("relu",)),
            "conv5": Convolution(256, 3, columns=2, bias=1.0, then=("relu", "pool")),
        },
        hidden={"fc6": 4096, "fc7": 4096},
        hidden_bias=1.0,
        std=0.01,
        lrn={"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75},
        mean=(127.30, 119.72, 104.91),
    ),
}

INITIALIZERS = ("paper", "he_normal")
SMALLEST_INPUT = 67  # pixels a side; below it nothing is left for pool5
