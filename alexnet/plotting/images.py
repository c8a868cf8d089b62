"""Images, and what a network makes of them."""

import math

import matplotlib.pyplot as plt
import numpy as np

from alexnet.plotting.style import (
    INK,
    RIGHT,
    RIGHT_MARK,
    RIGHT_TEXT,
    WRONG,
    WRONG_MARK,
    WRONG_TEXT,
    bare,
    pixels,
    short,
    styled,
)


@styled
def gallery(images, labels, class_names, columns=10):
    """Images with the names of their classes, in rows of `columns`."""
    rows = math.ceil(len(images) / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(columns * 1.05, rows * 1.2), squeeze=False)
    for axes in grid.flat:
        bare(axes)
    for axes, image, label in zip(grid.flat, images, labels, strict=False):
        axes.imshow(pixels(image))
        axes.set_title(class_names[label], fontsize=8, fontweight="normal", loc="center", pad=3)
    figure.alt = f"{len(images)} images with the names of their classes: {_listed(class_names[i] for i in labels)}."
    return figure


@styled
def predictions(images, labels, probabilities, class_names, columns=4):
    """Images above their five most probable classes; the true one is blue and ticked (figure 4 of the paper)."""
    rows = math.ceil(len(images) / columns)
    figure, grid = plt.subplots(
        2 * rows, columns, figsize=(columns * 2.3, rows * 3.3), squeeze=False, height_ratios=[1.5, 1] * rows
    )
    for axes in grid.flat:
        bare(axes)
    for i, (image, label, shares) in enumerate(zip(images, labels, probabilities, strict=True)):
        picture, bars = grid[2 * (i // columns), i % columns], grid[2 * (i // columns) + 1, i % columns]
        picture.imshow(pixels(image))
        picture.set_title(short(class_names[label], 24), loc="center")
        best = np.argsort(-shares, kind="stable")[:5]
        bars.barh(range(len(best)), shares[best], color=[RIGHT if k == label else WRONG for k in best], height=0.8)
        for position, k in enumerate(best):
            mark = f"{RIGHT_MARK} " if k == label else f"{WRONG_MARK} " if position == 0 else ""
            weight = "bold" if k == label else "normal"
            bars.text(0.02, position, mark + short(class_names[k], 24), va="center", fontsize=9, fontweight=weight)
        bars.set_xlim(0, 1)
        bars.set_ylim(4.6, -0.6)
    firsts = [class_names[np.argmax(shares)] for shares in probabilities]
    pairs = [
        f"{class_names[label]} ({'right' if class_names[label] == first else f'predicted {first}'})"
        for label, first in zip(labels, firsts, strict=True)
    ]
    figure.alt = f"{len(images)} images with their five most probable classes as bars: {_listed(pairs)}."
    return figure


@styled
def neighbors(queries, found, query_names, found_names):
    """In each row an image and the images nearest to it (figure 4 of the paper, right).

    Args:
        queries: `(n, side, side, 3)`.
        found: `(n, count, side, side, 3)`.
        query_names: n names.
        found_names: n lists of `count` names; ticked and blue where they are the query's, else crossed and orange.
    """
    rows, columns = found.shape[:2]
    figure, grid = plt.subplots(
        rows,
        columns + 2,
        figsize=((columns + 1.3) * 1.25, rows * 1.45),
        width_ratios=[1, 0.3] + [1] * columns,
        squeeze=False,
    )
    for axes in grid.flat:
        bare(axes)
    for row, query, name, images, names in zip(grid, queries, query_names, found, found_names, strict=True):
        row[0].imshow(pixels(query))
        row[0].set_title(short(name), fontsize=9, loc="center", pad=3)
        for axes, image, other in zip(row[2:], images, names, strict=True):
            axes.imshow(pixels(image))
            mark, color = (RIGHT_MARK, RIGHT_TEXT) if other == name else (WRONG_MARK, WRONG_TEXT)
            text = f"{mark} {short(other, 11)}"
            axes.set_title(text, fontsize=9, fontweight="normal", loc="center", pad=3, color=color)
    same = [
        f"{name}: {sum(other == name for other in names)} of {columns}"
        for name, names in zip(query_names, found_names, strict=True)
    ]
    figure.alt = f"Rows of an image and its nearest neighbors; of the same class are, {_listed(same)}."
    return figure


@styled
def occlusion(images, maps, names):
    """Images above what hiding each of their parts leaves of a class's probability: dark is what the class needs.

    Args:
        images: `(n, side, side, 3)`.
        maps: `(n, places, places)` of `alexnet.evaluation.occlusion_sensitivity`.
        names: n names of the class in question.
    """
    figure, grid = plt.subplots(2, len(images), figsize=(len(images) * 1.9 + 0.8, 4), squeeze=False)
    for axes in grid.flat:
        bare(axes)
    for column, image, values, name in zip(grid.T, images, maps, names, strict=True):
        column[0].imshow(pixels(image))
        column[0].set_title(short(name, 18), loc="center")
        shown = column[1].imshow(values, cmap="magma", vmin=0, vmax=1, interpolation="bilinear")
    bar = figure.colorbar(shown, ax=grid[:, -1], shrink=0.6, aspect=18)
    bar.set_label("probability with this part hidden")
    bar.outline.set_visible(False)
    figure.alt = (
        f"Images of {_listed(names)}, and below each a map of the class's probability with one part of it hidden, "
        f"from {min(map(np.min, maps)):.2f} to {max(map(np.max, maps)):.2f}."
    )
    return figure


@styled
def confusion(counts, class_names):
    """Which class was taken for which: a row for each true class, in shares of its images."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(8.0, 1.8 + 0.42 * len(class_names))
    figure, axes = plt.subplots(figsize=(side + 0.6, side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    if len(class_names) <= 30:
        axes.set_xticks(range(len(class_names)), [short(name) for name in class_names], rotation=90)
        axes.set_yticks(range(len(class_names)), [short(name) for name in class_names])
    if len(class_names) <= 15:
        for (i, j), share in np.ndenumerate(shares):
            if share:
                color = "white" if share > 0.5 else INK
                axes.text(j, i, f"{share:.0%}".removesuffix("%"), ha="center", va="center", fontsize=8, color=color)
    axes.set_xlabel("predicted class, % of the row")
    axes.set_ylabel("true class")
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    figure.alt = (
        f"A matrix of true classes against predicted ones; {np.trace(shares) / len(shares):.0%} right on average"
    )
    if wrong.any():
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        figure.alt += f", most often confused: {class_names[true]} predicted as {class_names[predicted]}"
    figure.alt += "."
    return figure


def _listed(words, most=10):
    """The first of some words, for a description."""
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
