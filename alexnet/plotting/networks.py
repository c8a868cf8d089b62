"""A network: its layers, kernels and numbers."""

import math

import matplotlib.pyplot as plt
import numpy as np

from alexnet.plotting.style import ACCENT, INK, PALE, bare, styled


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
        parts = [value / sum(values) for value in values]
        words = [f"{part:.0%}" if part >= 0.01 else "<1%" for part in parts]
        axes.bar_label(bars, words, padding=3, fontsize=9, color=INK)
        axes.set_title(f"{sum(values):,.0f} million {unit}")
        axes.set_xlabel("million")
        axes.set_xlim(right=max(values) * 1.15)
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    return figure


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
