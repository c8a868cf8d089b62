"""The picture of a whole network, as figure 2 of the paper draws it, and of the devices that hold its parts."""

import math

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from alexnet.plotting.style import ACCENT, DEVICE_COLORS, INK, LAYER_COLORS, SOFT, bare, styled

_GAP, _STRIP = 0.5, 0.16  # between two layers, and the width of one without feature maps of its own
_LANES = (1.35, -1.35)  # heights of the two columns


@styled
def network(model):
    """The network as figure 2 of the paper draws it: two columns of feature maps, joined where a layer sees both.

    Above each layer stands its kernel or window and the stride, below it the size of its maps and how many there are in
    each column. Layers without a picture of their own (activations, dropout) are left out.

    Args:
        model: `alexnet.AlexNet(...)`. If none of its convolutions has two groups, one column is drawn.
    """
    layers = [layer for layer in model.layers if _kind(layer)]
    two = any(getattr(layer, "groups", 1) > 1 for layer in layers if _kind(layer) == "conv")
    high = 2.75 if two else 1.6  # of the names above
    figure, axes = plt.subplots(figsize=(11, 1.55 * high + 0.35))
    bare(axes)
    x, previous = 0.0, None
    for layer, before in zip(layers, [None, *layers], strict=False):
        lanes = _LANES if two and layer not in (layers[0], layers[-1]) else (0.0,)
        width = _draw(axes, layer, x, lanes, high, before)
        if previous:
            _connect(axes, previous, (x, lanes), _sees_all(layer))
        above, below = _words(layer, len(lanes))
        axes.text(x + width / 2, high + 0.02, above, ha="center", fontsize=9.5)
        axes.text(x + width / 2, 0.1 - high, below, ha="center", va="top", fontsize=9.5)
        previous = (x + width, lanes)
        x += width + _GAP
    axes.set_xlim(-0.35, x - _GAP + 0.35)
    axes.set_ylim(-high - 0.8, high + 0.8)
    return figure


@styled
def two_devices(model, parts, received):
    """A network on two devices: what each holds, and what it receives from the other one in a training step.

    Args:
        model: The network.
        parts: The shape of one device's part of each variable, by its path, as `Distribution.parts` returns it.
        received: By a layer's name, the megabytes that each device receives for it, in the forward and in the backward
            pass.
    """
    layers = [layer for layer in model.layers if _kind(layer)]
    held = {}
    for path, shape in parts.items():
        name = path.partition("/")[0]
        held[name] = held.get(name, 0) + math.prod(shape)
    high = 2.75
    figure, axes = plt.subplots(figsize=(11, 1.55 * high + 0.5))
    bare(axes)
    x, previous = 0.0, None
    for layer, before in zip(layers, [None, *layers], strict=False):
        width = _draw(axes, layer, x, _LANES, high, before)
        meets = layer.name in received
        if previous:
            _connect(axes, (previous, _LANES), (x, _LANES), meets)
        if meets:
            place = (previous + x) / 2 if _kind(layer) == "conv" else x - _GAP / 2
            megabytes = "\n".join(f"{size:.1f}" if size else "–" for size in received[layer.name])
            box = {"facecolor": "white", "edgecolor": ACCENT, "boxstyle": "round,pad=0.25", "linewidth": 0.8}
            axes.text(place, 0, megabytes, ha="center", va="center", fontsize=8.5, color=ACCENT, bbox=box)
        if layer.name in held:
            axes.text(x + width / 2, -high - 0.1, f"{held[layer.name] / 1e6:.2f}", ha="center", va="top", fontsize=9.5)
        previous = x + width
        x += width + _GAP
    for lane, color in zip(_LANES, DEVICE_COLORS, strict=True):
        axes.axhspan(lane - 1.33, lane + 1.33, facecolor=color, zorder=-1)
    for number, lane in enumerate(_LANES):
        axes.text(-0.45, lane, f"device {number}", rotation=90, va="center", ha="center", fontweight="bold")
    axes.text(-0.3, -high - 0.1, "million\nnumbers", ha="right", va="top", fontsize=9.5, linespacing=0.95)
    axes.set_xlim(-1.05, x - _GAP + 0.35)
    axes.set_ylim(-high - 0.75, high + 1.1)
    return figure


def _draw(axes, layer, x, lanes, high, before=None):
    """A layer's boxes and its name, which stands higher if there is no room beside that of the layer `before`; returns
    the width."""
    width, height = _size(layer, high)
    height = min(height, high * (2 if len(lanes) == 1 else 0.9))
    lifted = 0.4 if before is not None and _kind(layer) == _kind(before) == "norm" else 0
    for lane in lanes:
        corner = (x, lane - height / 2)
        axes.add_patch(Rectangle(corner, width, height, facecolor=LAYER_COLORS[_kind(layer)], edgecolor=INK, lw=0.8))
    axes.text(x + width / 2, high + 0.42 + lifted, layer.name, ha="center", fontweight="bold", fontsize=10)
    return width


def _kind(layer):
    """The key of the layer's color; None of what is not drawn."""
    name = type(layer).__name__
    if name == "InputLayer":
        return "pixels"
    if "Pooling" in name or name == "AverageMaps":
        return "pool"
    if "ResponseNormalization" in name or "LRN" in name:
        return "norm"
    return "dense" if name == "Dense" else "conv" if "Conv" in name or "Connected" in name else None


def _size(layer, high):
    """Width and height of its box: maps are as high as they are large, and wider the more there are."""
    if _kind(layer) == "dense":
        return 0.22, 1.9
    side, channels = layer.output.shape[1], layer.output.shape[-1]
    height = min(0.35 + 1.9 * math.sqrt(side / 60), 2 * high - 0.7)
    return _STRIP if _kind(layer) == "norm" else 0.12 + 0.07 * math.log2(max(2, channels)), height


def _sees_all(layer):
    return _kind(layer) == "dense" or (_kind(layer) == "conv" and getattr(layer, "groups", 1) == 1)


def _connect(axes, previous, here, joined):
    """Lines from the boxes of the layer before; blue where one column sees the other."""
    for start in previous[1]:
        for end in here[1]:
            alone = len(previous[1]) == 1 or len(here[1]) == 1
            if joined or alone or start == end:
                crossing = start != end and previous[1] != (0.0,)
                color, line = (ACCENT, 0.8) if crossing else (SOFT, 1.2)
                axes.plot((previous[0], here[0]), (start, end), color=color, linewidth=line, zorder=0)


def _words(layer, columns):
    """What stands above a layer and below it."""
    kind, shape = _kind(layer), layer.output.shape[1:]
    count = " + ".join([str(shape[-1] // columns)] * columns)
    if kind == "dense":
        return "", count.replace(" + ", "\n+ ")
    window = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    above = ""
    if window is not None:
        window, stride = (value if isinstance(value, int) else value[0] for value in (window, layer.strides))
        above = f"{window}×{window}" + (f" /{stride}" if stride > 1 else "")
    return above, "" if kind == "norm" else f"{shape[0]}×{shape[1]}\n{count}"
