"""Crops, mirror images and colour noise, for a whole batch at a time (section 4.1 of the paper)."""

import numpy as np

# Principal components of ImageNet's RGB pixels: square roots of the eigenvalues, and an eigenvector in each column.
PCA_STD = np.array([19.72, 37.09, 121.78], np.float32)
PCA_VECTORS = np.array([[0.418, -0.713, -0.564], [-0.817, -0.024, -0.576], [0.397, 0.701, -0.592]], np.float32)


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


def random_crop(images, size, rng):
    """A random `size` by `size` part of each of the square images `(batch, side, side, 3)`."""
    corners = rng.integers(0, images.shape[1] - size, (len(images), 2), endpoint=True)
    return np.stack([image[y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)])


def mirror(images, rng):
    """Each image mirrored left to right, or not, with equal probability."""
    flipped = rng.random(len(images)) < 0.5
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def pca_color(images, std, rng):
    """Colour noise along the principal components of ImageNet's pixels, one draw an image; float32."""
    draws = rng.normal(0, std, (len(images), 3)).astype(np.float32)
    shifts = (draws * PCA_STD) @ PCA_VECTORS.T
    return images + shifts[:, None, None, :]
