"""ImageNet's thousand classes, and the challenge's files as Kaggle ships them."""

import csv
import functools
import re
from pathlib import Path

MAPPING, SOLUTION, IMAGES = "LOC_synset_mapping.txt", "LOC_val_solution.csv", Path("ILSVRC", "Data", "CLS-LOC")


@functools.cache
def names():
    """ImageNet's 1000 classes in the order that every published checkpoint has: WordNet id to WordNet's words."""
    with (Path(__file__).parent / "imagenet.csv").open(encoding="utf-8", newline="") as file:
        return {row["wnid"]: row["name"] for row in csv.DictReader(file)}


def readable(class_name):
    """`"n01440764"` as `"tench"`; any other name as it is, and ids that ImageNet's thousand do not have.

    A bird and a machine are both called crane, and two garments maillot: they keep their ids.
    """
    if class_name not in names():
        return class_name
    word = names()[class_name].partition(",")[0]
    return f"{word} ({class_name})" if word in ("crane", "maillot") else word


def is_kaggle(folder):
    """Whether a folder is ImageNet as Kaggle ships it."""
    return (folder / MAPPING).is_file() and (folder / IMAGES).is_dir()


def read_mapping(folder):
    """The class ids in `LOC_synset_mapping.txt`, in its order."""
    lines = (folder / MAPPING).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def read_solution(folder):
    """File names without their endings and class ids from `LOC_val_solution.csv`, sorted by file."""
    with (folder / SOLUTION).open(encoding="utf-8", newline="") as file:
        rows = [(row["ImageId"], row["PredictionString"].split()[0]) for row in csv.DictReader(file)]
    for name, _ in rows:
        if not re.fullmatch(r"[\w-]+", name):  # it becomes part of a path
            raise ValueError(f"an ImageId that is no name: {name!r}")
    return sorted(rows)
