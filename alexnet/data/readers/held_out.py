"""Which images are held out if the data have no validation part, and which are chosen by `images_per_class`."""

import hashlib
from dataclasses import replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.source import LabeledImages
from alexnet.recipe import Recipe


def hold_out(source: LabeledImages, recipe: Recipe) -> tuple[LabeledImages, LabeledImages]:
    """`(training, validation)`: `validation_split` of each class is held out, with at least one image in each part."""
    choose = _by_name if recipe.split_by == "name" else _ByOrder(recipe.seed)
    held_out = np.zeros(len(source), bool)
    few = []
    for label, name in enumerate(source.class_names):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            raise DataError(f"data_dir: class {name} has only one image; two are needed, one of them for validation.")
        chosen, enough = choose(source, members, name, recipe)
        held_out[chosen] = True
        if not enough:
            few.append(name)
    share = f"{recipe.validation_split:.3g} of each class held out, split_by {recipe.split_by}"
    training, validation = source.take(np.flatnonzero(~held_out)), source.take(np.flatnonzero(held_out))
    return training, replace(validation, origin=share, few=tuple(few), passed_over=(), notes=())


def take_few(source: LabeledImages, recipe: Recipe) -> LabeledImages:
    """At most `images_per_class` images of each class: those with the lowest hashes.

    The first twenty of a class are among the first forty of the same seed. An image that is chosen stays so when images
    that are not chosen are added or removed. Classes with fewer images keep them all.
    """
    count = recipe.images_per_class
    if count is None:
        return source
    chosen = []
    for label, name in enumerate(source.class_names):
        members = np.flatnonzero(source.labels == label)
        hashes = [_hash(recipe.seed, name, source.key(index)) for index in members.tolist()]
        chosen.append(members[np.argsort(hashes, kind="stable")[:count]])
    few = source.take(np.sort(np.concatenate(chosen)))
    return replace(few, notes=(*source.notes, f"images_per_class {count}: {len(few):,} of {len(source):,} to train on"))


def _by_name(source, members, class_name, recipe):
    """The members to hold out by a hash of class and name, and whether the hash alone decided.

    An image stays in its part when others are added or removed. In a class so small that no hash is below the share,
    the image with the lowest one is held out.
    """
    hashes = np.array([_hash(recipe.seed, class_name, source.key(index)) for index in members.tolist()])
    chosen = hashes < recipe.validation_split
    if chosen.any() and not chosen.all():
        return members[chosen], True
    if not chosen.any():
        return members[[hashes.argmin()]], False
    return np.delete(members, hashes.argmax()), False


def _hash(seed, class_name, key):
    """A number in [0, 1), the same on every machine."""
    text = f"{seed}\n{class_name}\n{key}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big") / 2**56


class _ByOrder:
    """Members drawn by their position in the list, as before there was `split_by`: a new image moves others."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def __call__(self, source, members, class_name, recipe):
        members = self._rng.permutation(members)
        count = min(max(1, round(len(members) * recipe.validation_split)), len(members) - 1)
        return members[:count], True
