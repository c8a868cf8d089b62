"""A network: its layers, kernels and numbers."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

from alexnet.plotting.style import ACCENT, INK, LAYER_COLORS, PALE, SOFT, bare, styled


@styled
def filters(model, before=None, layer="conv1"):
    """The kernels of the first layer as color images, each stretched over its own range (figure 3 of the paper).

    With the model as it was `before` training, what training has added to them.
    """
    kernels = model.get_layer(layer).get_weights()[0]
    if before is not None:
        kernels = kernels - before.get_layer(layer).get_weights()[0]
    count = kernels.shape[-1]
    columns = next((c for c in (16, 12, 8) if count % c == 0), min(16, count))
    rows = math.ceil(count / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(columns * 0.72, rows * 0.76), squeeze=False)
    for axes in grid.flat:
        bare(axes)
    for axes, kernel in zip(grid.flat, np.moveaxis(kernels, -1, 0), strict=False):
        reach = np.abs(kernel).max() or 1.0
        axes.imshow(0.5 + kernel / (2 * reach))
    return figure


@styled
def shares(rows):
    """Where the parameters are and where the arithmetic is, layer by layer."""
    rows = [row for row in rows if row["parameters"]]
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
    for axes, key, unit in zip(panels, ("parameters", "macs"), ("parameters", "multiply-adds an image"), strict=True):
        values = [row[key] / 1e6 for row in rows]
        bars = axes.barh([row["layer"] for row in rows], values, color=ACCENT, height=0.7)
        axes.bar_label(bars, [f"{value / sum(values):.0%}" for value in values], padding=3, fontsize=9, color=INK)
        axes.set_title(f"{sum(values):,.0f} million {unit}")
        axes.set_xlim(right=max(values) * 1.15)
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    return figure


@styled
def network(rows, columns_of):
    """The network as figure 2 of the paper draws it: two columns of maps, joined where a layer sees both.

    Args:
        rows: `alexnet.model.summarize_layers(model)`.
        columns_of: The number of columns (groups) of each convolutional layer, by name. If none has two, one column is
            drawn.
    """
    drawn = [{**row, "color": color} for row in rows if (color := _color(row["kind"]))]
    high = 2.75 if max(columns_of.values(), default=1) > 1 else 1.4  # of the names above
    figure, axes = plt.subplots(figsize=(11, 1.5 * high))
    bare(axes)
    x, previous = 0.0, None
    lanes = (1.35, -1.35) if max(columns_of.values(), default=1) > 1 else (0.0,)
    for row in drawn:
        size, channels = (row["output"][0], row["output"][-1]) if len(row["output"]) == 3 else (None, row["output"][-1])
        height = 0.35 + 1.9 * math.sqrt(size / 60) if size else 1.9
        width = 0.12 + 0.14 * math.log2(max(2, channels)) / 2 if size else 0.22
        halves = lanes if row is not drawn[-1] else (0.0,)
        for lane in halves:
            axes.add_patch(
                Rectangle((x, lane - height / 2), width, height, facecolor=row["color"], edgecolor=INK, linewidth=0.8)
            )
        if previous:
            joined = row["kind"] == "Dense" or columns_of.get(row["layer"]) == 1
            for start in previous[1]:
                for lane in halves:
                    if joined or start == lane:
                        crossing = start != lane
                        axes.add_patch(
                            FancyArrowPatch(
                                (previous[0], start),
                                (x, lane),
                                arrowstyle="-",
                                linewidth=0.7 if crossing else 1.2,
                                color=ACCENT if crossing else SOFT,
                            )
                        )
        text = f"{size}×{size}\n{channels}" if size else f"{channels}"
        axes.text(x + width / 2, high, row["layer"], ha="center", fontweight="bold", fontsize=9)
        axes.text(x + width / 2, 0.1 - high, text, ha="center", va="top", fontsize=9)
        previous = (x + width, halves)
        x += width + 0.62
    axes.set_xlim(-0.2, x - 0.4)
    axes.set_ylim(-high - 0.75, high + 0.35)
    return figure


def _color(kind):
    """Of a kind of layer that is drawn; None of the others."""
    if "Pooling" in kind:
        return LAYER_COLORS["pool"]
    if kind == "Dense":
        return LAYER_COLORS["dense"]
    return LAYER_COLORS["conv"] if "Conv" in kind or "Connected" in kind else None


@styled
def normalization(before, after, marked=None):
    """A row of channels before and after response normalization, as bars of two heights."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 4), sharex=True)
    for axes, values, title in ((top, before, "before"), (bottom, after, "after")):
        colors = [ACCENT if marked is None or i in marked else PALE for i in range(len(values))]
        axes.bar(range(len(values)), values, color=colors, width=0.8)
        axes.set_title(title)
        axes.set_ylabel("activation")
        axes.grid(axis="x", visible=False)
    bottom.set_xlabel("channel")
    return figure
