"""Crops, mirror images and color noise, for a whole batch at a time (section 4.1 of the paper)."""

from collections.abc import Iterator, Sequence

import numpy as np

from alexnet.packages import optional


def center_crop(images: np.ndarray, size: int) -> np.ndarray:
    """The central `size` pixels of square images `(batch, side, side, 3)`."""
    offset = (images.shape[1] - size) // 2
    return images[:, offset : offset + size, offset : offset + size]


def ten_crop(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The paper's ten views of square images, one after the other: four corners and center, and all five mirrored."""
    last = images.shape[1] - size
    middle = last // 2
    for y, x in ((0, 0), (0, last), (last, 0), (last, last), (middle, middle)):
        view = images[:, y : y + size, x : x + size]
        yield view
        yield view[:, :, ::-1]


def random_crop_offsets(count: int, room: int, rng: np.random.Generator) -> np.ndarray:
    """The corners of `count` random crops, `(count, 2)`: y and x, each from 0 to `room`."""
    return rng.integers(0, room, (count, 2), endpoint=True)


def sample_flips(count: int, rng: np.random.Generator) -> np.ndarray:
    """Which of `count` images are mirrored, `(count,)` bool, each with probability 0.5."""
    return rng.random(count) < 0.5


def crop_and_flip(images: Sequence[np.ndarray], offsets: np.ndarray, flips: np.ndarray, batch: np.ndarray) -> None:
    """Fill `batch` `(n, size, size, 3)` uint8 with one crop of each of `n` images, mirrored where `flips` is true.

    Args:
        images: A list of arrays `(side, side, 3)` uint8.
        offsets: `(n, 2)`, the corner of each crop, y and x.
        flips: `(n,)` bool, which crops are mirrored left to right.
        batch: The array to fill.
    """
    cv2 = optional("cv2")
    size = batch.shape[1]
    for target, image, (y, x), flip in zip(batch, images, offsets, flips, strict=True):
        crop = image[y : y + size, x : x + size]
        if flip and cv2:
            cv2.flip(crop, 1, dst=target)  # NumPy copies byte by byte, which takes ten times as long
        else:
            target[:] = crop[:, ::-1] if flip else crop


def pca_color(images: np.ndarray, std: float, components: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images with color noise along the principal components of pixels, drawn once for each image.

    Args:
        images: `(batch, side, side, 3)`.
        std, components, rng: As for `color_shifts`.
    """
    return images + color_shifts(len(images), std, components, rng)[:, None, None, :]


def color_shifts(count: int, std: float, components: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Color noise along principal components of pixels: what is added to all pixels of each image, `(count, 3)`
    float32.

    Args:
        count: How many images.
        std: Standard deviation of each component's factor, 0.1 in the paper.
        components: `(3, 3)`, in each column a principal component times its standard deviation.
        rng: NumPy's generator.

    Returns:
        `(batch, side, side, 3)` float32.
    """
    return rng.normal(0, std, (count, 3)).astype(np.float32) @ components.T
