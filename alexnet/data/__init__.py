"""From a folder, or the name of a data set, to batches: the same batches on every backend."""

from alexnet.data.dataset import ImageDataset, compute_pixel_stats, load_data, load_test_data
from alexnet.data.decoding import load_image
from alexnet.data.errors import DataError, ImageError, TooManyBadImagesError, WorkerError
from alexnet.data.imagenet import class_display_name

__all__ = [
    "DataError",
    "ImageDataset",
    "ImageError",
    "TooManyBadImagesError",
    "WorkerError",
    "class_display_name",
    "compute_pixel_stats",
    "load_data",
    "load_image",
    "load_test_data",
]
