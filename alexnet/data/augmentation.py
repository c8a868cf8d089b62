"""Crops, mirror images and colour noise, for a whole batch at a time (section 4.1 of the paper)."""

import numpy as np


def centre_crop(images, size):
    """The central `size` pixels of square images `(batch, side, side, 3)`."""
    offset = (images.shape[1] - size) // 2
    return images[:, offset : offset + size, offset : offset + size]


def ten_views(images, size):
    """The paper's ten views of square images, one after the other: four corners and centre, and all five mirrored."""
    last = images.shape[1] - size
    middle = last // 2
    for y, x in ((0, 0), (0, last), (last, 0), (last, last), (middle, middle)):
        view = images[:, y : y + size, x : x + size]
        yield view
        yield view[:, :, ::-1]


def random_crop(squares, size, rng):
    """A random `size` by `size` part of each of a list of squares `(side, side, 3)`."""
    corners = rng.integers(0, len(squares[0]) - size, (len(squares), 2), endpoint=True)
    return [square[y : y + size, x : x + size] for square, (y, x) in zip(squares, corners, strict=True)]


def mirror(squares, rng):
    """Each of a list of squares mirrored left to right, or not, with equal probability."""
    flips = rng.random(len(squares)) < 0.5
    return [square[:, ::-1] if flip else square for square, flip in zip(squares, flips, strict=True)]


def pca_color(images, std, components, rng):
    """Colour noise along principal components of pixels, one draw an image; `(batch, side, side, 3)` float32.

    Args:
        images: `(batch, side, side, 3)`.
        std: Standard deviation of each component's factor, 0.1 in the paper.
        components: `(3, 3)`, in each column a principal component times its standard deviation.
        rng: NumPy's generator.
    """
    shifts = rng.normal(0, std, (len(images), 3)).astype(np.float32) @ components.T
    return images + shifts[:, None, None, :]
