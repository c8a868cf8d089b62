"""What a file says about its network: the layers in order, compared with the networks known here."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from alexnet.networks import NETWORKS, specs

# The kinds of layers that the networks have, and the names of their settings. Other layers keep the file's own name.
SETTINGS = {
    "conv": ("kernel", "strides", "padding", "groups", "dilation"),
    "local": ("kernel", "strides", "padding"),
    "relu": (),
    "tanh": (),
    "lrn": ("n", "k", "alpha", "beta", "groups"),
    "within_channel_lrn": ("size", "k", "alpha", "beta"),
    "pool": ("size", "strides", "padding", "dilation"),
    "average_pool": ("size", "strides", "padding", "dilation"),
    "average": ("size",),
    "flatten": (),
    "dense": (),
}
NAMES = {"conv": "conv", "local": "local", "dense": "fc", "relu": "relu", "tanh": "tanh", "lrn": "norm"}
NAMES |= {"within_channel_lrn": "map_norm", "pool": "pool", "average_pool": "average_pool"}
WITH_WEIGHTS = ("conv", "local", "dense")
WINDOWED = ("conv", "local", "pool", "average_pool")


@dataclass(frozen=True)
class Layer:
    """One layer as a file describes it.

    Attributes:
        kind: A key of `SETTINGS`, or the file's own name for a layer that no network here has.
        settings: Those that `SETTINGS` names, as far as the file states them. Before `resolve`, `padding` is
            `((top, bottom), (left, right))`, `"same"` or `"same_lower"`, and `rounding` may be `"ceil"`.
        name: The layer's name in the file.
    """

    kind: str
    settings: dict = field(default_factory=dict)
    name: str = ""


@dataclass
class Architecture:
    """The layers from the pixels to the logits, without dropout.

    Attributes:
        layers: In order.
        input_size: Height and width of the images; None if the file does not state them.
        maps: Rows and columns of the maps that the first dense layer sees.
        overhang: By layer, the rows and columns of zeros by which its last windows reach past its input.
        mean, std: How the network itself normalizes pixels, RGB 0-255; None if it does not.
        activation: The function that follows the logits.
    """

    layers: list[Layer]
    input_size: tuple[int, int] | None = None
    maps: tuple[int, int] | None = None
    overhang: dict[str, tuple[int, int]] = field(default_factory=dict)
    mean: tuple | None = None
    std: tuple | float | None = None
    activation: str | None = "softmax"

    def resolve(self, input_size):
        """The same with every padding as numbers, for images of this size, and with layers in our networks' order."""
        layers = _fold(self.layers)
        last = layers[-1] if layers else None
        after_logits = len(layers) > 1 and layers[-2].kind == "dense" and "activation" in last.settings
        resolved = replace(self, layers=[], input_size=tuple(input_size), overhang={})
        resolved.activation = layers.pop().kind if after_logits else None
        sizes, number, told = list(input_size), 0, True
        for layer in layers:
            number += layer.kind in WITH_WEIGHTS
            told = told and layer.kind in SETTINGS  # after any other layer the size of the maps is unknown
            if layer.kind in WINDOWED and "padding" in layer.settings:
                layer, sizes, rows = _resolve(layer, sizes)
                if any(rows):
                    resolved.overhang[f"{layer.kind}{number}"] = rows
            elif layer.kind in WINDOWED:
                told = False
            elif layer.kind == "average":
                before, sizes = sizes, [layer.settings["size"]] * 2
                window = layer.settings.get("window")
                if window and before != [window * side for side in sizes]:
                    layer = Layer(f"average over {window} x {window}", name=layer.name)
                elif before == sizes:  # nothing to average
                    continue
            elif layer.kind == "flatten":
                resolved.maps = tuple(sizes) if told else None
            if layer.kind == "relu" and resolved.layers and resolved.layers[-1].kind == "pool":
                resolved.layers.insert(-1, layer)  # max-pooling and ReLU commute
            else:
                resolved.layers.append(layer)
        return resolved

    def detect(self):
        """The network with exactly these layers, a key of `NETWORKS`; None if there is none."""
        return next((name for name in NETWORKS if not self.differences(name)), None)

    def nearest(self):
        """The network that is most similar to these layers."""
        return min(NETWORKS, key=lambda name: self._distance(name))

    def _distance(self, network):
        kinds = [
            [layer.kind for layer in layers] for layers in (self.layers, _layers(NETWORKS[network], self.input_size))
        ]
        return sum(a != b for a, b in zip(*kinds, strict=False)), len(self.differences(network))

    def differences(self, network, row=None):
        """The differences from a network, one sentence each.

        Args:
            network: A key of `NETWORKS`.
            row: The `Network` to compare with, if it is not `NETWORKS[network]`.
        """
        row = row or NETWORKS[network]
        expected = _layers(row, self.input_size)
        ours, theirs = _names(expected), _names(self.layers)
        if ours != theirs:
            kinds = {layer.kind for layer in expected}
            found = [
                f"{name} ({layer.name})" if layer.kind not in kinds and layer.name not in ("", name) else name
                for name, layer in zip(theirs, self.layers, strict=True)
            ]
            return [f"expected the order {' '.join(ours)}, found {' '.join(found)}"]
        problems = [
            f"{name}: expected {key}={_shown(wanted.settings[key])}, found {_shown(layer.settings[key])}"
            for name, wanted, layer in zip(ours, expected, self.layers, strict=True)
            for key in SETTINGS[layer.kind]
            if key in layer.settings and not _alike(wanted.settings[key], layer.settings[key])
        ]
        std = row.pixel_std
        if self.std is not None and not np.allclose(self.std, std, rtol=1e-3):
            problems.append(f"mean: expected std={std}, found {self.std}")
        return problems


def _alike(ours, theirs):
    if isinstance(ours, float):
        return math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-12)
    return ours == theirs


def _shown(value):
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _layers(network, input_size):
    """The layers of a `Network`, for images of this size."""
    return (
        Architecture([_layer(spec) for spec in network.layers if not isinstance(spec, specs.Dropout)])
        .resolve(input_size)
        .layers
    )


def _layer(spec):
    """The `Layer` of a layer spec."""
    if isinstance(spec, specs.Conv):
        return convolution((spec.kernel,) * 2, (spec.stride,) * 2, ((spec.padding,) * 2,) * 2, spec.groups)
    if isinstance(spec, specs.LocallyConnected):
        return local((spec.kernel,) * 2, (spec.stride,) * 2, ((spec.padding,) * 2,) * 2)
    if isinstance(spec, specs.Pool):
        kind = "pool" if spec.kind == "max" else "average_pool"
        return pool((spec.size,) * 2, (spec.stride,) * 2, rounding=spec.rounding, kind=kind)
    if isinstance(spec, specs.LRN):
        return lrn(**{**specs.settings(spec), "n": 2 * (spec.n // 2) + 1})
    if isinstance(spec, specs.WithinChannelLRN):
        return Layer("within_channel_lrn", specs.settings(spec))
    if isinstance(spec, specs.AdaptivePool):
        return Layer("average", {"size": spec.size})
    return Layer({specs.Dense: "dense", specs.Flatten: "flatten"}.get(type(spec)) or spec.function)


def convolution(kernel, strides, padding, groups, dilation=(1, 1), name=""):
    settings = {"kernel": kernel, "strides": strides, "padding": padding, "groups": groups, "dilation": dilation}
    return Layer("conv", settings, name)


def local(kernel, strides, padding, name=""):
    return Layer("local", {"kernel": kernel, "strides": strides, "padding": padding}, name)


def pool(size, strides, padding=((0, 0), (0, 0)), dilation=(1, 1), rounding="floor", name="", kind="pool"):
    settings = {"size": size, "strides": strides, "padding": padding, "dilation": dilation, "rounding": rounding}
    return Layer(kind, settings, name)


def lrn(n, k, alpha, beta, groups=1, name=""):
    return Layer("lrn", {"n": n, "k": k, "alpha": alpha, "beta": beta, "groups": groups}, name)


def padding(rows, name=""):
    """Zeros around maps, `((top, bottom), (left, right))`. `resolve` adds them to the padding of the next layer."""
    return Layer("padding", {"padding": rows}, name)


def activation(function, name=""):
    """A function that may follow the logits. Between other layers, it is a layer that no network here has."""
    return Layer(function, {"activation": True}, name)


def _fold(layers):
    """The layers with zeros around maps as the padding of the next convolution, or of a pooling without negative
    inputs."""
    folded, positive = [], False
    for i, layer in enumerate(layers):
        before = folded[-1] if folded else None
        rectified = positive or (i + 1 < len(layers) and layers[i + 1].kind == "relu")
        takes = layer.kind in ("conv", "local") or (layer.kind == "pool" and rectified)
        if takes and before is not None and before.kind == "padding" and isinstance(layer.settings["padding"], tuple):
            sides = zip(layer.settings["padding"], folded.pop().settings["padding"], strict=True)
            sides = tuple((a + c, b + d) for (a, b), (c, d) in sides)
            layer = replace(layer, settings={**layer.settings, "padding": sides})
        folded.append(layer)
        positive = layer.kind == "relu" or (positive and layer.kind in ("lrn", "within_channel_lrn", "pool", "padding"))
    return folded


def _resolve(layer, sizes):
    """`(layer, sizes, overhangs)` of a layer with windows: its padding as one number if all sides are equal, the sizes
    of its outputs, and how far its last windows reach past the input.

    That overhang is not part of the padding, because it depends on the image's size.
    """
    settings = dict(layer.settings)
    rounding = settings.pop("rounding", "floor")
    paddings, outputs, overhangs = [], [], []
    for axis, size in enumerate(sizes):
        stride = settings["strides"][axis]
        dilation = settings.get("dilation", (1, 1))[axis]
        window = dilation * (settings["size" if "size" in settings else "kernel"][axis] - 1) + 1
        if settings["padding"] in ("same", "same_lower"):
            total = max(0, (-(-size // stride) - 1) * stride + window - size)
            before = (total + (settings["padding"] == "same_lower")) // 2
            after = total - before
        else:
            before, after = settings["padding"][axis]
        steps, rest = divmod(size + before + after - window, stride)
        count = steps + 1
        if rounding == "ceil" and rest and (steps + 1) * stride < size + before:
            count += 1
        count = max(count, 0)
        reach = (count - 1) * stride + window - size - 2 * before  # past an input with equal padding on both sides
        plain = (size + 2 * before - window) // stride + 1
        if count == plain:
            after, reach = before, 0
        elif count == plain + 1 and 0 < reach < stride:
            after = before
        else:
            reach = 0
        paddings.append((before, after))
        outputs.append(count)
        overhangs.append(reach)
    (top, bottom), (left, right) = paddings
    settings["padding"] = top if top == bottom == left == right else tuple(paddings)
    return replace(layer, settings=settings), outputs, tuple(overhangs)


def _names(layers):
    """The layers' names in our models. A layer that no network here has is named by its kind."""
    names, number = [], 0
    for layer in layers:
        number += layer.kind in WITH_WEIGHTS
        names.append(f"{NAMES[layer.kind]}{number}" if layer.kind in NAMES else layer.kind)
    return names
