"""A few images of each class in one picture."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet.data.errors import ImageError
from alexnet.data.source import LabeledImages, common_size
from alexnet.data.summary import printable

MOST = 1000  # classes that are shown
_TILE, _GAP, _LABEL, _WIDTH = 72, 4, 20, 1600


@dataclass(frozen=True)
class ContactSheet:
    """A picture, and where each class is in it.

    Attributes:
        image: A PIL image.
        strips: `{class: (x, y, width, height)}` in pixels, without the class's name; the first `MOST` classes.
    """

    image: Image.Image
    strips: dict


def draw(sources: dict[str, LabeledImages], class_names: Iterable[str]) -> ContactSheet:
    """A `ContactSheet`: two to eight images of each class, fewer if there are many classes. Damaged: a red cross.

    Args:
        sources: `{part: LabeledImages}`. A class is shown from the first part that has images of it.
        class_names: The classes of all parts.
    """
    class_names = list(class_names)[:MOST]
    each = 8 if len(class_names) <= 40 else 4 if len(class_names) <= 200 else 2
    width, height = each * (_TILE + _GAP) - _GAP, _LABEL + _TILE
    columns = max(1, min(_WIDTH // (width + 3 * _GAP), len(class_names)))
    rows = max(1, -(-len(class_names) // columns))
    across, down = width + 3 * _GAP, height + 3 * _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    strips = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda name: _images(sources, name, each), class_names)
        for number, (name, images) in enumerate(zip(class_names, found, strict=True)):
            x, y = 2 * _GAP + number % columns * across, _GAP + number // columns * down
            _write_name(pen, (x, y), printable(str(name)), width, font)
            strips[name] = (x, y + _LABEL, width, _TILE)
            for place, image in enumerate(images):
                corner = x + place * (_TILE + _GAP), y + _LABEL
                if isinstance(image, ImageError):
                    box = (*corner, corner[0] + _TILE - 1, corner[1] + _TILE - 1)
                    pen.rectangle(box, outline="red")
                    pen.line(box, fill="red")
                    pen.line((box[0], box[3], box[2], box[1]), fill="red")
                else:
                    sheet.paste(Image.fromarray(image).resize((_TILE, _TILE)), corner)
    return ContactSheet(sheet, strips)


def _images(sources, class_name, count):
    """Up to `count` images of a class, spread evenly from its first to its last."""
    size = common_size(sources.values(), _TILE)
    for source in sources.values():
        if class_name in source.class_names:
            members = np.flatnonzero(source.labels == source.class_names.index(class_name))
            if len(members):
                return source.images(members[np.unique(np.linspace(0, len(members) - 1, count).astype(int))], size)
    return []


def _write_name(pen, corner, text, width, font):
    """Write a class's name, shortened to the width of its images."""
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType has Latin letters only
        text = text.encode("latin-1", "replace").decode("latin-1")
    shown = text = text[:200]
    while text and pen.textlength(shown, font=font) > width:
        text = text[:-1]
        shown = text + "..."
    pen.text(corner, shown, fill="black", font=font)
