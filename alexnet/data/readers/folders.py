"""Images in class folders, and images with their class in the file name."""

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
from alexnet.data.source import MASKS, OTHER_SPLITS

# A class, then a number: cat.0, Abyssinian_100, "cat (1)".
_NUMBERED = re.compile(r"(.*[^\W\d_])[ ._-]+\(?\d+\)?")


class FolderNode:
    """A folder and the images in it.

    Attributes:
        path: Relative to the data set; "" for the whole.
        own: How many images are right in it.
        total: How many are in it and below.
        children: `{name: FolderNode}`, also of empty folders.
    """

    def __init__(self, path):
        self.path = path
        self.name = path.rpartition("/")[2]
        self.own = self.total = 0
        self.children = {}

    @classmethod
    def of(cls, listing):
        """The root of all folders of a `FileIndex`."""
        nodes = {"": cls("")}

        def at(path):
            if path not in nodes:
                nodes[path] = cls(path)
                above, _, name = path.rpartition("/")
                at(above).children[name] = nodes[path]
            return nodes[path]

        for directory, count in zip(listing.directories, listing.counts.tolist(), strict=True):
            at(directory).own = count
        for node in sorted(nodes.values(), key=lambda node: -node.path.count("/") - bool(node.path)):
            node.total = node.own + sum(child.total for child in node.children.values())
        return nodes[""]

    def filled(self):
        """The children that hold images, sorted by name."""
        return [self.children[name] for name in sorted(self.children) if self.children[name].total]

    def find(self, path):
        """The node at a relative path, None if there is none."""
        node = self
        for name in path.strip("/").split("/"):
            node = node.children.get(name) if node and name not in ("", ".") else node
        return node

    def below(self):
        """This node and all below."""
        yield self
        for child in self.children.values():
            yield from child.below()


@dataclass
class Layout:
    """What the folders of a data set say.

    Attributes:
        classes: `{"train" or "val": {path of a folder: class}}`, a folder standing for all below it; the class is None
            where file names say it.
        origins: `{"train" or "val": path}` of parts in folders of their own.
        passed_over: `{path: reason}` of folders that hold something else.
        notes: Sentences on what was decided.
        hint: A sentence for the case that nothing else says the classes, or "".
        question: What must be decided first, a sentence that names the parameter; None where there is one reading.
    """

    classes: dict = field(default_factory=dict)
    origins: dict = field(default_factory=dict)
    passed_over: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    hint: str = ""
    question: str = None


class _Question(Exception):
    pass


def read(view, listing, recipe):
    """The `Layout` of a view; `classes` is empty where folders and names say nothing.

    Raises:
        DataError: a folder that the user names is not there.
    """
    reader = _Reader(view, listing, recipe)
    try:
        reader.read()
    except _Question as question:
        reader.layout.question = f"data_dir: {question}"
    return reader.layout


class _Reader:
    def __init__(self, view, listing, recipe):
        self.view, self.listing, self.recipe = view, listing, recipe
        self.root = FolderNode.of(listing)
        self.layout = Layout()
        self._firsts = np.concatenate(([0], np.cumsum(listing.counts)))
        self._places = {directory: number for number, directory in enumerate(listing.directories)}

    def read(self):
        recipe, root = self.recipe, self.root
        if recipe.training_dir is not None or recipe.validation_dir is not None:
            return self._named(root)
        node = self._unwrapped(root)
        if self._parts(node):
            return None
        self._add("train", node)
        return None

    # --- Parts

    def _named(self, root):
        """The parts that the user names: folders of the data set, or of each class folder."""
        recipe, base = self.recipe, self._unwrapped(root)
        named = {"train": recipe.training_dir, "val": recipe.validation_dir}
        named = {part: path for part, path in named.items() if path is not None}
        found = {part: root.find(path) or base.find(path) for part, path in named.items()}
        inside = [child for child in base.filled() if all(child.find(path) for path in named.values())]
        if all(node and node.total for node in found.values()):
            used = set(map(id, found.values()))
            whole = self._unwrapped(found.get("train", base))
            if "val" not in found and _has_training(whole) and self._parts(whole):  # a set of several there
                for node in base.filled():
                    if not any(id(below) in used for below in node.below()):
                        self.layout.passed_over[node.path] = OTHER_SPLITS
                return
            if "train" not in found:
                beside = [
                    child for child in base.filled() if part_of(child.name) == "train" and is_plain_part(child.name)
                ]
                if len(beside) == 1 and not any(node is found["val"] for node in beside[0].below()):
                    found["train"] = beside[0]
                    used.add(id(beside[0]))
                else:
                    self._rest(base, found["val"])
            for part, node in found.items():
                self.layout.origins[part] = f"{node.path}/"
                self._add(part, self._unwrapped(node))
            for node in base.filled():
                if not any(id(below) in used for below in node.below()) and "train" in found:
                    self.layout.passed_over[node.path] = OTHER_SPLITS
        elif len(inside) >= 2:
            for part, path in named.items():
                self.layout.origins[part] = f"*/{path.strip('/')}/"
                self.layout.classes[part] = {child.find(path).path: self._name(child) for child in inside}
            for child in base.filled():
                self._rest_inside(child, named)
        else:
            missing = next(part for part, node in found.items() if not (node and node.total))
            parameter = "training_dir" if missing == "train" else "validation_dir"
            names = ", ".join(child.path for child in base.filled()[:8])
            raise DataError(
                f"data_dir: {parameter}: {self.view.name} has no folder {named[missing]} with images. It has {names}."
            )

    def _rest(self, base, second):
        """Training images are all but those in `second`: class folders beside it, or other shares of the set."""
        others = [child for child in base.filled() if not any(node is second for node in child.below())]
        classes = {child.name for child in self._unwrapped(second).filled()}
        if others and all(classes & {inner.name for inner in child.filled()} for child in others):
            for child in others:  # fold1/cat beside fold2/cat
                self._add("train", child)
        elif classes and not classes & {child.name for child in others} and len(others) == 1:
            self._add("train", self._unwrapped(others[0]))
        else:
            self.layout.classes.setdefault("train", {}).update({child.path: self._name(child) for child in others})

    def _rest_inside(self, child, named):
        used = {path.strip("/") for path in named.values()}
        for inner in child.filled():
            if inner.name in used:
                continue
            if "train" in named:
                self.layout.passed_over[inner.path] = MASKS if holds_masks(inner.name) else OTHER_SPLITS
            else:
                self.layout.classes.setdefault("train", {})[inner.path] = self._name(child)

    def _parts(self, node):
        """Whether folders like train/ and val/ were found and taken."""
        children = node.filled()
        parts = {}
        for child in children:
            if part := part_of(child.name):
                parts.setdefault(part, []).append(child)
        plain = {part: [c for c in found if is_plain_part(c.name)] or found for part, found in parts.items()}
        plain = {part: self._without_masks(found) for part, found in plain.items()}
        first, second = plain.get("train", []), plain.get("val", []) + plain.get("test", [])
        if not first and not second:
            return False
        others = [child for child in children if child not in first + second + plain.get("other", [])]
        if not first:
            return self._only_second(node, second, others)
        if len(first) > 1:
            raise _Question(
                f"{self.view.name} has several folders of training images: {_shown(first)}; say which: training_dir."
            )
        train = self._unwrapped(first[0])
        if not second and others and not self._says_classes(train):
            # Beside aeroplanes and buses, a train is a class.
            if len(others) >= 2 and is_plain_part(first[0].name) and train.own:
                return False
            if not is_plain_part(first[0].name):
                return False
        if not is_plain_part(first[0].name) and not second and others:
            return False
        self.layout.origins["train"] = f"{first[0].path}/"
        self._add("train", train)
        self._add_second(second, train)
        for child in others + plain.get("other", []):
            if part_of(child.name) != "train" or child not in first:
                self.layout.passed_over[child.path] = MASKS if holds_masks(child.name) else OTHER_SPLITS
        return True

    def _add_second(self, second, train):
        """The validation part: `val` before `test`; one without classes is left out."""
        classes = {child.name for child in train.filled()}
        labeled = [child for child in second if self._says_classes(self._unwrapped(child, classes), classes)]
        if self.recipe.classes_from == "table":
            labeled = second
        kinds = [part_of(child.name) for child in labeled]
        best = "val" if "val" in kinds else "test"
        if kinds.count(best) > 1:
            several = [child for child in labeled if part_of(child.name) == best]
            plain = [child for child in several if words(child.name) in ([best], ["valid"], ["validation"])]
            if len(plain) != 1:
                raise _Question(
                    f"{self.view.name} has several folders of validation images: {_shown(several)}; say which: "
                    "validation_dir."
                )
            labeled = [child for child in labeled if child not in several or child in plain]
        chosen = next((child for child in labeled if part_of(child.name) == best), None)
        for child in second:
            if child is not chosen:
                self.layout.passed_over[child.path] = OTHER_SPLITS
        if chosen is not None:
            self.layout.origins["val"] = f"{chosen.path}/"
            self._add("val", self._unwrapped(chosen, classes))

    def _only_second(self, node, second, others):
        """Without a training folder: validation images only, class folders beside them, or classes called so."""
        if self.recipe.classes_from in ("folders", "subfolders"):
            return False
        if not others:
            self._add_second(second, node)
            return True
        labeled = [child for child in second if self._says_classes(self._unwrapped(child))]
        names = {child.name for child in others}
        inner = [
            child for child in labeled if names & {grandchild.name for grandchild in self._unwrapped(child).filled()}
        ]
        if inner:
            self.layout.classes["train"] = {child.path: self._name(child) for child in others}
            self._add_second(second, node)
            return True
        plain = [child for child in second if is_plain_part(child.name)]
        if not plain:
            return False
        whole = self._unwrapped(others[0])
        if len(others) == 1 and _has_training(whole) and self._parts(whole):
            for child in second:  # test/ beside set/train and set/val
                self.layout.passed_over[child.path] = OTHER_SPLITS
            return True
        if all(holds_images(child.name) or holds_masks(child.name) for child in others):
            return False  # images/ beside test/: a table may say more
        raise _Question(
            f"{self.view.name} has the folders {_shown(others + second)}, and {plain[0].name} is a part of a data set "
            "or a class; say which: classes_from (folders: a class), or training_dir and validation_dir."
        )

    def _says_classes(self, node, known=()):
        """Whether the folders in a part, or the names of its files, tell classes."""
        inside = node.filled()
        if known and {child.name for child in inside} & set(known):
            return True
        if len(inside) >= 2 or (inside and node.name and not node.own):
            return True
        return self._in_names(node) is not None

    # --- Classes

    def _unwrapped(self, node, known=()):
        """The first folder at or below `node` that holds more than one other folder.

        Args:
            known: Names of classes, which are not opened.
        """
        while not node.own:
            inside = self._without_masks(node.filled())
            if len(inside) != 1 or inside[0].name in known:
                break
            inner = inside[0]
            again = inner.name == node.name  # test_set/test_set/<class>, as some zips unfold
            if is_plain_part(inner.name) and part_of(inner.name) != "other" and not again:
                break
            if not (again or inner.filled() or holds_images(inner.name) or self._in_names(inner)):
                break  # one class
            node = inner
        return node

    def _without_masks(self, nodes):
        """Of folders side by side those that hold images, where others beside them hold masks of these."""
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
            self.layout.passed_over[node.path] = MASKS
        return [node for node in nodes if node not in masks]

    def _repeats(self, masks, others):
        """Whether a folder called `segmentations` has the folders and files of one beside it, but for their endings."""
        if any(word in ("mask", "masks") for word in words(masks.name)) or masks.own:
            return False
        known = {(node.name, stem) for other in others for node in other.below() for stem in self._stems(node)}
        return all((node.name, stem) in known for node in masks.below() for stem in self._stems(node))

    def _add(self, part, node):
        """The classes of one part, from the folders in `node` or the names of its files."""
        found = self._classes(node)
        known = self.layout.classes.setdefault(part, {})
        known.update(found)
        if not known:
            del self.layout.classes[part]

    def _classes(self, node):
        """`{path: class}`; empty where nothing says what images show."""
        how = self.recipe.classes_from
        children = self._without_masks(node.filled())
        if how == "table":
            return {node.path: None}
        if how == "subfolders":
            return {
                below.path: self._name(below)
                for below in node.below()
                if below.own and below is not node and below.path not in self.layout.passed_over
            }
        if how == "names" or not children:
            named = self._in_names(node)
            if named is None and how == "names":
                raise DataError(
                    f"data_dir: {self.view.name}: classes_from is names, but the names of the files tell no classes: "
                    "cat.0.jpg and dog_1.jpg would."
                )
            return {} if named is None else {node.path: None}
        if node.own and len(children) == 1 and how is None:
            raise _Question(
                f"{os.path.join(self.view.name, node.path)} holds {node.own:,} images and one folder, "
                f"{children[0].name}: the classes may be in folders, names or a table; say where: classes_from, "
                "or training_dir."
            )
        if how is None:
            self._check(node, children)
        shares = [c.name for c in children if not holds_masks(c.name) and part_of(c.name) in (None, "train")]
        if len(shares) > 1 and how is None and are_containers(shares):
            self.layout.hint = (
                f" The folders {_shown(children)} look like shares of one set; classes_from: folders takes "
                "them as classes."
            )
            return {}
        for name in sorted(node.children):
            if not node.children[name].total:
                self.layout.notes.append(f"class folder {name} holds no image that is read")
        found = {}
        for child in children:
            found[child.path] = self._name(child)
            for inner in child.filled():
                if inner not in self._without_masks(child.filled()):
                    self.layout.passed_over[inner.path] = MASKS
        return found

    def _check(self, node, children):
        """Stop where the folders in `children` mean as much as they do themselves.

        Raises:
            _Question: two readings.
        """
        opened = {child: self._unwrapped(child) for child in children}  # set/set/train, beside other such sets
        inside = {c.name: [inner.name for inner in self._without_masks(node.filled())] for c, node in opened.items()}
        deep = [set(names) for names in inside.values() if names]
        shared = set.intersection(*deep) if len(deep) > 1 else set()
        where = os.path.join(self.view.name, node.path) if node.path else self.view.name
        if len(shared) > 1:
            raise _Question(
                f"the folders in {where} ({_shown(children)}) hold the same folders ({', '.join(sorted(shared)[:4])}"
                f"{', ...' if len(shared) > 4 else ''}): which are the classes? classes_from: folders or subfolders; "
                "or name the parts: training_dir, validation_dir."
            )
        split = [child for child in children if not child.own and len(inside[child.name]) > 1]
        if split:
            raise _Question(
                f"{os.path.join(where, split[0].name)} holds folders only ({', '.join(inside[split[0].name][:4])}): "
                f"is {split[0].name} a class, or are they? classes_from: folders or subfolders; or training_dir."
            )
        if len(children) > 1:
            masks = [child for child in children if holds_masks(child.name)]
            if masks and len(masks) < len(children) and self._same_names(masks, children):
                raise _Question(
                    f"{where} holds {masks[0].name}, which may be masks or a class; say which: classes_from "
                    "(folders: a class), or training_dir for the folder of images."
                )
            parts = [child for child in children if is_plain_part(child.name) and part_of(child.name) != "train"]
            if len(parts) == len(children):
                raise _Question(
                    f"{where} holds {_shown(children)}, which are parts of a data set, and nothing that says "
                    "what their images show; classes_from: folders takes them as classes."
                )

    def _same_names(self, masks, children):
        """Whether masks are called as images in the other folders; strict names like `annotations` need no proof."""
        if any(word not in ("mask", "masks") for node in masks for word in words(node.name) if holds_masks(word)):
            return True
        stems = [self._stems(child) for child in children if child not in masks]
        others = set().union(*stems)
        return all(stem in others for node in masks for stem in self._stems(node))

    def _stems(self, node):
        return {os.path.splitext(os.path.basename(name))[0] for name in self._names(node)}

    def _names(self, node):
        """Names of the images right in a folder."""
        number = self._places.get(node.path)
        if number is None:
            return []
        return [self.listing.names[i] for i in range(self._firsts[number], self._firsts[number + 1])]

    def _in_names(self, node):
        return in_names(self._names(node)) if node.own and not node.filled() else None

    @staticmethod
    def _name(node):
        return unicodedata.normalize("NFC", node.name)


def _has_training(node):
    return any(part_of(child.name) == "train" and is_plain_part(child.name) for child in node.filled())


def _shown(nodes):
    names = [node.name for node in nodes]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def in_names(names):
    """The class in each file's name, None if these are no such names: they must tell two or more, mostly often, and
    none of them may be what a camera writes or the name of a part (`IMG_1`, `Train_1`)."""
    stems = (os.path.splitext(os.path.basename(name))[0] for name in names)
    named = [match[1] if (match := _NUMBERED.fullmatch(stem)) else None for stem in stems]
    if None in named or not 1 < len(set(named)) <= len(named) / 2:
        return None
    if any(is_camera(prefix) for prefix in set(named)):
        return None
    return [unicodedata.normalize("NFC", name) for name in named]
