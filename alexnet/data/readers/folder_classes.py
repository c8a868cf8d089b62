"""Finds which folders of one part are classes, or whether the names of its files tell the classes."""

import os
import re
import unicodedata
from dataclasses import dataclass, field

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.naming import (
    are_containers,
    holds_images,
    holds_masks,
    is_camera,
    is_plain_part,
    part_of,
    words,
)
from alexnet.data.source import MASKS

# A class, then a number: cat.0, Abyssinian_100, "cat (1)".
_NUMBERED = re.compile(r"(.*[^\W\d_])[ ._-]+\(?\d+\)?")


@dataclass
class FolderReading:
    """What the folders of a data set say.

    Attributes:
        classes: `{"train" or "val": {path of a folder: class}}`. A folder includes all below it. The class is None if
            file names tell it.
        origins: `{"train" or "val": path}` of parts in folders of their own.
        passed_over: `{path: reason}` of folders that are not used.
        notes: Sentences on what was decided.
        hint: A sentence to show if nothing else tells the classes, or "".
        question: A sentence on what the user must decide, with the parameter's name; None if there is only one reading.
    """

    classes: dict = field(default_factory=dict)
    origins: dict = field(default_factory=dict)
    passed_over: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    hint: str = ""
    question: str | None = None


class Question(Exception):
    """Folders can be read in two ways. The message names the parameter that decides."""


class ClassFinder:
    """Finds the classes of one part of a data set, and writes them into a `FolderReading`.

    Attributes:
        reading: What was found so far.
    """

    def __init__(self, view, listing, recipe):
        self.view, self.listing, self.recipe = view, listing, recipe
        self.reading = FolderReading()
        self._firsts = np.concatenate(([0], np.cumsum(listing.counts)))
        self._places = {directory: number for number, directory in enumerate(listing.directories)}

    def unwrapped(self, node, known=()):
        """The first folder at or below `node` that holds more than one other folder.

        Args:
            known: Names of classes, which are not opened.
        """
        while not node.own:
            inside = self.without_masks(node.filled())
            if len(inside) != 1 or inside[0].name in known:
                break
            inner = inside[0]
            again = inner.name == node.name  # test_set/test_set/<class>, as some zips contain it
            if is_plain_part(inner.name) and part_of(inner.name) != "other" and not again:
                break
            if not (again or inner.filled() or holds_images(inner.name) or self.in_names(inner)):
                break  # one class
            node = inner
        return node

    def without_masks(self, nodes):
        """The folders among `nodes` that hold images, without those that hold masks of these images."""
        masks = [node for node in nodes if holds_masks(node.name) and not holds_images(node.name)]
        images = [
            node for node in nodes if node not in masks and any(map(holds_images, [node.name, *words(node.name)]))
        ]
        if masks and not images:
            images = [node for node in nodes if node not in masks]
            masks = [node for node in masks if images and self._repeats(node, images)]
        if not masks or not images:
            return nodes
        for node in masks:
            self.reading.passed_over[node.path] = MASKS
        return [node for node in nodes if node not in masks]

    def _repeats(self, masks, others):
        """Whether a folder called `segmentations` has the folders and files of one beside it, apart from extensions."""
        if any(word in ("mask", "masks") for word in words(masks.name)) or masks.own:
            return False
        known = {(node.name, stem) for other in others for node in other.below() for stem in self._stems(node)}
        return all((node.name, stem) in known for node in masks.below() for stem in self._stems(node))

    def add(self, part, node):
        """Add the classes of one part, from the folders in `node` or the names of its files."""
        found = self._classes(node)
        known = self.reading.classes.setdefault(part, {})
        known.update(found)
        if not known:
            del self.reading.classes[part]

    def _classes(self, node):
        """`{path: class}`; empty if nothing tells the classes."""
        how = self.recipe.classes_from
        children = self.without_masks(node.filled())
        if how == "table":
            return {node.path: None}
        if how == "subfolders":
            return {
                below.path: self.class_name(below)
                for below in node.below()
                if below.own and below is not node and below.path not in self.reading.passed_over
            }
        if how == "names" or not children:
            named = self.in_names(node)
            if named is None and how == "names":
                raise DataError(
                    f"data_dir: {self.view.name}: classes_from is names, but the files have no names like cat.0.jpg "
                    "and dog_1.jpg."
                )
            return {} if named is None else {node.path: None}
        if node.own and len(children) == 1 and how is None:
            raise Question(
                f"{os.path.join(self.view.name, node.path)} holds {node.own:,} images and one folder, "
                f"{children[0].name}: the classes may come from folders, names or a table. Decide by classes_from or "
                "training_dir."
            )
        if how is None:
            self._check(node, children)
        shares = [c.name for c in children if not holds_masks(c.name) and part_of(c.name) in (None, "train")]
        if len(shares) > 1 and how is None and are_containers(shares):
            self.reading.hint = (
                f" The folders {shown(children)} look like shares of one set; classes_from: folders takes "
                "them as classes."
            )
            return {}
        for name in sorted(node.children):
            if not node.children[name].total:
                self.reading.notes.append(f"class folder {name} holds no image that is read")
        found = {}
        for child in children:
            found[child.path] = self.class_name(child)
            for inner in child.filled():
                if inner not in self.without_masks(child.filled()):
                    self.reading.passed_over[inner.path] = MASKS
        return found

    def _check(self, node, children):
        """Check that `children` are the classes, not the folders in them.

        Raises:
            Question: both could be classes.
        """
        opened = {child: self.unwrapped(child) for child in children}  # set/set/train, beside other such sets
        inside = {c.name: [inner.name for inner in self.without_masks(node.filled())] for c, node in opened.items()}
        deep = [set(names) for names in inside.values() if names]
        shared = set.intersection(*deep) if len(deep) > 1 else set()
        where = os.path.join(self.view.name, node.path) if node.path else self.view.name
        if len(shared) > 1:
            raise Question(
                f"the folders in {where} ({shown(children)}) hold the same folders ({', '.join(sorted(shared)[:4])}"
                f"{', ...' if len(shared) > 4 else ''}): which are the classes? classes_from: folders or subfolders; "
                "or name the parts: training_dir, validation_dir."
            )
        split = [child for child in children if not child.own and len(inside[child.name]) > 1]
        if split:
            raise Question(
                f"{os.path.join(where, split[0].name)} holds folders only ({', '.join(inside[split[0].name][:4])}): "
                f"is {split[0].name} a class, or are they? classes_from: folders or subfolders; or training_dir."
            )
        if len(children) > 1:
            masks = [child for child in children if holds_masks(child.name)]
            if masks and len(masks) < len(children) and self._same_names(masks, children):
                raise Question(
                    f"{where} holds {masks[0].name}, which may be masks or a class; say which: classes_from "
                    "(folders: a class), or training_dir for the folder of images."
                )
            parts = [child for child in children if is_plain_part(child.name) and part_of(child.name) != "train"]
            if len(parts) == len(children):
                raise Question(
                    f"{where} holds {shown(children)}, which are parts of a data set, and nothing that says "
                    "what their images show; classes_from: folders takes them as classes."
                )

    def _same_names(self, masks, children):
        """Whether masks have the names of images in the other folders. A clear name like `annotations` is enough."""
        if any(word not in ("mask", "masks") for node in masks for word in words(node.name) if holds_masks(word)):
            return True
        stems = [self._stems(child) for child in children if child not in masks]
        others = set().union(*stems)
        return all(stem in others for node in masks for stem in self._stems(node))

    def _stems(self, node):
        return {os.path.splitext(os.path.basename(name))[0] for name in self._names(node)}

    def _names(self, node):
        """Names of the images directly in a folder."""
        number = self._places.get(node.path)
        if number is None:
            return []
        return [self.listing.names[i] for i in range(self._firsts[number], self._firsts[number + 1])]

    def in_names(self, node):
        return in_names(self._names(node)) if node.own and not node.filled() else None

    @staticmethod
    def class_name(node):
        return unicodedata.normalize("NFC", node.name)


def shown(nodes):
    names = [node.name for node in nodes]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def in_names(names):
    """The class in each file's name; None if the names tell no classes.

    They must tell at least two classes, with two images each on average. None of the classes may be the prefix of a
    camera or the name of a part (`IMG_1`, `Train_1`).
    """
    stems = (os.path.splitext(os.path.basename(name))[0] for name in names)
    named = [match[1] if (match := _NUMBERED.fullmatch(stem)) else None for stem in stems]
    if None in named or not 1 < len(set(named)) <= len(named) / 2:
        return None
    if any(is_camera(prefix) for prefix in set(named)):
        return None
    return [unicodedata.normalize("NFC", name) for name in named]
