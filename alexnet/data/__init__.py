"""A directory or a data set's name becomes batches: the same ones on every backend."""

import math

from alexnet.data import augmentation
from alexnet.data.decoding import ImageError, read_square
from alexnet.data.imagenet import readable
from alexnet.data.sources import DataError, SquareCache, find_sources, find_test_source

__all__ = ["DataError", "ImageError", "Images", "load_data", "load_test_data", "read_square", "readable"]


def load_data(recipe):
    """The images that a recipe names, as `(training, validation)`.

    Raises:
        DataError: `data_dir` holds nothing that could be trained on.
    """
    training, validation = find_sources(recipe.data_dir, recipe.validation_split, recipe.seed)
    free = recipe.cache_gb * 2**30
    keep = []
    for source in (training, validation):
        needed = len(source) * recipe.resize**2 * 3
        keep.append(needed <= free)
        free -= needed if keep[-1] else 0
    return Images(training, recipe, keep[0], training=True), Images(validation, recipe, keep[1], training=False)


def load_test_data(recipe, class_names=None, part="validation"):
    """The images that a recipe names, to evaluate on: the validation part, or all where `data_dir` has no split.

    Args:
        recipe: Of its fields `data_dir`, `resize`, `image_size`, `batch_size` and `cache_gb` matter.
        class_names: Those of a model, in its order; `data_dir` may have fewer. None for the data's own.
        part: `"training"` for the training part instead, in order and not augmented.

    Raises:
        DataError: `data_dir` holds no images, or a class that is not among `class_names`.
    """
    source = find_test_source(recipe.data_dir, part)
    if class_names is not None:
        source = source.relabelled(class_names)
    keep = len(source) * recipe.resize**2 * 3 <= recipe.cache_gb * 2**30
    return Images(source, recipe, keep, training=False)


class Images:
    """Labelled images, cut to the size of the network's input.

    Attributes:
        class_names: A name for each label.
        labels: int32 array `(n,)`, in the order of the source.
        steps_per_epoch: Batches that one pass takes.
        failure: The error that stopped a batch, if any. TensorFlow wraps errors of its input in its own.
    """

    def __init__(self, source, recipe, keep, training):
        self.source = source
        self.class_names = source.class_names
        self.labels = source.labels
        self._recipe = recipe
        self._training = training
        self.failure = None
        self._squares = SquareCache(source, recipe.resize, keep)
        batches = len(source) / recipe.batch_size
        # In training the remainder of a pass begins the next one, so that every batch is full.
        self.steps_per_epoch = max(1, math.floor(batches)) if training else math.ceil(batches)

    def __len__(self):
        return len(self.source)

    def batches(self, first=0):
        """Batches `(images, labels)`: uint8 `(batch, image_size, image_size, 3)` and int32 `(batch,)`.

        For training they never end: shuffled anew in each pass, cropped and mirrored at random as the recipe says,
        all of it a function of the seed and the batch's number, on any backend. For validation they are one pass
        in order, central crops, the last batch as small as it comes.

        Args:
            first: Number of the first batch, to go on where a run stopped.
        """
        recipe, order = self._recipe, self._order()
        if self._training:
            order = order.seed(recipe.seed).shuffle().repeat()
            dataset = order.batch(recipe.batch_size).random_map(self._augmented)
        else:
            dataset = order.batch(recipe.batch_size).map(self._centred)
        return _prefetched(dataset[first:])

    def squares(self):
        """One pass in order over the whole squares `(batch, resize, resize, 3)`, for views of one's own choice.

        The last batch is as small as it comes.
        """
        order = self._order().batch(self._recipe.batch_size)
        return _prefetched(order.map(lambda indices: (self._read(indices), self.labels[indices])))

    def path(self, index):
        """Where the image at `index` lies, or its number in a data set that is one array."""
        image = self.source.images[index]
        return image if isinstance(image, str) else str(index)

    @property
    def paths(self):
        """`path` of every image."""
        return [self.path(index) for index in range(len(self))]

    def examples(self, indices):
        """The images at `indices`, central crops `(len(indices), image_size, image_size, 3)` uint8."""
        return augmentation.centre_crop(self.squares_at(indices), self._recipe.image_size)

    def squares_at(self, indices):
        """The images at `indices` as whole squares, `(len(indices), resize, resize, 3)` uint8."""
        return self._squares[indices]

    def _order(self):
        import grain  # here and not above: a third of the time that importing the package took

        return grain.MapDataset.range(len(self.source))

    def _read(self, indices):
        try:
            return self._squares[indices]
        except ImageError as error:
            self.failure = error
            raise

    def _centred(self, indices):
        return augmentation.centre_crop(self._read(indices), self._recipe.image_size), self.labels[indices]

    def _augmented(self, indices, rng):
        recipe = self._recipe
        images = self._read(indices)
        if recipe.random_crop:
            images = augmentation.random_crop(images, recipe.image_size, rng)
        else:
            images = augmentation.centre_crop(images, recipe.image_size)
        if recipe.mirror:
            images = augmentation.mirror(images, rng)
        if recipe.pca_color:
            images = augmentation.pca_color(images, recipe.pca_color, rng)
        return images, self.labels[indices]


def _prefetched(dataset):
    """Batches read ahead, two threads for four of them."""
    import grain

    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
