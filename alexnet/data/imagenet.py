"""ImageNet's thousand classes."""

import csv
import functools
from pathlib import Path


@functools.cache
def names() -> dict[str, str]:
    """`{WordNet id: WordNet's words}` of ImageNet's 1000 classes, in the order that every published checkpoint has."""
    with (Path(__file__).parent / "imagenet.csv").open(encoding="utf-8", newline="") as file:
        return {row["wnid"]: row["name"] for row in csv.DictReader(file)}


def class_display_name(class_name: str) -> str:
    """The word for an ImageNet class: `"tench"` for `"n01440764"`. Any other name is returned as it is.

    Two classes are called crane (a bird and a machine), and two maillot: these keep their ids.

    Examples:
        >>> alexnet.class_display_name("n01440764"), alexnet.class_display_name("ring")
        ('tench', 'ring')
    """
    if class_name not in names():
        return class_name
    word = names()[class_name].partition(",")[0]
    return f"{word} ({class_name})" if word in ("crane", "maillot") else word
