"""The course of a training."""

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

from alexnet.plotting.style import ACCENT, BACKEND_COLORS, BACKEND_MARKERS, INK, SOFT, styled


@styled
def curves(history):
    """Loss and top-1 error of each epoch, in training and validation; dotted where the learning rate was divided."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    epochs = [epoch["epoch"] for epoch in history]
    for name, label, color, style in (
        ("", "training (with dropout)", SOFT, "--"),
        ("val_", "validation", ACCENT, "-"),
    ):
        look = {"color": color, "linestyle": style, "label": label, "linewidth": 2}
        left.plot(epochs, [epoch[f"{name}loss"] for epoch in history], **look)
        right.plot(epochs, [1 - epoch[f"{name}top1"] for epoch in history], **look)
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
    first, last = history[0], history[-1]
    figure.alt = (
        f"Loss and top-1 error by epoch. In {len(history)} epochs the validation loss goes from "
        f"{first['val_loss']:.2f} to {last['val_loss']:.2f}, the validation error from {1 - first['val_top1']:.0%} to "
        f"{1 - last['val_top1']:.0%}; in training the loss ends at {last['loss']:.2f}."
    )
    return figure


@styled
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
            "color": BACKEND_COLORS.get(backend, INK),
            "linestyle": styles[number % 4],
            "marker": BACKEND_MARKERS.get(backend, "."),
            "markevery": max(1, len(history) // 8),
            "markersize": 5,
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
    ends = [f"{label}: {1 - history[-1]['val_top1']:.1%}" for label, _, history in runs]
    figure.alt = f"Validation loss and top-1 error by epoch, a line for each run. The error ends at {'; '.join(ends)}."
    return figure
