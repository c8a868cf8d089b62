"""ImageNet's thousand classes."""

import csv
import functools
from pathlib import Path


@functools.cache
def names() -> dict[str, str]:
    """ImageNet's 1000 classes in the order that every published checkpoint has: WordNet id to WordNet's words."""
    with (Path(__file__).parent / "imagenet.csv").open(encoding="utf-8", newline="") as file:
        return {row["wnid"]: row["name"] for row in csv.DictReader(file)}


def class_display_name(class_name: str) -> str:
    """`"n01440764"` as `"tench"`; any other name as it is, and ids that ImageNet's thousand do not have.

    A bird and a machine are both called crane, and two garments maillot: they keep their ids.
    """
    if class_name not in names():
        return class_name
    word = names()[class_name].partition(",")[0]
    return f"{word} ({class_name})" if word in ("crane", "maillot") else word
