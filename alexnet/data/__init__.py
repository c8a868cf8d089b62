"""A directory or a data set's name becomes batches: the same ones on every backend."""

import math
import os
import threading

import numpy as np

from alexnet.data import augmentation, colors
from alexnet.data.bad_images import BadImages, TooManyBadImagesError
from alexnet.data.decoding import ImageError, read_square
from alexnet.data.imagenet import class_display_name
from alexnet.data.readers import find_sources, find_test_source
from alexnet.data.source import DataError, SquareCache
from alexnet.data.summary import Summary

__all__ = [
    "TooManyBadImagesError",
    "DataError",
    "ImageError",
    "Images",
    "WorkerError",
    "load_data",
    "load_test_data",
    "read_square",
    "class_display_name",
    "training_colors",
]


class WorkerError(RuntimeError):
    """A thread that prepares batches failed for a reason that is not an image's. The message names it."""


def load_data(recipe):
    """The images that a recipe names, as `(training, validation)`.

    Raises:
        DataError: `data_dir` holds nothing that could be trained on.
        TooManyBadImagesError: more of it than `max_skipped` cannot be read.

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
        keep.append(needed <= free and not source.store.fast)
        free -= needed if keep[-1] else 0
    summary = Summary.of(recipe.data_dir, training=training, validation=validation)
    return (
        Images(training, recipe, keep[0], skipped, summary, training=True),
        Images(validation, recipe, keep[1], skipped, summary, training=False),
    )


def load_test_data(recipe, class_names=None, part="validation"):
    """The images that a recipe names, to evaluate on: the validation part, or all where `data_dir` has no split.

    Args:
        recipe: Of its fields `data_dir`, `resize`, `image_size`, `batch_size`, `cache_gb`, `workers` and `max_skipped`
            matter.
        class_names: Those of a model, in its order; `data_dir` may have fewer. None for the data's own.
        part: `"training"` for the training part instead, in order and not augmented.

    Raises:
        DataError: `data_dir` holds no images, or a class that is not among `class_names`.
        TooManyBadImagesError: more of it than `max_skipped` cannot be read.

    Examples:
        With a folder of images for each class in `photos`:

        >>> images = alexnet.load_test_data(alexnet.Recipe(data_dir=photos))
        >>> len(images), images.class_names
        (72, ['cross', 'ring', 'triangle'])
    """
    source = find_test_source(recipe, part)
    _require_size(source, recipe)
    if class_names is not None:
        source = source.relabelled(class_names)
    keep = len(source) * recipe.resize**2 * 3 <= recipe.cache_gb * 2**30 and not source.store.fast
    skipped = BadImages(len(source), recipe.max_skipped, source.unreadable)
    skipped.check()
    summary = Summary.of(recipe.data_dir, **{part if source.origin else "all": source})
    return Images(source, recipe, keep, skipped, summary, training=False)


def _require_size(source, recipe):
    size = source.store.size
    if size is not None and recipe.resize > size:
        raise DataError(
            f"data_dir: {recipe.data_dir} is packed at {size} pixels; resize {recipe.resize} asks for more."
        )


def training_colors(recipe, training):
    """`PixelStats` that a recipe asks for: ImageNet's, or those of the training images (a sample of 10,000 of many).

    A packed set knows its own, of all its images.
    """
    if recipe.color_statistics == "imagenet":
        return colors.IMAGENET
    if training.source.store.colors is not None:
        return training.source.store.colors
    rng = np.random.default_rng(recipe.seed)
    sample = np.sort(rng.permutation(len(training))[: colors.SAMPLE])
    moments = colors.RunningMoments()
    for squares, labels in training.squares(sample):
        for square, label in zip(squares, labels, strict=True):
            if label >= 0:
                moments.add(square)
    return moments.colors(f"{len(sample):,} training images")


class Images:
    """Labelled images, cut to the size of the network's input.

    Attributes:
        class_names: A name for each label.
        labels: int32 array `(n,)`, in the order of the source.
        steps_per_epoch: Batches that one pass takes.
        skipped: What could not be read so far.
        summary: `Summary` of what `data_dir` was taken for.
        colors: `PixelStats` for the colour noise; ImageNet's until somebody sets others.
        failure: The error that stopped a batch, if any. TensorFlow wraps errors of its input in its own.
    """

    def __init__(self, source, recipe, keep, skipped, summary, training):
        self.source = source
        self.summary = summary
        self.class_names = source.class_names
        self.labels = source.labels
        self.skipped = skipped
        self.colors = colors.IMAGENET
        self.failure = None
        self._recipe = recipe
        self._training = training
        self._squares = SquareCache(source, recipe.resize, keep)
        batches = len(source) / recipe.batch_size
        # In training the remainder of a pass begins the next one, so that every batch is full.
        self.steps_per_epoch = max(1, math.floor(batches)) if training else math.ceil(batches)

    def __len__(self):
        return len(self.source)

    def batches(self, first=0):
        """Batches `(images, labels)`: uint8 `(batch, image_size, image_size, 3)` and int32 `(batch,)`.

        For training they never end: shuffled anew in each pass, cropped and mirrored at random as the recipe says,
        all of it a function of the seed and the batch's number, on any backend. In the place of an image that
        cannot be read stands another one, drawn with the seed. For validation they are one pass in order, central
        crops, the last batch as small as it comes, without images that cannot be read.

        Args:
            first: Number of the first batch, to go on where a run stopped.

        Raises:
            TooManyBadImagesError: while reading, when more images than `max_skipped` cannot be read.
            WorkerError: while reading, when a thread fails for another reason.
        """
        recipe, order = self._recipe, self._order(np.arange(len(self)))
        if self._training:
            order = order.seed(recipe.seed).shuffle().repeat()
            dataset = order.batch(recipe.batch_size).random_map(self._augmented)
        else:
            dataset = order.batch(recipe.batch_size).map(self._centred)
        return self._prefetched(dataset[first:])

    def squares(self, indices=None):
        """One pass in order over the whole squares `(batch, resize, resize, 3)`, for views of one's own choice.

        The last batch is as small as it comes. An image that cannot be read is black and has the label -1.

        Args:
            indices: Which images; None for all.
        """
        indices = np.arange(len(self)) if indices is None else indices
        return self._prefetched(self._order(indices).batch(self._recipe.batch_size).map(self._labelled))

    def path(self, index):
        """Where the image at `index` lies, or its number in a data set that is one array."""
        return self.source.name(index)

    @property
    def paths(self):
        """`path` of every image."""
        return [self.path(index) for index in range(len(self))]

    def examples(self, indices):
        """The images at `indices`, central crops `(len(indices), image_size, image_size, 3)` uint8."""
        return augmentation.center_crop(self.squares_at(indices), self._recipe.image_size)

    def squares_at(self, indices):
        """The images at `indices` as whole squares, `(len(indices), resize, resize, 3)` uint8; black if unreadable."""
        return self._labelled(np.asarray(indices))[0]

    def _order(self, indices):
        import grain  # here and not above: a third of the time that importing the package took

        return grain.MapDataset.source(indices)

    def _prefetched(self, dataset):
        """Batches read ahead, two for each thread."""
        import grain

        threads = self._recipe.workers or os.cpu_count()
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))

    def _read(self, indices):
        """A list of squares, None in the place of one that cannot be read."""
        try:
            found = self._squares[indices]
            for place, square in enumerate(found):
                if isinstance(square, ImageError):
                    self.skipped.add(square)
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

    def _labelled(self, indices):
        found = self._read(indices)
        black = np.zeros((self._recipe.resize, self._recipe.resize, 3), np.uint8)
        squares = np.stack([black if square is None else square for square in found])
        return squares, np.where([square is None for square in found], np.int32(-1), self.labels[indices])

    def _centred(self, indices):
        squares, labels = self._labelled(indices)
        return augmentation.center_crop(squares[labels >= 0], self._recipe.image_size), labels[labels >= 0]

    def _augmented(self, indices, rng):
        recipe, count, size = self._recipe, len(indices), self._recipe.image_size
        room = recipe.resize - size
        corners = np.full((count, 2), room // 2)
        if recipe.random_crop:
            corners = augmentation.random_crop_offsets(count, room, rng)
        flips = augmentation.sample_flips(count, rng) if recipe.mirror else np.zeros(count, bool)
        images, indices = np.empty((count, size, size, 3), np.uint8), indices.copy()
        # From a fast store a few at a time, whose memory serves the next ones while the processor still has it at hand.
        step = 8 if self.source.store.fast else count
        for first in range(0, count, step):
            part = slice(first, first + step)
            indices[part], squares = self._replaced(indices[part])
            augmentation.crop_and_flip(squares, corners[part], flips[part], images[part])
        if recipe.pca_color:
            images = augmentation.pca_color(images, recipe.pca_color, self.colors.components, rng)
        return images, self.labels[indices]

    def _replaced(self, indices):
        """Indices and squares of images that can all be read."""
        squares = self._read(indices)
        if not any(square is None for square in squares):
            return indices, squares
        indices = indices.copy()
        for place in [place for place, square in enumerate(squares) if square is None]:
            # The same substitute each time, whichever batch asks, and however often the run was interrupted.
            rng = np.random.default_rng([self._recipe.seed, indices[place]])
            for other in rng.permutation(len(self)) if len(self) < 1000 else rng.integers(len(self), size=1000):
                indices[place : place + 1] = other
                squares[place] = self._read(indices[place : place + 1])[0]
                if squares[place] is not None:
                    break
            else:
                self.failure = TooManyBadImagesError(
                    self.path(indices[place]), "cannot be read, nor anything in its place"
                )
                raise self.failure
        return indices, squares
