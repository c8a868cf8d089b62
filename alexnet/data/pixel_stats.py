"""Mean and principal components of a data set's colors (sections 2 and 4.1 of the paper)."""

from dataclasses import dataclass

import numpy as np

from alexnet.networks import IMAGENET_MEAN

SAMPLE = 10_000  # images; from so many, ImageNet's mean is known to a tenth of a gray level


@dataclass(frozen=True)
class PixelStats:
    """RGB statistics of pixels from 0 to 255.

    Attributes:
        mean: The mean of red, green and blue, `(3,)`.
        std: Square roots of the covariance's eigenvalues, `(3,)`, ascending.
        vectors: The covariance's eigenvectors, one in each column, `(3, 3)`.
        source: Where the numbers come from, in words.
    """

    mean: np.ndarray
    std: np.ndarray
    vectors: np.ndarray
    source: str

    def to_json(self) -> dict:
        """The values that `from_json` takes, with all their digits."""
        numbers = {name: getattr(self, name).tolist() for name in ("mean", "std", "vectors")}
        return {**numbers, "source": self.source}

    @classmethod
    def from_json(cls, values: dict) -> "PixelStats":
        mean, std, vectors = (np.array(values[name]) for name in ("mean", "std", "vectors"))
        return cls(mean, std, vectors, values["source"])

    @property
    def pca_components(self) -> np.ndarray:
        """The eigenvectors, each times its standard deviation; `(3, 3)`, one in each column."""
        return (self.vectors * self.std).astype(np.float32)


# Statistics of the training images of ILSVRC 2012.
IMAGENET = PixelStats(
    np.array(IMAGENET_MEAN),
    np.array([19.72, 37.09, 121.78]),
    np.array([[0.418, -0.713, -0.564], [-0.817, -0.024, -0.576], [0.397, 0.701, -0.592]]),
    "ImageNet",
)


class RunningMoments:
    """Sums from which `PixelStats` are computed. Images may be added in any order."""

    def __init__(self, count=0, sum=(0, 0, 0), products=((0, 0, 0),) * 3):
        self.count, self.sum, self.products = count, np.array(sum, np.int64), np.array(products, np.float64)

    def __add__(self, other):
        return RunningMoments(self.count + other.count, self.sum + other.sum, self.products + other.products)

    def to_json(self):
        """Keyword arguments for `RunningMoments`."""
        return {"count": self.count, "sum": self.sum.tolist(), "products": self.products.tolist()}

    def add(self, image: np.ndarray) -> None:
        """Add one image `(height, width, 3)` uint8."""
        pixels = image.reshape(-1, 3).T.astype(np.float64)  # exact: sums stay below 2**53 for two million images
        self.count += pixels.shape[1]
        self.sum += pixels.sum(1).astype(np.int64)
        self.products += pixels @ pixels.T

    def stats(self, source: str) -> PixelStats:
        mean = self.sum / self.count
        values, vectors = np.linalg.eigh(self.products / self.count - np.outer(mean, mean))
        return PixelStats(mean, np.sqrt(np.maximum(values, 0)), vectors, source)
