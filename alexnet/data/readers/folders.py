"""Reads the folders of a data set: which are its parts, and the classes in them."""

from alexnet.data.errors import DataError
from alexnet.data.readers.folder_classes import ClassFinder, Question, shown
from alexnet.data.readers.folder_nodes import FolderNode
from alexnet.data.readers.naming import holds_images, holds_masks, is_plain_part, part_of, words
from alexnet.data.source import MASKS, OTHER_SPLITS


def read(view, listing, recipe):
    """The `FolderReading` of a view; `classes` is empty if folders and file names tell no classes.

    Raises:
        DataError: a folder that the user names does not exist.
    """
    finder = _PartFinder(view, listing, recipe)
    try:
        finder.read()
    except Question as question:
        finder.reading.question = f"data_dir: {question}"
    return finder.reading


class _PartFinder:
    """Finds the folders of training and validation images, and their classes with a `ClassFinder`."""

    def __init__(self, view, listing, recipe):
        self.view, self.recipe = view, recipe
        self.root = FolderNode.of(listing)
        self.classes = ClassFinder(view, listing, recipe)
        self.reading = self.classes.reading

    def read(self):
        recipe, root = self.recipe, self.root
        if recipe.training_dir is not None or recipe.validation_dir is not None:
            return self._named(root)
        node = self.classes.unwrapped(root)
        if self._parts(node):
            return None
        self.classes.add("train", node)
        return None

    def _named(self, root):
        """Take the parts that the user names: folders of the data set, or of each class folder."""
        recipe, base = self.recipe, self.classes.unwrapped(root)
        named = {"train": recipe.training_dir, "val": recipe.validation_dir}
        named = {part: path for part, path in named.items() if path is not None}
        found = {part: root.find(path) or base.find(path) for part, path in named.items()}
        inside = [child for child in base.filled() if all(child.find(path) for path in named.values())]
        if all(node and node.total for node in found.values()):
            used = set(map(id, found.values()))
            whole = self.classes.unwrapped(found.get("train", base))
            if "val" not in found and _has_training(whole) and self._parts(whole):  # one of several data sets
                for node in base.filled():
                    if not any(id(below) in used for below in node.below()):
                        self.reading.passed_over[node.path] = OTHER_SPLITS
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
                self.reading.origins[part] = f"{node.path}/"
                self.classes.add(part, self.classes.unwrapped(node))
            for node in base.filled():
                if not any(id(below) in used for below in node.below()) and "train" in found:
                    self.reading.passed_over[node.path] = OTHER_SPLITS
        elif len(inside) >= 2:
            for part, path in named.items():
                self.reading.origins[part] = f"*/{path.strip('/')}/"
                self.reading.classes[part] = {child.find(path).path: self.classes.class_name(child) for child in inside}
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
        """Take for training all images outside `second`: class folders beside it, or other shares of the set."""
        others = [child for child in base.filled() if not any(node is second for node in child.below())]
        classes = {child.name for child in self.classes.unwrapped(second).filled()}
        if others and all(classes & {inner.name for inner in child.filled()} for child in others):
            for child in others:  # fold1/cat beside fold2/cat
                self.classes.add("train", child)
        elif classes and not classes & {child.name for child in others} and len(others) == 1:
            self.classes.add("train", self.classes.unwrapped(others[0]))
        else:
            self.reading.classes.setdefault("train", {}).update(
                {child.path: self.classes.class_name(child) for child in others}
            )

    def _rest_inside(self, child, named):
        used = {path.strip("/") for path in named.values()}
        for inner in child.filled():
            if inner.name in used:
                continue
            if "train" in named:
                self.reading.passed_over[inner.path] = MASKS if holds_masks(inner.name) else OTHER_SPLITS
            else:
                self.reading.classes.setdefault("train", {})[inner.path] = self.classes.class_name(child)

    def _parts(self, node):
        """Take folders like train/ and val/; returns whether there are such."""
        children = node.filled()
        parts = {}
        for child in children:
            if part := part_of(child.name):
                parts.setdefault(part, []).append(child)
        plain = {part: [c for c in found if is_plain_part(c.name)] or found for part, found in parts.items()}
        plain = {part: self.classes.without_masks(found) for part, found in plain.items()}
        first, second = plain.get("train", []), plain.get("val", []) + plain.get("test", [])
        if not first and not second:
            return False
        others = [child for child in children if child not in first + second + plain.get("other", [])]
        if not first:
            return self._only_second(node, second, others)
        if len(first) > 1:
            raise Question(
                f"{self.view.name} has several folders of training images: {shown(first)}; name one: training_dir."
            )
        train = self.classes.unwrapped(first[0])
        if not second and others and not self._says_classes(train):
            # Beside airplanes and buses, a train is a class.
            if len(others) >= 2 and is_plain_part(first[0].name) and train.own:
                return False
            if not is_plain_part(first[0].name):
                return False
        if not is_plain_part(first[0].name) and not second and others:
            return False
        self.reading.origins["train"] = f"{first[0].path}/"
        self.classes.add("train", train)
        self._add_second(second, train)
        for child in others + plain.get("other", []):
            if part_of(child.name) != "train" or child not in first:
                self.reading.passed_over[child.path] = MASKS if holds_masks(child.name) else OTHER_SPLITS
        return True

    def _add_second(self, second, train):
        """Take the validation part: `val` before `test`. A folder without classes is left out."""
        classes = {child.name for child in train.filled()}
        labeled = [child for child in second if self._says_classes(self.classes.unwrapped(child, classes), classes)]
        if self.recipe.classes_from == "table":
            labeled = second
        kinds = [part_of(child.name) for child in labeled]
        best = "val" if "val" in kinds else "test"
        if kinds.count(best) > 1:
            several = [child for child in labeled if part_of(child.name) == best]
            plain = [child for child in several if words(child.name) in ([best], ["valid"], ["validation"])]
            if len(plain) != 1:
                raise Question(
                    f"{self.view.name} has several folders of validation images: {shown(several)}; name one: "
                    "validation_dir."
                )
            labeled = [child for child in labeled if child not in several or child in plain]
        chosen = next((child for child in labeled if part_of(child.name) == best), None)
        for child in second:
            if child is not chosen:
                self.reading.passed_over[child.path] = OTHER_SPLITS
        if chosen is not None:
            self.reading.origins["val"] = f"{chosen.path}/"
            self.classes.add("val", self.classes.unwrapped(chosen, classes))

    def _only_second(self, node, second, others):
        """Take parts without a training folder: validation images alone, or with class folders beside them. A folder
        called `test` may also be a class."""
        if self.recipe.classes_from in ("folders", "subfolders"):
            return False
        if not others:
            self._add_second(second, node)
            return True
        labeled = [child for child in second if self._says_classes(self.classes.unwrapped(child))]
        names = {child.name for child in others}
        inner = [
            child
            for child in labeled
            if names & {grandchild.name for grandchild in self.classes.unwrapped(child).filled()}
        ]
        if inner:
            self.reading.classes["train"] = {child.path: self.classes.class_name(child) for child in others}
            self._add_second(second, node)
            return True
        plain = [child for child in second if is_plain_part(child.name)]
        if not plain:
            return False
        whole = self.classes.unwrapped(others[0])
        if len(others) == 1 and _has_training(whole) and self._parts(whole):
            for child in second:  # test/ beside set/train and set/val
                self.reading.passed_over[child.path] = OTHER_SPLITS
            return True
        if all(holds_images(child.name) or holds_masks(child.name) for child in others):
            return False  # images/ beside test/: a table may say more
        raise Question(
            f"{self.view.name} has the folders {shown(others + second)}. {plain[0].name} may be a part of the data set "
            "or a class. Decide by classes_from (folders: a class), or by training_dir and validation_dir."
        )

    def _says_classes(self, node, known=()):
        """Whether the folders in a part, or the names of its files, tell the classes."""
        inside = node.filled()
        if known and {child.name for child in inside} & set(known):
            return True
        if len(inside) >= 2 or (inside and node.name and not node.own):
            return True
        return self.classes.in_names(node) is not None


def _has_training(node):
    return any(part_of(child.name) == "train" and is_plain_part(child.name) for child in node.filled())
