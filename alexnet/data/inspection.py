"""Inspects a data set: images of each class and part, sizes, damage, duplicates."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from alexnet.data.duplicates import SIDE, group_equal, group_similar, join_groups, thumbnail
from alexnet.data.errors import ImageError
from alexnet.data.inspection_report import Inspection, Member, relations
from alexnet.data.readers import find_parts
from alexnet.data.source import common_size
from alexnet.data.summary import Summary
from alexnet.progress import progress
from alexnet.recipe import Recipe

SAMPLE, MEASURED = 2000, 500  # images that are decoded, and images whose headers are read
COMPARED = 100_000  # images that are searched for near duplicates: every one is compared with every other one
_SIZE = 128  # of the decoded images; exact duplicates are equal at this size


def inspect(recipe: Recipe, decode_all: bool = False, verbose: int | None = None) -> Inspection:
    """Inspect a recipe's `data_dir`, even one that a run could not train on.

    A sample of images is decoded, the same number from each part that has so many.

    Args:
        recipe: The fields that say how `data_dir` is read and how images are held out, and `seed`, which draws the
            sample, are used.
        decode_all: Whether every image is decoded instead.
        verbose: See `progress.progress`.

    Raises:
        DataError: nothing in `data_dir` is recognized.

    Examples:
        With a folder of images for each class in `photos`:

        >>> inspect(Recipe(data_dir=photos, validation_split=0.2)).problem is None
        True
    """
    sources, problem = find_parts(recipe)
    sample = _sample(sources, None if decode_all else SAMPLE, recipe.seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes, measured = _measure(sources, _sample(sources, MEASURED, recipe.seed), pool)
        decoded, damaged = _decode(sources, sample, pool, verbose)
        files = _group_files(sources, pool)
    same = group_equal(range(len(decoded.places)), decoded.digests)
    firsts = np.array([group[0] for group in same], int)
    exact = join_groups([*files, *([decoded.places[place] for place in group] for group in same if len(group) > 1)])
    compared = firsts[firsts < len(decoded.thumbnails)]
    near = group_similar(decoded.thumbnails[compared])
    near = [[decoded.places[compared[place]] for place in group] for group in near]

    def members(groups):
        found = [[_member(sources, *place) for place in group] for group in groups]
        return sorted(found, key=lambda group: [not crosses for crosses in relations(group).values()])

    return Inspection(
        Summary.of(recipe.data_dir, **sources),
        sources,
        problem,
        _count_classes(sources),
        dict(row for source in sources.values() for row in source.unreadable),
        sizes,
        measured,
        sum(map(len, sample.values())),
        {name: reason for reasons in damaged.values() for name, reason in reasons.items()},
        sum(len(reasons) * len(sources[part]) / len(sample[part]) for part, reasons in damaged.items()),
        members(exact),
        bool(sources) and all(source.reader.has_marks for source in sources.values()),
        members(near),
        len(decoded.thumbnails),
        len(firsts) - len(compared),
    )


def _count_classes(sources):
    names = dict.fromkeys(name for source in sources.values() for name in source.class_names)
    found = {name: dict.fromkeys(sources, 0) for name in names}
    for part, source in sources.items():
        counts = np.bincount(source.labels, minlength=len(source.class_names)).tolist()
        for name, count in zip(source.class_names, counts, strict=True):
            found[name][part] += count
    return found


# --- Reading images


def _sample(sources, count, seed):
    """`{part: places}` of `count` images, drawn and then sorted; the same number from each part that has so many."""
    rng, found = np.random.default_rng(seed), {}
    left = sum(map(len, sources.values())) if count is None else count
    smallest_first = sorted(sources, key=lambda part: len(sources[part]))
    for waiting, part in zip(range(len(sources), 0, -1), smallest_first, strict=True):
        length = len(sources[part])
        share = length if count is None else min(length, left // waiting)
        found[part] = np.sort(rng.choice(length, share, replace=False)) if share < length else np.arange(length)
        left -= share
    return {part: found[part] for part in sources}


def _measure(sources, sample, pool):
    """`(sizes, measured)` as `Inspection` has them; images that cannot be read are not counted."""

    def size(task):
        part, place = task
        source = sources[part]
        try:
            return source.reader.image_size(source.indices[place])
        except ImageError:
            return None

    found = pool.map(size, [(part, place) for part, places in sample.items() for place in places])
    sizes = np.array([size for size in found if size is not None], int).reshape(-1, 2)
    if not len(sizes):
        return {}, 0
    columns = {"width": sizes[:, 0], "height": sizes[:, 1], "shorter side": sizes.min(axis=1)}
    summary = {what: (int(c.min()), int(np.median(c)), int(c.max())) for what, c in columns.items()}
    return summary, len(sizes)


class _Decoded(NamedTuple):
    """`(part, place)` and a digest of the pixels of each image, and thumbnails of the first `COMPARED`."""

    places: list
    digests: list
    thumbnails: np.ndarray


def _decode(sources, sample, pool, verbose):
    """`_Decoded` of a sample, and `{part: {name: reason}}` of the images that cannot be decoded."""
    side = common_size(sources.values(), _SIZE)
    batches = [(part, places[k : k + 32]) for part, places in sample.items() for k in range(0, len(places), 32)]
    total = sum(map(len, sample.values()))
    places, digests, damaged = [], [], {part: {} for part in sample}
    thumbnails = np.empty((min(total, COMPARED), SIDE, SIDE, 3), np.uint8)

    def look(batch):
        part, places = batch
        return [
            image if isinstance(image, ImageError) else (hashlib.sha256(image.tobytes()).digest(), thumbnail(image))
            for image in sources[part].images(places, side)
        ]

    found = (
        (part, place, result)
        for (part, places), results in zip(batches, pool.map(look, batches), strict=True)
        for place, result in zip(places.tolist(), results, strict=True)
    )
    for part, place, result in progress(found, total, "looking at images", verbose):
        if isinstance(result, ImageError):
            damaged[part][result.name] = result.reason
            continue
        if len(places) < len(thumbnails):
            thumbnails[len(places)] = result[1]
        places.append((part, place))
        digests.append(result[0])
    return _Decoded(places, digests, thumbnails[: len(places)]), {
        part: reasons for part, reasons in damaged.items() if reasons
    }


def _group_files(sources, pool):
    """Groups of files that are equal byte for byte, as `(part, place)`. Only files with equal marks are read whole."""

    def mark(place):
        return _tried(place, lambda reader, index: reader.mark(index))

    def digest(place):
        return _tried(place, lambda reader, index: hashlib.sha256(reader.read(index)).digest())

    def _tried(place, function):
        source = sources[place[0]]
        try:
            return function(source.reader, source.indices[place[1]])
        except (ImageError, OSError):
            return place  # equal to no other file's

    places = [
        (part, place) for part, source in sources.items() if source.reader.has_marks for place in range(len(source))
    ]
    groups = [group for group in group_equal(places, pool.map(mark, places)) if len(group) > 1]
    places = [place for group in groups for place in group]
    return [group for group in group_equal(places, pool.map(digest, places)) if len(group) > 1]


def _member(sources, part, place):
    source = sources[part]
    return Member(part, str(source.class_names[source.labels[place]]), source.name(place))
