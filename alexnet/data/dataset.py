"""Labeled images as a run uses them: the images that a recipe names, in batches."""

import math
import os
import threading
from collections.abc import Iterable, Sequence

import numpy as np

from alexnet.data import augmentation, pixel_stats
from alexnet.data.bad_images import BadImages
from alexnet.data.errors import DataError, ImageError, TooManyBadImagesError, WorkerError
from alexnet.data.readers import find_sources, find_test_source
from alexnet.data.source import LabeledImages
from alexnet.data.summary import Summary
from alexnet.recipe import Recipe


def load_data(recipe: Recipe) -> tuple["ImageDataset", "ImageDataset"]:
    """The images that a recipe names, as `(training, validation)`.

    Raises:
        DataError: `data_dir` holds nothing to train on.
        TooManyBadImagesError: more images cannot be read than `max_skipped` allows.

    Examples:
        With a folder of images for each class in `photos`:

        >>> recipe = alexnet.Recipe(data_dir=photos, batch_size=16, validation_split=0.2)
        >>> training, validation = alexnet.load_data(recipe)
        >>> training.class_names
        ['cross', 'ring', 'triangle']
        >>> images, labels = next(iter(training.batches()))
        >>> images.shape, labels.shape
        ((16, 67, 67, 3), (16,))
    """
    training, validation = find_sources(recipe)
    _require_size(training, recipe)
    unreadable = dict(training.unreadable + validation.unreadable)
    skipped = BadImages(len(training) + len(validation), recipe.max_skipped, unreadable)
    skipped.check()
    free = recipe.cache_gb * 2**30
    keep = []
    for source in (training, validation):
        needed = len(source) * recipe.resize**2 * 3
        keep.append(needed <= free and not source.reader.is_decoded)
        free -= needed if keep[-1] else 0
    summary = Summary.of(recipe.data_dir, training=training, validation=validation)
    return (
        ImageDataset(training, recipe, keep[0], skipped, summary, training=True),
        ImageDataset(validation, recipe, keep[1], skipped, summary, training=False),
    )


def load_test_data(
    recipe: Recipe, class_names: Sequence[str] | None = None, part: str = "validation"
) -> "ImageDataset":
    """The images that a recipe names, to evaluate on: the validation part, or all if `data_dir` has no split.

    Args:
        recipe: Its fields `data_dir`, `resize`, `image_size`, `batch_size`, `cache_gb`, `workers` and `max_skipped`
            are used.
        class_names: Those of a model, in its order; `data_dir` may have fewer. None for the data's own.
        part: `"training"` for the training part instead, in order and not augmented.

    Raises:
        DataError: `data_dir` holds no images, or a class that is not among `class_names`.
        TooManyBadImagesError: more images cannot be read than `max_skipped` allows.

    Examples:
        With a folder of images for each class in `photos`:

        >>> images = alexnet.load_test_data(alexnet.Recipe(data_dir=photos))
        >>> len(images), images.class_names
        (72, ['cross', 'ring', 'triangle'])
    """
    source = find_test_source(recipe, part)
    _require_size(source, recipe)
    if class_names is not None:
        source = source.relabeled(class_names)
    keep = len(source) * recipe.resize**2 * 3 <= recipe.cache_gb * 2**30 and not source.reader.is_decoded
    skipped = BadImages(len(source), recipe.max_skipped, source.unreadable)
    skipped.check()
    summary = Summary.of(recipe.data_dir, **{part if source.origin else "all": source})
    return ImageDataset(source, recipe, keep, skipped, summary, training=False)


def _require_size(source, recipe):
    size = source.reader.size
    if size is not None and recipe.resize > size:
        raise DataError(
            f"data_dir: {recipe.data_dir} is packed at {size} pixels, but resize {recipe.resize} asks for more."
        )


def compute_pixel_stats(recipe: Recipe, training: "ImageDataset") -> pixel_stats.PixelStats:
    """The `PixelStats` that a recipe asks for: ImageNet's, or those of the training images.

    They are computed from at most 10,000 images. A packed set stores its own, computed from all its training images.
    """
    if recipe.color_statistics == "imagenet":
        return pixel_stats.IMAGENET
    if training.source.reader.pixel_stats is not None:
        return training.source.reader.pixel_stats
    rng = np.random.default_rng(recipe.seed)
    sample = np.sort(rng.permutation(len(training))[: pixel_stats.SAMPLE])
    moments = pixel_stats.RunningMoments()
    for images, labels in training.images(sample):
        for image, label in zip(images, labels, strict=True):
            if label >= 0:
                moments.add(image)
    return moments.stats(f"{len(sample):,} training images")


class ImageDataset:
    """Labeled images, cropped to the size of the network's input.

    Attributes:
        class_names: A name for each label.
        labels: int32 array `(n,)`, in the order of the source.
        steps_per_epoch: Batches in one pass.
        skipped: `BadImages`, those that could not be read so far.
        summary: `Summary` of how `data_dir` was understood.
        source: `LabeledImages`.
        pixel_stats: `PixelStats` for the color noise; ImageNet's unless others are set.
        failure: The error that stopped a batch, if any: TensorFlow wraps errors of its input in its own.
        share: `(rank, processes)`: which images this process reads, its part of each training batch in order, or one
            in so many of a pass in order. Together the processes read each image once. `(0, 1)` for all images.
    """

    def __init__(self, source: LabeledImages, recipe: Recipe, keep: bool, skipped: BadImages, summary: Summary,
                 training: bool):  # fmt: skip
        self.source = source
        self.summary = summary
        self.class_names = source.class_names
        self.labels = source.labels
        self.skipped = skipped
        self.pixel_stats = pixel_stats.IMAGENET
        self.failure = None
        self.share = (0, 1)
        self._recipe = recipe
        self._training = training
        self._cache = ImageCache(source, recipe.resize, keep)
        batches = len(source) / recipe.batch_size
        # In training the remainder of a pass begins the next pass, so that every batch is full.
        self.steps_per_epoch = max(1, math.floor(batches)) if training else math.ceil(batches)

    def __len__(self):
        return len(self.source)

    def batches(self, first: int = 0) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Batches `(images, labels)`: uint8 `(batch, image_size, image_size, 3)` and int32 `(batch,)`, or the part of
        each that is this process's `share`.

        Training batches never end. Images are shuffled anew in each pass, and cropped and mirrored at random as the
        recipe says; all of it depends only on the seed and the batch's number, on any backend. An image that cannot be
        read is replaced by one drawn with the seed.

        Validation batches are one pass in order, with central crops. Images that cannot be read are left out, and the
        last batch may be smaller.

        Args:
            first: Number of the first batch, to resume a run.

        Raises:
            TooManyBadImagesError: while reading, when more images cannot be read than `max_skipped` allows.
            WorkerError: while reading, when a thread fails for a different reason.
        """
        indices = np.arange(len(self))
        if self._training:
            order = self._order(indices).seed(self._recipe.seed).shuffle().repeat()
            dataset = order.batch(self._recipe.batch_size).random_map(self._augmented)
        else:
            dataset = self._in_order(indices).map(self._centered)
        return self._prefetched(dataset[first:])

    def images(self, indices: np.ndarray | None = None) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """One pass in order over the uncropped images, `(batch, resize, resize, 3)`, for views of your own choice.

        The last batch may be smaller. An image that cannot be read is black and has the label -1.

        Args:
            indices: Which images; None for all.
        """
        indices = np.arange(len(self)) if indices is None else indices
        return self._prefetched(self._in_order(indices).map(self._labeled))

    def path(self, index: int) -> str:
        """The path of the image at `index`, or its number in a data set that is one array."""
        return self.source.name(index)

    @property
    def paths(self) -> list[str]:
        """`path` of every image."""
        return [self.path(index) for index in range(len(self))]

    def center_crops(self, indices: Sequence[int]) -> np.ndarray:
        """Central crops of the images at `indices`, `(len(indices), image_size, image_size, 3)` uint8."""
        return augmentation.center_crop(self.get_images(indices), self._recipe.image_size)

    def get_images(self, indices: Sequence[int]) -> np.ndarray:
        """The uncropped images at `indices`, `(len(indices), resize, resize, 3)` uint8; black if unreadable."""
        return self._labeled(np.asarray(indices))[0]

    # --- The pipeline
    #
    # grain shuffles, repeats and batches the numbers of images, draws random seeds, and runs the threads. Each thread
    # makes whole batches. If it made single images (`random_map` before `batch`), the same code would take 1.18 times
    # the processor time for JPEGs of 500 x 375 pixels, and 1.45 times for a packed set (2 threads, medians of 7
    # interleaved rounds).

    def _order(self, indices):
        import grain  # here, not above: it took a third of the time of importing the package

        return grain.MapDataset.source(indices)

    def _in_order(self, indices):
        rank, processes = self.share
        return self._order(indices[rank::processes]).batch(max(1, self._recipe.batch_size // processes))

    def _prefetched(self, dataset):
        """Batches read ahead, two for each thread."""
        import grain

        threads = self._recipe.workers or os.cpu_count()
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))

    def _read(self, indices):
        """A list of images, with None for each that cannot be read."""
        try:
            found = self._cache[indices]
            for place, image in enumerate(found):
                if isinstance(image, ImageError):
                    self.skipped.add(image)
                    found[place] = None
            return found
        except ImageError as error:
            self.failure = error
            raise
        except Exception as error:
            names = f"{self.path(indices[0])} and {len(indices) - 1} more"
            self.failure = WorkerError(
                f"The thread {threading.current_thread().name}, which prepares batches, failed at {names}: "
                f"{type(error).__name__}: {error}"
            )
            raise self.failure from error

    def _labeled(self, indices):
        found = self._read(indices)
        black = np.zeros((self._recipe.resize, self._recipe.resize, 3), np.uint8)
        images = np.stack([black if image is None else image for image in found])
        return images, np.where([image is None for image in found], np.int32(-1), self.labels[indices])

    def _centered(self, indices):
        images, labels = self._labeled(indices)
        return augmentation.center_crop(images[labels >= 0], self._recipe.image_size), labels[labels >= 0]

    def _augmented(self, indices, rng):
        recipe, count, size = self._recipe, len(indices), self._recipe.image_size
        room = recipe.resize - size
        offsets = np.full((count, 2), room // 2)
        if recipe.random_crop:
            offsets = augmentation.random_crop_offsets(count, room, rng)
        flips = augmentation.sample_flips(count, rng) if recipe.mirror else np.zeros(count, bool)
        shifts = None
        if recipe.pca_color:
            shifts = augmentation.color_shifts(count, recipe.pca_color, self.pixel_stats.pca_components, rng)
        rank, processes = self.share
        mine = slice(count * rank // processes, count * (rank + 1) // processes)
        indices, offsets, flips = indices[mine].copy(), offsets[mine], flips[mine]
        batch = np.empty((len(indices), size, size, 3), np.uint8)
        # Decoded images are cropped a few at a time, so that the next ones reuse memory that is still in the cache.
        step = 8 if self.source.reader.is_decoded else count
        for first in range(0, len(indices), step):
            part = slice(first, first + step)
            indices[part], images = self._replaced(indices[part])
            augmentation.crop_and_flip(images, offsets[part], flips[part], batch[part])
        if shifts is not None:
            batch = batch + shifts[mine, None, None, :]
        return batch, self.labels[indices]

    def _replaced(self, indices):
        """`(indices, images)`, with a substitute for each image that cannot be read."""
        images = self._read(indices)
        if not any(image is None for image in images):
            return indices, images
        indices = indices.copy()
        for place in [place for place, image in enumerate(images) if image is None]:
            # The substitute is the same in every batch, however often the run was interrupted.
            rng = np.random.default_rng([self._recipe.seed, indices[place]])
            for other in rng.permutation(len(self)) if len(self) < 1000 else rng.integers(len(self), size=1000):
                indices[place : place + 1] = other
                images[place] = self._read(indices[place : place + 1])[0]
                if images[place] is not None:
                    break
            else:
                self.failure = TooManyBadImagesError(
                    self.path(indices[place]), "cannot be read, and neither can any substitute"
                )
                raise self.failure
        return indices, images


class ImageCache:
    """Images of a source. If `keep` is true, they stay in memory once they are decoded."""

    def __init__(self, source: LabeledImages, size: int, keep: bool):
        self.source = source
        self.size = size
        self._kept = np.empty((len(source), size, size, 3), np.uint8) if keep else None
        self._present = np.zeros(len(source), bool)

    def __getitem__(self, indices: np.ndarray) -> list:
        """A list of images `(size, size, 3)` uint8, with an `ImageError` for each that cannot be read."""
        if self._kept is None:
            return self.source.images(indices, self.size)
        # Two threads may both decode an image; they write the same pixels, so no lock is needed.
        missing = indices[~self._present[indices]]
        found = dict(zip(missing.tolist(), self.source.images(missing, self.size), strict=True))
        for index, image in found.items():
            if isinstance(image, np.ndarray):
                self._kept[index] = image
                self._present[index] = True
        return [self._kept[i] if self._present[i] else found[i] for i in indices.tolist()]
