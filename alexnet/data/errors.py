"""Errors of data sets, of images, and of the threads that read them."""


class DataError(ValueError):
    """A data set cannot be used. The message says why."""


class ImageError(RuntimeError):
    """An image cannot be used.

    Attributes:
        name: The image's name.
        reason: Why, in a few words that complete the sentence "<name> ...".
    """

    def __init__(self, name, reason):
        super().__init__(f"{name} {reason}")
        self.name = str(name)
        self.reason = reason


class TooManyBadImagesError(ImageError):
    """More images could not be read than `max_skipped` allows."""


class WorkerError(RuntimeError):
    """A thread that prepares batches failed for a reason other than a bad image. The message names the reason."""


class Refused(Exception):
    """The reason for an `ImageError`, raised where the image's name is not known."""
