"""Images that could not be read. They are counted and listed; too many of them stop the run."""

import threading
from collections.abc import Iterable
from os import PathLike

from alexnet.atomic import write_list
from alexnet.data.errors import ImageError, TooManyBadImagesError


class BadImages:
    """The images that were left out, and why.

    Args:
        images: How many images there are.
        allowed: The share of them that may be unreadable.
        unreadable: `(name, reason)` of each folder that could not be listed and each row of a table that has no image.
            Each counts as one image.
    """

    def __init__(self, images: int, allowed: float, unreadable: Iterable | dict = ()):
        self.images = images
        self.allowed = allowed
        self.reasons = dict(unreadable)
        self._lock = threading.Lock()

    def __len__(self):
        return len(self.reasons)

    def add(self, error: ImageError) -> None:
        """Record an `ImageError`.

        Raises:
            TooManyBadImagesError: there are now more than allowed.
        """
        with self._lock:
            self.reasons.setdefault(error.name, error.reason)
        self.check()

    def check(self) -> None:
        if len(self) > self.allowed * self.images or len(self) >= self.images:
            name, reason = list(self.reasons.items())[-1]
            limit = f", more than max_skipped ({self.allowed:g}) allows" if self.allowed < 1 else ""
            raise TooManyBadImagesError(
                name, f"{reason}; in all, {len(self):,} of {self.images:,} images cannot be read{limit}."
            )

    def write(self, path: str | PathLike) -> None:
        """Write the list as CSV, `image,reason`. If it is empty, there is no such file."""
        with self._lock:
            rows = sorted(self.reasons.items())
        write_list(path, ["image", "reason"], rows)

    def __str__(self):
        return f"{len(self):,} of {self.images:,} images could not be read and were left out"
