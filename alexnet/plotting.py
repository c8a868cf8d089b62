"""Every picture and table of the notebooks and reports. A picture is returned as a matplotlib figure."""

import functools
import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK, SOFT, ACCENT = "#202124", "#9aa0a6", "#1a73e8"
RIGHT, WRONG = "#81c995", "#f6aea9"
BACKEND_COLOURS = {"tensorflow": "#f29900", "jax": "#1a73e8", "torch": "#d93025"}

STYLE = {
    "figure.dpi": 80,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8eaed",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "image.interpolation": "nearest",
}


def _figure(function):
    """Draw in the project's style and return the figure closed, so that a notebook shows it once."""

    @functools.wraps(function)
    def draw(*args, **kwargs):
        with plt.rc_context(STYLE):
            figure = function(*args, **kwargs)
        plt.close(figure)
        return figure

    return draw


def _bare(axes):
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


@_figure
def gallery(images, labels, class_names, columns=10):
    """Images with the names of their classes, in rows of `columns`."""
    rows = math.ceil(len(images) / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(columns * 1.05, rows * 1.2), squeeze=False)
    for axes in grid.flat:
        _bare(axes)
    for axes, image, label in zip(grid.flat, images, labels, strict=False):
        axes.imshow(_pixels(image))
        axes.set_title(class_names[label], fontsize=8, fontweight="normal", loc="center", pad=3)
    return figure


@_figure
def curves(history):
    """Loss and top-1 error of each epoch, in training and validation; dotted where the learning rate was divided."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    epochs = [epoch["epoch"] for epoch in history]
    for name, label, colour in (("", "training (with dropout)", SOFT), ("val_", "validation", ACCENT)):
        left.plot(epochs, [epoch[f"{name}loss"] for epoch in history], color=colour, label=label, linewidth=2)
        right.plot(epochs, [1 - epoch[f"{name}top1"] for epoch in history], color=colour, label=label, linewidth=2)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for before, after in zip(history, history[1:], strict=False):
            if after["learning_rate"] < before["learning_rate"]:
                axes.axvline(after["epoch"] - 0.5, color=INK, linestyle=":", linewidth=1)
    left.set_title("Loss")
    left.set_ylabel("cross-entropy, nats")
    left.legend()
    right.set_title("Top-1 error")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@_figure
def filters(model, before=None, layer="conv1"):
    """The kernels of the first layer as colour images, each stretched over its own range (figure 3 of the paper).

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
        _bare(axes)
    for axes, kernel in zip(grid.flat, np.moveaxis(kernels, -1, 0), strict=False):
        reach = np.abs(kernel).max() or 1.0
        axes.imshow(0.5 + kernel / (2 * reach))
    return figure


@_figure
def predictions(images, labels, probabilities, class_names, columns=4):
    """Images above their five most probable labels; the right one is green (figure 4 of the paper)."""
    rows = math.ceil(len(images) / columns)
    figure, grid = plt.subplots(
        2 * rows, columns, figsize=(columns * 2.3, rows * 3.3), squeeze=False, height_ratios=[1.5, 1] * rows
    )
    for axes in grid.flat:
        _bare(axes)
    for i, (image, label, shares) in enumerate(zip(images, labels, probabilities, strict=True)):
        picture, bars = grid[2 * (i // columns), i % columns], grid[2 * (i // columns) + 1, i % columns]
        picture.imshow(_pixels(image))
        picture.set_title(_short(class_names[label], 24), loc="center")
        best = np.argsort(-shares, kind="stable")[:5]
        bars.barh(range(len(best)), shares[best], color=[RIGHT if k == label else WRONG for k in best], height=0.8)
        for place, k in enumerate(best):
            bars.text(0.02, place, _short(class_names[k], 24), va="center", fontsize=9)
        bars.set_xlim(0, 1)
        bars.set_ylim(4.6, -0.6)
    return figure


@_figure
def neighbours(queries, found, query_names, found_names):
    """In each row an image and the images nearest to it (figure 4 of the paper, right).

    Args:
        queries: `(n, side, side, 3)`.
        found: `(n, count, side, side, 3)`.
        query_names: n names.
        found_names: n lists of `count` names; green where they are the query's.
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
        _bare(axes)
    for row, query, name, images, names in zip(grid, queries, query_names, found, found_names, strict=True):
        row[0].imshow(_pixels(query))
        row[0].set_title(_short(name), fontsize=9, loc="center", pad=3)
        for axes, image, other in zip(row[2:], images, names, strict=True):
            axes.imshow(_pixels(image))
            colour = "#188038" if other == name else "#c5221f"
            axes.set_title(_short(other), fontsize=9, fontweight="normal", loc="center", pad=3, color=colour)
    return figure


@_figure
def occlusion(images, maps, names):
    """Images above what hiding each of their parts leaves of a class's probability: dark is what the class needs.

    Args:
        images: `(n, side, side, 3)`.
        maps: `(n, places, places)` of `alexnet.evaluation.occlusion_sensitivity`.
        names: n names of the class in question.
    """
    figure, grid = plt.subplots(2, len(images), figsize=(len(images) * 1.9 + 0.8, 4), squeeze=False)
    for axes in grid.flat:
        _bare(axes)
    for column, image, values, name in zip(grid.T, images, maps, names, strict=True):
        column[0].imshow(_pixels(image))
        column[0].set_title(_short(name, 18), loc="center")
        shown = column[1].imshow(values, cmap="magma", vmin=0, vmax=1, interpolation="bilinear")
    bar = figure.colorbar(shown, ax=grid[:, -1], shrink=0.6, aspect=18)
    bar.set_label("probability with this part hidden")
    bar.outline.set_visible(False)
    return figure


@_figure
def confusion(counts, class_names):
    """Which class was taken for which: a row for each right class, in shares of its images."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(8.0, 1.8 + 0.42 * len(class_names))
    figure, axes = plt.subplots(figsize=(side + 0.6, side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    if len(class_names) <= 30:
        axes.set_xticks(range(len(class_names)), [_short(name) for name in class_names], rotation=90)
        axes.set_yticks(range(len(class_names)), [_short(name) for name in class_names])
    if len(class_names) <= 15:
        for (i, j), share in np.ndenumerate(shares):
            if share:
                colour = "white" if share > 0.5 else INK
                axes.text(j, i, f"{share:.0%}".removesuffix("%"), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("the model's first guess, per cent")
    axes.set_ylabel("the right class")
    return figure


@_figure
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


@_figure
def network(rows, columns_of):
    """The network as figure 2 of the paper draws it: two columns of maps, joined where a layer sees both.

    Args:
        rows: `alexnet.model.summarize_layers(model)`.
        columns_of: The number of columns (groups) of each convolutional layer, by name.
    """
    drawn = [row for row in rows if row["layer"].startswith(("conv", "pool", "fc"))]
    figure, axes = plt.subplots(figsize=(11, 4.2))
    _bare(axes)
    x, previous = 0.0, None
    lanes = (1.35, -1.35)
    for row in drawn:
        size, channels = (row["output"][0], row["output"][-1]) if len(row["output"]) == 3 else (None, row["output"][-1])
        height = 0.35 + 1.9 * math.sqrt(size / 60) if size else 1.9
        width = 0.12 + 0.14 * math.log2(max(2, channels)) / 2 if size else 0.22
        colour = {"c": "#d2e3fc", "p": "#e6f4ea", "f": "#fef7e0"}[row["layer"][0]]
        halves = lanes if row["layer"] != "fc8" else (0.0,)
        for lane in halves:
            axes.add_patch(
                Rectangle((x, lane - height / 2), width, height, facecolor=colour, edgecolor=INK, linewidth=0.8)
            )
        if previous:
            joined = row["layer"][0] == "f" or columns_of.get(row["layer"]) == 1
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
        axes.text(x + width / 2, 2.75, row["layer"], ha="center", fontweight="bold", fontsize=9)
        axes.text(x + width / 2, -2.65, text, ha="center", va="top", fontsize=9)
        previous = (x + width, halves)
        x += width + 0.62
    axes.set_xlim(-0.2, x - 0.4)
    axes.set_ylim(-3.5, 3.1)
    return figure


@_figure
def normalization(before, after, marked=None):
    """A row of channels before and after response normalization, as bars of two heights."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 4), sharex=True)
    for axes, values, title in ((top, before, "before"), (bottom, after, "after")):
        colours = [ACCENT if marked is None or i in marked else "#c6dafc" for i in range(len(values))]
        axes.bar(range(len(values)), values, color=colours, width=0.8)
        axes.set_title(title)
        axes.set_ylabel("activity")
        axes.grid(axis="x", visible=False)
    bottom.set_xlabel("channel")
    return figure


@_figure
def comparison(runs):
    """Validation loss and top-1 error of several runs over their epochs.

    Args:
        runs: `(label, backend, history)` for each run.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    styles = ["-", "--", ":", "-."]
    seen = {}
    for label, backend, history in runs:
        number = seen[backend] = seen.get(backend, -1) + 1
        look = {
            "color": BACKEND_COLOURS.get(backend, INK),
            "linestyle": styles[number % 4],
            "linewidth": 1.8,
            "label": label,
        }
        epochs = [epoch["epoch"] for epoch in history]
        left.plot(epochs, [epoch["val_loss"] for epoch in history], **look)
        right.plot(epochs, [1 - epoch["val_top1"] for epoch in history], **look)
    for axes, title in ((left, "Validation loss"), (right, "Validation top-1 error")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if runs:
        right.legend(fontsize=8)
    return figure


@_figure
def benchmark(record):
    """Training and inference in images a second and LRN in milliseconds: a column for each framework; of one framework
    alone side by side.

    Bars are medians, whiskers reach from the fewest to the most of any round.

    Args:
        record: What `benchmarks.harness.suite.run` returns, or `bench.json` holds.
    """
    batch_size = record["settings"]["batch_size"]
    backends = record["settings"]["backends"]
    names = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
    rows = [("training", f"training, batches of {batch_size}"), ("inference", f"inference, batches of {batch_size}")]
    comparisons = {
        (comparison["group"], comparison["work"]): comparison["seconds"]
        for comparison in record["comparisons"]
        if comparison["batch_size"] == batch_size
    }
    most = [max(len(comparisons[backend, work]) for backend in backends) for work, _ in rows]
    layers = comparisons["all", "normalization"]
    most.append(max(sum(name.startswith(backend) for name in layers) for backend in backends))
    if len(backends) == 1:
        figure, grid = plt.subplots(1, 3, figsize=(10, 0.9 + 0.3 * max(most)))
        grid, most = grid[:, None], [max(most)] * 3
    else:
        size = (3.75 * len(backends), 1.2 + 0.37 * sum(most))
        figure, grid = plt.subplots(3, len(backends), figsize=size, sharex="row", squeeze=False, height_ratios=most)
    for column, backend in enumerate(backends):
        for axes, slots, (work, _) in zip(grid[:, column], most, rows, strict=False):
            rates = {
                name: [batch_size / seconds for seconds in times] for name, times in comparisons[backend, work].items()
            }
            _candidates(axes, rates, slots)
        milliseconds = {
            name.removeprefix(f"{backend} "): [1000 * seconds for seconds in times]
            for name, times in layers.items()
            if name.startswith(backend)
        }
        _candidates(grid[2, column], milliseconds, most[2])
        grid[0, column].set_title(names[backend])
    for row in grid:  # one scale for all frameworks, with room for the numbers
        row[0].set_xlim(0, 1.18 * max(axes.dataLim.x1 for axes in row))
    for axes, (_, title) in zip(grid[:2, 0], rows, strict=True):
        axes.set_xlabel(f"{title}: images/s")
    grid[2, 0].set_xlabel("LRN, forward and backward: ms")
    return figure


def _candidates(axes, values, slots):
    """A bar for each candidate, ours marked; room for `slots` of them."""
    middles = [float(np.median(rounds)) for rounds in values.values()]
    spread = [
        [middle - min(rounds) for middle, rounds in zip(middles, values.values(), strict=True)],
        [max(rounds) - middle for middle, rounds in zip(middles, values.values(), strict=True)],
    ]
    colours = [ACCENT if name.startswith("ours") else SOFT for name in values]
    whiskers = {"ecolor": INK, "elinewidth": 0.8, "capsize": 2}
    axes.barh(list(values), middles, xerr=spread, color=colours, height=0.7, error_kw=whiskers)
    for place, (middle, most) in enumerate(zip(middles, spread[1], strict=True)):
        text = f"{middle:.0f}" if middle >= 10 else f"{middle:.1f}"
        axes.annotate(text, (middle + most, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_ylim(slots - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


@_figure
def scaling(record):
    """How the cost of our network grows with each size: images a second and memory, a line for each backend.

    Args:
        record: What `benchmarks.harness.suite.run(scaling=True)` returns, or `bench.json` holds.
    """
    base = {size: record["settings"][size] for size in ("batch_size", "image_size", "width")}
    titles = {"batch_size": "images in a batch", "image_size": "pixels a side", "width": "width"}
    figure, grid = plt.subplots(2, 3, figsize=(10, 5.4), sharex="col", sharey="row")
    for column, size in zip(grid.T, base, strict=True):
        for backend in record["settings"]["backends"]:
            points = sorted(
                (
                    row
                    for row in record["scaling"]
                    if row["backend"] == backend and all(row[other] == base[other] for other in base if other != size)
                ),
                key=lambda row: row[size],
            )
            at, look = (
                [row[size] for row in points],
                {"color": BACKEND_COLOURS[backend], "marker": ".", "linewidth": 1.8},
            )
            for key, style in (("training_seconds", "-"), ("inference_seconds", "--")):
                label = f"{backend}, {key.partition('_')[0]}"
                rates = [row["batch_size"] / row[key] for row in points]
                column[0].plot(at, rates, style, label=label, **look)
            column[1].plot(at, [row["memory_bytes"] / 1e9 for row in points], **look)
        column[0].set_yscale("log")
        if size == "batch_size":
            column[0].set_xscale("log", base=2)
        column[1].set_xlabel(titles[size])
        column[1].set_xticks(sorted({row[size] for row in record["scaling"]}))
        column[1].xaxis.set_major_formatter("{x:g}")
    grid[0, 0].set_title("images/s")
    grid[1, 0].set_title("peak memory in training, GB")
    grid[1, 0].set_ylim(0, 1.08e-9 * max(row["memory_bytes"] for row in record["scaling"]))
    grid[0, 0].yaxis.set_major_formatter("{x:g}")
    lines, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, handlelength=3)
    return figure


@_figure
def batch_times(rows):
    """What a batch costs, and how many images a second that makes, against its size.

    Args:
        rows: What `alexnet.profiling.batch_times` returns.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    sizes = [row["batch_size"] for row in rows]
    left.plot(sizes, [1000 * row["seconds"] for row in rows], color=ACCENT, marker=".")
    right.plot(sizes, [row["batch_size"] / row["seconds"] for row in rows], color=ACCENT, marker=".")
    left.set_title("milliseconds a batch")
    right.set_title("images/s")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0)
        axes.set_xlabel("images in a batch")
    return figure


@_figure
def layer_times(rows):
    """Milliseconds of each layer, forward and backward.

    Args:
        rows: What `alexnet.profiling.layer_times` returns.
    """
    figure, axes = plt.subplots(figsize=(10, 0.26 * len(rows) + 0.9))
    names = [row["layer"] for row in rows]
    forward, backward = ([1000 * row[f"{way}_seconds"] for row in rows] for way in ("forward", "backward"))
    axes.barh(names, forward, color=ACCENT, height=0.7, label="forward")
    axes.barh(names, backward, left=forward, color="#c6dafc", height=0.7, label="backward")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("milliseconds")
    axes.grid(axis="y", visible=False)
    axes.legend()
    return figure


def table(rows, columns, formats=None):
    """Dictionaries as a Markdown table, which a notebook shows as such.

    Args:
        rows: The dictionaries.
        columns: Column titles by key; numbers are set to the right, with separators between thousands.
        formats: By key how numbers are written, as in f-strings: `{"top1": ".1%"}`.
    """
    from IPython.display import Markdown

    def cell(key, value):
        if isinstance(value, tuple):
            return "\u00a0×\u00a0".join(map(str, value))  # one line
        return format(value, (formats or {}).get(key, "," if isinstance(value, int) else ""))

    right = [isinstance(rows[0][key], int | float) for key in columns]
    lines = [list(columns.values()), ["---:" if r else ":---" for r in right]]
    lines += [[cell(key, row[key]) for key in columns] for row in rows]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _short(name, length=13):
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def _pixels(image):
    return np.clip(np.asarray(image), 0, 255).astype(np.uint8)
