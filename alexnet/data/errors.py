"""What can be wrong with a data set, an image, or the threads that read them."""


class DataError(ValueError):
    """A `data_dir` that cannot be used, in one sentence."""


class ImageError(RuntimeError):
    """An image that cannot be used.

    Attributes:
        name: Of the image.
        reason: Why, in a few words that go on the sentence "<name> ...".
    """

    def __init__(self, name, reason):
        super().__init__(f"{name} {reason}")
        self.name = str(name)
        self.reason = reason


class TooManyBadImagesError(ImageError):
    """More images than `max_skipped` allows could not be read."""


class WorkerError(RuntimeError):
    """A thread that prepares batches failed for a reason that is not an image's. The message names it."""


class Refused(Exception):
    """The reason of an `ImageError`, raised where the image's name is not known."""
