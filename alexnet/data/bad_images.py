"""Images that could not be read: counted and listed, and too many of them stop the work."""

import threading
from os import PathLike

from alexnet.atomic import write_list
from alexnet.data.errors import ImageError, TooManyBadImagesError


class BadImages:
    """What was left out, and why.

    Args:
        images: How many images there are.
        allowed: The share of them that may be unreadable.
        unreadable: `(name, reason)` of folders that could not be listed and of rows in a table without an image; each
            counts as one image.
    """

    def __init__(self, images: int, allowed: float, unreadable=()):
        self.images = images
        self.allowed = allowed
        self.reasons = dict(unreadable)
        self._lock = threading.Lock()

    def __len__(self):
        return len(self.reasons)

    def add(self, error: ImageError) -> None:
        """Note an `ImageError`.

        Raises:
            TooManyBadImagesError: it is one too many.
        """
        with self._lock:
            self.reasons.setdefault(error.name, error.reason)
        self.check()

    def check(self) -> None:
        if len(self) > self.allowed * self.images or len(self) >= self.images:
            name, reason = list(self.reasons.items())[-1]
            limit = f", more than max_skipped ({self.allowed:g}) allows" if self.allowed < 1 else ""
            raise TooManyBadImagesError(
                name, f"{reason}; with it {len(self):,} of {self.images:,} images cannot be read{limit}."
            )

    def write(self, path: str | PathLike) -> None:
        """The list as CSV, `image,reason`; while it is empty, there is no such file."""
        with self._lock:
            rows = sorted(self.reasons.items())
        write_list(path, ["image", "reason"], rows)

    def __str__(self):
        return f"{len(self):,} of {self.images:,} images could not be read and were left out"
