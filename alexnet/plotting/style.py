"""What all pictures share: colors, the style, and how a figure is made in it."""

import functools

import matplotlib.pyplot as plt
import numpy as np

INK, SOFT, ACCENT = "#202124", "#9aa0a6", "#1a73e8"
RIGHT, WRONG = "#81c995", "#f6aea9"
BACKEND_COLORS = {"tensorflow": "#f29900", "jax": "#1a73e8", "torch": "#d93025"}

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


def styled(function):
    """Draw in the project's style and return the figure closed, so that a notebook shows it once."""

    @functools.wraps(function)
    def draw(*args, **kwargs):
        with plt.rc_context(STYLE):
            figure = function(*args, **kwargs)
        plt.close(figure)
        return figure

    return draw


def bare(axes):
    """Take ticks, grid and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def short(name, length=13):
    """A name in at most so many characters."""
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def pixels(image):
    """An image of any number type as bytes."""
    return np.clip(np.asarray(image), 0, 255).astype(np.uint8)
