"""Small pictures of single ideas of the paper."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from alexnet.plotting.style import ACCENT, INK, SOFT, bare, pixels, styled


@styled
def activations():
    """ReLU beside tanh: the functions and their gradients (section 3.1 of the paper)."""
    x = np.linspace(-4, 4, 401)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6))
    left.plot(x, np.maximum(x, 0), color=ACCENT, linewidth=2, label="ReLU: max(0, x)")
    left.plot(x, np.tanh(x), color=INK, linestyle="--", linewidth=2, label="tanh")
    left.set_title("activation")
    right.plot(x, np.where(x > 0, 1.0, 0.0), color=ACCENT, linewidth=2)
    right.plot(x, 1 - np.tanh(x) ** 2, color=INK, linestyle="--", linewidth=2)
    right.set_title("its gradient")
    left.legend()
    for axes in (left, right):
        axes.set_xlabel("x")
    return figure


@styled
def pooling(feature_map, windows=((3, 2), (2, 2))):
    """Max-pooling of one small feature map with several windows: where they lie, and what they find (section 3.4).

    Args:
        feature_map: `(side, side)`.
        windows: `(size, stride)` of each.
    """
    figure, grid = plt.subplots(1, 2 * len(windows), figsize=(11, 2.5), width_ratios=[1.3, 0.75] * len(windows))
    for (before, after), (size, stride) in zip(grid.reshape(-1, 2), windows, strict=True):
        starts = range(0, len(feature_map) - size + 1, stride)
        found = np.array([[feature_map[y : y + size, x : x + size].max() for x in starts] for y in starts])
        for axes, values in ((before, feature_map), (after, found)):
            bare(axes)
            axes.imshow(values, cmap="Blues", vmin=0, vmax=1.6 * feature_map.max())
            for (y, x), value in np.ndenumerate(values):
                axes.text(x, y, f"{value:g}", ha="center", va="center", fontsize=8)
        for row, y in enumerate(starts):
            for column, x in enumerate(starts):
                inset = 0.06 + 0.12 * ((row + column) % 2)  # so that neighbors' lines can be told apart
                corner, side = (x - 0.5 + inset, y - 0.5 + inset), size - 2 * inset
                look = {"edgecolor": ACCENT, "linestyle": "-" if (row + column) % 2 else "--", "linewidth": 1.4}
                before.add_patch(Rectangle(corner, side, side, facecolor="none", **look))
        before.set_title(f"{size} × {size}, stride {stride}", fontsize=10)
        after.set_title("maxima", fontsize=10)
    return figure


@styled
def normalized_map(image, before, after):
    """An image and one of its feature maps: before response normalization, what it is divided by, and after.

    Args:
        image: `(side, side, 3)`.
        before: `(rows, columns)`.
        after: `(rows, columns)`.
    """
    divisor = np.divide(before, after, out=np.full_like(before, np.nan), where=after > 0)
    figure, (picture, *maps) = plt.subplots(1, 4, figsize=(10.5, 2.6))
    picture.imshow(pixels(image))
    picture.set_title("image", fontsize=10)
    titles = ("before", "divided by", "after")
    for axes, values, title in zip(maps, (before, divisor, after), titles, strict=True):
        shown = axes.imshow(values, cmap="gray", vmin=0 if title != "divided by" else None)
        axes.set_title(title, fontsize=10)
        figure.colorbar(shown, ax=axes, shrink=0.8, aspect=14).outline.set_visible(False)
    for axes in (picture, *maps):
        bare(axes)
    return figure


@styled
def dropout(rows):
    """Activations of the same units as bars, a panel for each title; a cross stands for a unit that was dropped.

    Args:
        rows: `{title: values}`, each of the same length.
    """
    figure, grid = plt.subplots(len(rows), 1, figsize=(9, 0.5 + 1.2 * len(rows)), sharex=True, sharey=True)
    for axes, (title, values) in zip(np.atleast_1d(grid), rows.items(), strict=True):
        values = np.asarray(values)
        axes.bar(range(len(values)), values, color=ACCENT, width=0.8)
        dropped = np.flatnonzero(values == 0)
        axes.plot(dropped, np.full(len(dropped), 0.15), "x", color=SOFT, markersize=5)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", visible=False)
    np.atleast_1d(grid)[-1].set_xlabel("unit")
    return figure
