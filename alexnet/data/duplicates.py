"""Images that are equal, or look alike."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

SIDE = 16  # of the thumbnails that are compared, in pixels
# Two thumbnails look alike if their root mean square difference is at most this share of the lower contrast, or one
# level. Copies that are compressed again, half as large, or 5 % brighter stay below .2; different drawings of the
# built-in data sets begin at .35.
SHARE, LEVELS = 0.25, 1.0
_COARSE = 8
_ENTRIES = 2**24  # of one block of the matrix that compares every pair


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A square image averaged to `(SIDE, SIDE, 3)` uint8."""
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))


def group_equal(members: Iterable, keys: Iterable) -> list[list]:
    """Lists of members that have the same key, in the order of each list's first member."""
    groups: dict = {}
    for member, key in zip(members, keys, strict=True):
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def join_groups(groups: Sequence[list]) -> list[list]:
    """The same groups, with those that share a member joined into one."""
    members = list(dict.fromkeys(member for group in groups for member in group))
    numbers = {member: number for number, member in enumerate(members)}
    joined = _Groups(len(members))
    for group in groups:
        joined.join(np.array([(numbers[group[0]], numbers[other]) for other in group[1:]], int).reshape(-1, 2))
    return group_equal(members, joined.roots().tolist())


def group_similar(thumbnails: np.ndarray) -> list[list[int]]:
    """Groups of thumbnails that look alike: lists of at least two indices. Each looks like at least one of its group.

    Every pair is compared: 100,000 thumbnails take a minute or two.

    Args:
        thumbnails: uint8 `(n, SIDE, SIDE, 3)`.
    """
    count = len(thumbnails)
    contrast, coarse = _describe(thumbnails)
    # Sorted by contrast, the first of a pair sets the limit.
    order = np.argsort(contrast, kind="stable")
    limits, coarse, sorted_thumbnails = (
        np.maximum(LEVELS, SHARE * contrast[order]) ** 2,
        coarse[order],
        thumbnails[order],
    )
    halves = (coarse**2).sum(axis=1) / 2
    groups = _Groups(count)
    rows = max(1, _ENTRIES // max(1, count))
    for first in range(0, count, rows):
        block = slice(first, first + rows)
        # |a - b|^2 <= limit, solved for the product of a and b. Averages never differ more than the pixels do, so no
        # pair is lost; the small margin is for rounding.
        product = coarse[block] @ coarse[first:].T
        product -= halves[first:]
        bound = halves[block] - (limits[block] + 0.1) * (_COARSE**2 / 2)
        left, right = np.nonzero(product >= bound[:, None].astype(np.float32))
        pairs = np.stack([left, right], axis=1)[left < right] + first
        pairs = pairs[groups.apart(pairs)]
        for start in range(0, len(pairs), 4096):
            some = pairs[start : start + 4096]
            some = some[groups.apart(some)]
            difference = sorted_thumbnails[some[:, 0]].astype(np.int32) - sorted_thumbnails[some[:, 1]]
            groups.join(some[(difference**2).mean(axis=(1, 2, 3)) <= limits[some[:, 0]]])
    found = group_equal(order.tolist(), groups.roots().tolist())
    return sorted(sorted(group) for group in found if len(group) > 1)


def _describe(thumbnails):
    """Contrast `(n,)`, the standard deviation of pixels from their channel's mean, and coarse gray pixels `(n, 64)`."""
    contrast, coarse = np.empty(len(thumbnails)), np.empty((len(thumbnails), _COARSE**2), np.float32)
    for first in range(0, len(thumbnails), 4096):  # in blocks, since as floats they are large
        block = slice(first, first + 4096)
        pixels = thumbnails[block].astype(np.float32)
        contrast[block] = np.sqrt(pixels.var(axis=(1, 2)).mean(axis=1))
        step = SIDE // _COARSE
        pixels = pixels.reshape(-1, _COARSE, step, _COARSE, step, 3).mean(axis=(2, 4, 5))
        coarse[block] = pixels.reshape(-1, _COARSE**2) - 128  # smaller numbers have smaller rounding errors
    return contrast, coarse


class _Groups:
    """Numbers that are joined into groups, a pair at a time (union-find)."""

    def __init__(self, count):
        self._parent = np.arange(count)

    def roots(self):
        """For each number, the one that represents its group."""
        while True:
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return self._parent
            self._parent = above

    def apart(self, pairs):
        """Which of the pairs `(n, 2)` are in different groups."""
        roots = self.roots()
        return roots[pairs[:, 0]] != roots[pairs[:, 1]]

    def join(self, pairs):
        for pair in pairs.tolist():
            first, second = sorted(map(self._root, pair))
            self._parent[second] = first

    def _root(self, number):
        while self._parent[number] != number:
            number = self._parent[number]
        return number
