"""What was measured of speed and memory."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from alexnet.plotting.style import ACCENT, BACKEND_COLORS, BACKEND_MARKERS, INK, PALE, SOFT, styled

FRAMEWORKS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# The candidates of benchmarks/baselines by names that tell a reader what they are.
_CANDIDATES = {
    "ours": "this package",
    "ours XLA": "this package, XLA",
    "keras": "Keras, written plainly",
    "function": "tf.function",
    "xla": "tf.function, XLA",
    "columns": "JAX, two convolutions",
    "grouped": "JAX, grouped convolution",
    "eager": "torch, eager",
    "channels_last": "torch, channels last",
    "compile": "torch.compile",
    "tf.nn.lrn eager": "tf.nn, eager",
    "tf.nn.lrn XLA": "tf.nn, XLA",
    "shifted sum": "JAX, shifted sum",
    "LocalResponseNorm": "torch.nn",
}


def candidate_name(candidate):
    """What a candidate of a benchmark is called in pictures and tables.

    Examples:
        >>> from alexnet.plotting.speed import candidate_name
        >>> candidate_name("compile"), candidate_name("another")
        ('torch.compile', 'another')
    """
    return _CANDIDATES.get(candidate, candidate)


@styled
def benchmark(record):
    """Training and inference in images a second and LRN in milliseconds: a column for each framework; of one framework
    alone side by side.

    Bars are medians, whiskers reach from the fewest to the most of any round.

    Args:
        record: What `benchmarks.harness.suite.run` returns, or `bench.json` holds.
    """
    batch_size = record["settings"]["batch_size"]
    backends = record["settings"]["backends"]
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
        grid[0, column].set_title(FRAMEWORKS[backend])
    for row in grid:  # one scale for all frameworks, with room for the numbers
        row[0].set_xlim(0, 1.18 * max(axes.dataLim.x1 for axes in row))
    units = [(title, "images/s (longer is better)") for _, title in rows]
    units.append(("LRN, forward and backward", "ms (shorter is better)"))
    between = ":\n" if len(backends) == 1 else ": "  # side by side there is less room
    for axes, unit in zip(grid[:, 0], units, strict=True):
        axes.set_xlabel(between.join(unit), loc="left")
    return figure


def _candidates(axes, values, slots):
    """A bar for each candidate, ours marked; room for `slots` of them."""
    middles = [float(np.median(rounds)) for rounds in values.values()]
    spread = [
        [middle - min(rounds) for middle, rounds in zip(middles, values.values(), strict=True)],
        [max(rounds) - middle for middle, rounds in zip(middles, values.values(), strict=True)],
    ]
    colors = [ACCENT if name.startswith("ours") else SOFT for name in values]
    whiskers = {"ecolor": INK, "elinewidth": 0.8, "capsize": 2}
    axes.barh(
        [candidate_name(name) for name in values], middles, xerr=spread, color=colors, height=0.7, error_kw=whiskers
    )
    for place, (middle, most) in enumerate(zip(middles, spread[1], strict=True)):
        text = f"{middle:.0f}" if middle >= 10 else f"{middle:.1f}"
        axes.annotate(text, (middle + most, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_ylim(slots - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


# What `python -m benchmarks --scaling` varies, one at a time, and what an axis says of it.
SIZES = {"batch_size": "images in a batch", "image_size": "pixels a side", "width": "width"}


def scaling_series(record, size, backend):
    """The rows of a record in which `size` alone is varied on a backend, from small to large."""
    others = [each for each in SIZES if each != size]
    rows = [row for row in record["scaling"] if row["backend"] == backend]
    rows = [row for row in rows if all(row[each] == record["settings"][each] for each in others)]
    return sorted(rows, key=lambda row: row[size])


@styled
def scaling(record):
    """How the cost of our network grows with each size: images a second and memory, a line for each backend.

    All axes are logarithmic, so that a power of the size is a straight line.

    Args:
        record: What `benchmarks.harness.suite.run(scaling=True)` returns, or `bench.json` holds.
    """
    figure, grid = plt.subplots(2, 3, figsize=(10, 5.4), sharex="col", sharey="row")
    for column, size in zip(grid.T, SIZES, strict=True):
        for backend in record["settings"]["backends"]:
            points = scaling_series(record, size, backend)
            at = [row[size] for row in points]
            look = {
                "color": BACKEND_COLORS[backend],
                "marker": BACKEND_MARKERS[backend],
                "markersize": 4,
                "linewidth": 1.8,
            }
            for key, style in (("training_seconds", "-"), ("inference_seconds", "--")):
                label = f"{FRAMEWORKS[backend]}, {key.partition('_')[0]}"
                rates = [row["batch_size"] / row[key] for row in points]
                column[0].plot(at, rates, style, label=label, **look)
            column[1].plot(at, [row["memory_bytes"] / 1e9 for row in points], **look)
        for axes in column:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
        column[1].set_xlabel(SIZES[size])
        sizes = sorted({row[size] for row in record["scaling"]})
        following = [*sizes[1:], np.inf]  # a label where the next one leaves room for it
        column[1].set_xticks([size for size, after in zip(sizes, following, strict=True) if after > 1.15 * size])
        column[1].xaxis.set_major_formatter("{x:g}")
    grid[0, 0].set_title("images/s (higher is better)")
    grid[1, 0].set_title("peak memory in training, GB (lower is better)")
    for axes in grid[:, 0]:
        axes.yaxis.set_major_formatter("{x:g}")
    lines, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, handlelength=3)
    return figure


# The colors and marks of the backends, which no picture has beside these.
STRATEGIES = dict(
    zip(
        ("data", "two_columns", "one_weird_trick"),
        zip(
            ("copies of the network", "pairs with the paper's columns", "one weird trick"),
            BACKEND_COLORS.values(),
            BACKEND_MARKERS.values(),
            strict=True,
        ),
        strict=True,
    )
)


@styled
def device_scaling(panels):
    """Efficiency against the number of GPUs, a line for each way to divide the work.

    Args:
        panels: By their titles, what `alexnet.scaling.predict` returns.
    """
    figure, grid = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.3), sharey=True, squeeze=False)
    for axes, (title, steps) in zip(grid[0], panels.items(), strict=True):
        for size, (strategy, (label, color, marker)) in zip((7, 5, 4), STRATEGIES.items(), strict=True):
            own = [step for step in steps if step.strategy == strategy]
            # The smaller ones are drawn over the larger ones.
            look = {"color": color, "marker": marker, "markersize": size, "linewidth": size / 3}
            axes.plot([step.devices for step in own], [100 * step.efficiency for step in own], label=label, **look)
        axes.set_title(title)
        axes.set_xscale("log", base=4)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("GPUs")
    grid[0, 0].set_ylim(0, 105)
    grid[0, 0].set_ylabel("efficiency, % (higher is better)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, handlelength=3)
    return figure


@styled
def batch_times(rows):
    """What a batch costs, and how many images a second that makes, against its size.

    Args:
        rows: What `alexnet.profiling.batch_times` returns.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
    sizes = [row["batch_size"] for row in rows]
    left.plot(sizes, [1000 * row["seconds"] for row in rows], color=ACCENT, marker=".")
    right.plot(sizes, [row["batch_size"] / row["seconds"] for row in rows], color=ACCENT, marker=".")
    left.set_title("milliseconds a batch (lower is better)")
    right.set_title("images/s (higher is better)")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(sizes)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("images in a batch")
    return figure


@styled
def layer_times(rows):
    """Milliseconds of each layer, forward and backward.

    Args:
        rows: What `alexnet.profiling.layer_times` returns.
    """
    figure, axes = plt.subplots(figsize=(10, 0.26 * len(rows) + 0.9))
    names = [row["layer"] for row in rows]
    forward, backward = ([1000 * row[f"{way}_seconds"] for row in rows] for way in ("forward", "backward"))
    axes.barh(names, forward, color=ACCENT, height=0.7, label="forward")
    axes.barh(names, backward, left=forward, color=PALE, height=0.7, label="backward")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("milliseconds (shorter is better)")
    axes.grid(axis="y", visible=False)
    axes.legend()
    return figure
