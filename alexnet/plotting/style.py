"""What all pictures share: colors, the style, and how a figure is made, described and shown."""

import functools
import inspect
import io

import matplotlib.pyplot as plt
import numpy as np

# Colors that are used together also differ for people who are red-green blind (tests/test_colors.py), and no color is
# alone: it comes with a mark, a line style or a word. The strong ones are from Okabe and Ito's palette.
INK, SOFT, ACCENT, PALE = "#202124", "#80868b", "#0072b2", "#bcd8f0"
RIGHT, WRONG = "#8ec1ea", "#f3b562"  # under text
RIGHT_TEXT, WRONG_TEXT = "#0072b2", "#b45309"
RIGHT_MARK, WRONG_MARK = "✓", "✗"
BACKEND_COLORS = {"tensorflow": "#d55e00", "jax": "#0072b2", "torch": "#009e73"}
BACKEND_MARKERS = {"tensorflow": "s", "jax": "o", "torch": "^"}
LAYER_COLORS = {"pixels": "#ffffff", "conv": "#8ab8e0", "norm": "#e0a899", "pool": "#fff2b3", "dense": "#f0a840"}
DEVICE_COLORS = ("#e8f0f8", "#fbeedd")  # behind everything, with the devices' names beside it
SHARPNESS = 2  # pixels of a picture for each pixel of its place on the page

STYLE = {
    "figure.dpi": 80,
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
    """Draw in the project's style and return the figure closed, so that a notebook shows it once.

    The figure gets a description for readers who do not see it, `figure.alt`: what the function puts there, or the
    first sentence of its docstring.
    """

    @functools.wraps(function)
    def draw(*args, **kwargs):
        with plt.rc_context(STYLE):
            figure = function(*args, **kwargs)
        plt.close(figure)
        if not hasattr(figure, "alt"):
            figure.alt = " ".join(inspect.getdoc(function).partition("\n\n")[0].split())
        figure._ipython_display_ = functools.partial(_display, figure)
        return figure

    return draw


def _display(figure):
    """In a notebook: sharp on dense screens, and described, which Jupyter's own way to show figures is not."""
    from IPython.display import display

    data = png(figure)
    width, height = (side // SHARPNESS for side in _size(data))
    metadata = {"image/png": {"width": width, "height": height, "alt": figure.alt}}
    # The description may hold numbers, which differ between backends: tests compare the text, and not the metadata.
    display({"image/png": data, "text/plain": "<Figure>"}, metadata=metadata, raw=True)


def png(figure):
    """A figure as the content of a PNG file; of lines and letters with a palette, which makes it a third as large."""
    from PIL import Image

    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=SHARPNESS * figure.dpi, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB")
    reduced = image.quantize(256, dither=Image.Dither.NONE)
    if (
        np.abs(np.asarray(reduced.convert("RGB"), int) - np.asarray(image, int)).mean() < 0.1
    ):  # of 255: no pictures in it
        image = reduced
    image.save(written, "png", optimize=True)
    return written.getvalue()


def _size(data):
    """Width and height that a PNG file says of itself."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


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
