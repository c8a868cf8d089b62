"""A data set in numbers and pictures: images a class, sizes, duplicates, a contact sheet."""

import csv
import hashlib
import html
import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet.data.decoding import ImageError
from alexnet.data.sources import find_parts
from alexnet.data.summary import Summary, printable
from alexnet.progress import track

SAMPLE, MEASURED = 2000, 500  # images that are decoded, and whose headers are read
NEAR_LIMIT = 100_000  # every image is compared with every other one: more would take hours
SMALL, LARGE = 16, 128  # pixels a side of the squares that are compared
HASH_BITS, LEVELS = 6, 4.0  # two images are near duplicates if no more differs: bits of 64, grey levels on average
_SHOWN, _LISTED = 5, 100  # examples in the report, and in JSON


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        summary: `Summary` of what `data_dir` was taken for.
        sources: `{part: Source}`.
        why_not: Why nobody could train on it, a sentence; None if one can.
        classes: `{class: {part: number of images}}`.
        unreadable: `{name: reason}` of folders that could not be listed, and of rows that lead to no image.
        sizes: `{"width" | "height" | "shorter side": (min, median, max)}` in pixels.
        measured: How many images' headers `sizes` come from.
        decoded: How many images were decoded, or tried.
        damaged: `{name: reason}` of those that cannot be.
        exact: Groups of `Member` whose central squares have the same pixels.
        near: Pairs of `Member` that look alike; of a group of exact duplicates its first member stands for all.
        not_compared: How many decoded images were too many to be compared for near duplicates.
    """

    summary: Summary
    sources: dict
    why_not: str | None
    classes: dict
    unreadable: dict
    sizes: dict
    measured: int
    decoded: int
    damaged: dict
    exact: list
    near: list
    not_compared: int

    @property
    def images(self):
        return sum(self.summary.images.values())

    def too_many_unreadable(self, max_skipped):
        """The sentence that says so, None if a run would go on. The decoded images stand for the others."""
        expected = len(self.unreadable) + len(self.damaged) * self.images / max(1, self.decoded)
        if expected <= max_skipped * self.images and expected < self.images:
            return None
        name, reason = next(iter({**self.damaged, **self.unreadable}.items()), (self.summary.data_dir, "is empty"))
        about = "" if self.decoded == self.images else "about "
        return (
            f"{name} {reason}; with it {about}{expected:,.0f} of {self.images:,} images cannot be read, "
            f"more than max_skipped ({max_skipped:g}) allows."
        )

    def facts(self):
        """`(what, lines)` for a person to read."""
        summary = self.summary
        names = [str(name) for name in self.classes]
        yield "data_dir", [summary.data_dir]
        yield "layout", [summary.layout]
        yield "classes", [f"{len(names):,}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"]
        for what, value in (("labels from", summary.labels_from), ("images from", summary.paths_from)):
            if value:
                yield what, [value]
        yield (
            "images",
            [", ".join(f"{count:,}{'' if part == 'all' else ' ' + part}" for part, count in summary.images.items())],
        )
        if summary.validation_from:
            yield "validation from", [summary.validation_from]
        passed = [f"{len(names):,} {reason}: {self._some(names)}" for reason, names in summary.passed_over]
        yield "passed over", passed or ["nothing"]
        if self.unreadable:
            yield "unreadable", _counted(self.unreadable)
        if summary.notes:
            yield "notes", list(summary.notes)
        if self.why_not:
            yield "no training", [self.why_not]
        for what, (low, median, high) in self.sizes.items():
            yield what, [f"{low:,} to {high:,} pixels, median {median:,} ({self.measured:,} images)"]
        rest = "" if self.decoded == self.images else "; the following is of these only, --all looks at all"
        yield "decoded", [f"{self.decoded:,} of {self.images:,} images{rest}"]
        if self.damaged:
            yield "damaged", _counted(self.damaged)
        yield "same pixels", self._duplicates(self.exact, "groups", " = ")
        near = self._duplicates(self.near, "pairs", " ~ ")
        if self.not_compared:
            near.append(f"{self.not_compared:,} images not compared: no more than {NEAR_LIMIT:,} are")
        yield "look alike", near

    def _duplicates(self, groups, unit, sign):
        if not groups:
            return ["none"]
        counts = relations(groups)
        told = ", ".join(f"{count:,} {relation}" for relation, count in counts.items() if count)
        shown = [sign.join(self._shown(member) for member in group[:_SHOWN]) for group in groups[:_SHOWN]]
        return [f"{len(groups):,} {unit}: {told}", *shown, *["..."] * (len(groups) > _SHOWN)]

    def _shown(self, member):
        part = "" if member.part == "all" else f"{member.part} "
        return f"{part}{member.class_name}: {self._short(member.name)}"

    def _some(self, names):
        return ", ".join(map(self._short, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")

    def _short(self, name):
        return name.removeprefix(self.summary.data_dir.rstrip(os.sep) + os.sep)

    def table(self):
        """Rows of text, the first one of headings: each class and its images of each part."""
        parts = list(self.sources)
        yield ["class", *("images" if part == "all" else part for part in parts)]
        for name, counts in self.classes.items():
            yield [str(name), *(f"{counts[part]:,}" for part in parts)]

    def __str__(self):
        lines = []
        for what, values in self.facts():
            for title, value in zip(itertools.chain([what], itertools.repeat("")), values, strict=False):
                lines.append(f"{title:<16}{printable(value)}")
        rows = [[printable(cell) for cell in row] for row in self.table()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append("")
        for name, *counts in rows:
            cells = (f"{count:>{width}}" for count, width in zip(counts, widths[1:], strict=True))
            lines.append("  ".join([f"{name:<{widths[0]}}", *cells]))
        return "\n".join(lines)

    def to_json(self):
        summary = self.summary
        return {
            "data_dir": summary.data_dir,
            "layout": summary.layout,
            "labels_from": summary.labels_from,
            "paths_from": summary.paths_from,
            "validation_from": summary.validation_from,
            "notes": list(summary.notes),
            "why_not": self.why_not,
            "images": summary.images,
            "classes": {str(name): counts for name, counts in self.classes.items()},
            "passed_over": {
                reason: {"count": len(names), "first": list(names[:_SHOWN])} for reason, names in summary.passed_over
            },
            "unreadable": _first(self.unreadable),
            "sizes": {
                "images": self.measured,
                **{
                    what.replace(" ", "_"): dict(zip(("min", "median", "max"), values, strict=True))
                    for what, values in self.sizes.items()
                },
            },
            "decoded": self.decoded,
            "damaged": _first(self.damaged),
            "duplicates": {
                "exact": _groups_to_json(self.exact),
                "near": {**_groups_to_json(self.near), "not_compared": self.not_compared},
            },
        }

    def write(self, folder):
        """`contact_sheet.png`, `index.html`, and, where there are any, `duplicates.csv` and `passed_over.csv`."""
        folder.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet(self.sources, list(self.classes))
        _replace(folder / "contact_sheet.png", lambda path: sheet.save(path, "PNG"))
        _replace(folder / "index.html", lambda path: path.write_text(self._page(), "utf-8", "backslashreplace"))
        if self.exact or self.near:
            _replace(folder / "duplicates.csv", self._write_duplicates)
        self.summary.write(folder / "passed_over.csv")

    def _write_duplicates(self, path):
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["group", "kind", *Member._fields])
            kinds = [("exact", group) for group in self.exact] + [("near", pair) for pair in self.near]
            for number, (kind, group) in enumerate(kinds, 1):
                writer.writerows((number, kind, *member) for member in group)

    def _page(self):
        facts = "".join(
            f"<tr><th>{_escaped(what)}<td>{'<br>'.join(map(_escaped, values))}</tr>\n" for what, values in self.facts()
        )
        head, *rows = self.table()
        rows = ["".join(f"<td>{_escaped(cell)}" for cell in row) for row in rows]
        classes = "".join(f"<tr>{row}</tr>\n" for row in ["".join(f"<th>{_escaped(cell)}" for cell in head), *rows])
        return _PAGE.format(title=_escaped(self.summary.data_dir), facts=facts, classes=classes)


class Member(NamedTuple):
    """One of several images that are alike."""

    part: str
    class_name: str
    name: str


def inspect(recipe, decode_all=False, verbose=None):
    """Look at whatever lies in a recipe's `data_dir`, also where nobody could train on it.

    A sample of images is decoded, as many of each part where it has them.

    Args:
        recipe: Of its fields those that say what `data_dir` is taken for matter, how images are held out, and `seed`,
            which draws the sample.
        decode_all: Whether every image is decoded instead.
        verbose: As `progress.track` takes it.

    Raises:
        DataError: nothing there that could be understood.
    """
    sources, why_not = find_parts(recipe)
    sample = _sample(sources, None if decode_all else SAMPLE, recipe.seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes, measured = _sizes(sources, _sample(sources, MEASURED, recipe.seed), pool)
        images, damaged = _decode(sources, sample, pool, verbose)
        exact, firsts = _exact(sources, images, pool)
    compared = firsts[:NEAR_LIMIT]
    hashes = np.array([difference_hash(images.squares[place]) for place in compared], np.uint64)
    near = [compared[pair].tolist() for pair in near_pairs(hashes, images.squares[compared])]

    def members(groups):
        found = [[_member(sources, images.places[place]) for place in group] for group in groups]
        return sorted(
            found, key=lambda group: (len({m.part for m in group}) < 2, len({m.class_name for m in group}) < 2)
        )

    return Inspection(
        Summary.of(recipe.data_dir, **sources),
        sources,
        why_not,
        _count_classes(sources),
        dict(row for source in sources.values() for row in source.unreadable),
        sizes,
        measured,
        sum(map(len, sample.values())),
        damaged,
        members(exact),
        members(near),
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


# --- Looking


def _sample(sources, count, seed):
    """`{part: places}` of `count` images, drawn and in order; the same number of each part where it has so many."""
    rng, found = np.random.default_rng(seed), {}
    left = sum(map(len, sources.values())) if count is None else count
    smallest_first = sorted(sources, key=lambda part: len(sources[part]))
    for waiting, part in zip(range(len(sources), 0, -1), smallest_first, strict=True):
        length = len(sources[part])
        share = length if count is None else min(length, left // waiting)
        found[part] = np.sort(rng.choice(length, share, replace=False)) if share < length else np.arange(length)
        left -= share
    return {part: found[part] for part in sources}


def _sizes(sources, sample, pool):
    """`(sizes, images)` as `Inspection` has them; damaged images are not counted."""

    def measure(task):
        part, place = task
        source = sources[part]
        try:
            return source.store.image_size(source.indices[place])
        except ImageError:
            return None

    found = pool.map(measure, [(part, place) for part, places in sample.items() for place in places])
    sizes = np.array([size for size in found if size is not None], int).reshape(-1, 2)
    if not len(sizes):
        return {}, 0
    columns = {"width": sizes[:, 0], "height": sizes[:, 1], "shorter side": sizes.min(axis=1)}
    return {
        what: (int(values.min()), int(np.median(values)), int(values.max())) for what, values in columns.items()
    }, len(sizes)


class _Decoded(NamedTuple):
    """Small squares `(n, SMALL, SMALL, 3)` uint8, and `(part, place)` of each."""

    squares: np.ndarray
    places: list


def _decode(sources, sample, pool, verbose):
    """`_Decoded` of a sample, and `{name: reason}` of what cannot be decoded."""
    size = _size(sources, SMALL)
    tasks = [
        (part, places[first : first + 32]) for part, places in sample.items() for first in range(0, len(places), 32)
    ]
    total = sum(map(len, sample.values()))
    squares, kept, damaged = np.empty((total, size, size, 3), np.uint8), [], {}

    def images():
        found = pool.map(lambda task: sources[task[0]].squares(task[1], size), tasks)
        for (part, places), batch in zip(tasks, found, strict=True):
            yield from ((part, place, square) for place, square in zip(places.tolist(), batch, strict=True))

    for part, place, square in track(images(), total, "looking at images", verbose):
        if isinstance(square, ImageError):
            damaged[square.name] = square.reason
        else:
            squares[len(kept)] = square
            kept.append((part, place))
    return _Decoded(squares[: len(kept)], kept), damaged


def _size(sources, wanted):
    """Side of squares that every part has."""
    return min([wanted, *(source.store.size for source in sources.values() if source.store.size is not None)])


def _member(sources, place):
    part, index = place
    source = sources[part]
    return Member(part, str(source.class_names[source.labels[index]]), source.name(index))


# --- Duplicates


def _exact(sources, images, pool):
    """`(groups, firsts)`: places of images with the same pixels, and one place of each image that differs.

    Small squares only propose: a plain one may hide a small difference, so larger ones decide.
    """
    size = _size(sources, LARGE)

    def digest(place):
        part, index = images.places[place]
        square = sources[part].squares(np.array([index]), size)[0]
        # An image that was there a moment ago and is no longer is equal to no other.
        return place if isinstance(square, ImageError) else hashlib.sha256(square.tobytes()).digest()

    groups, firsts = [], []
    for group in _alike(range(len(images.places)), (hashlib.sha256(s.tobytes()).digest() for s in images.squares)):
        same = [group] if len(group) == 1 else _alike(group, pool.map(digest, group))
        firsts += [members[0] for members in same]
        groups += [members for members in same if len(members) > 1]
    return groups, np.sort(np.array(firsts, int))


def _alike(members, keys):
    """Lists of members with the same key."""
    found = {}
    for member, key in zip(members, keys, strict=True):
        found.setdefault(key, []).append(member)
    return list(found.values())


def difference_hash(square):
    """64 bits of a square: whether each of 8 x 8 places is darker than the next one on its right."""
    grey = np.asarray(Image.fromarray(square).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes())


def near_pairs(hashes, squares):
    """Pairs `(n, 2)` of places whose hashes differ in `HASH_BITS` at most, and pixels in `LEVELS` on average.

    The hash finds them, the pixels decide: hashes of plain and of line drawings are often alike.

    Args:
        hashes: uint64 `(m,)`.
        squares: uint8 `(m, size, size, 3)`.
    """
    found = [np.empty((0, 2), int)]
    means = squares.mean(axis=(1, 2), dtype=np.float32)
    rows = max(1, 2**22 // max(1, len(hashes)))
    for first in range(0, len(hashes), rows):
        block = hashes[first : first + rows]
        left, right = np.nonzero(np.bitwise_count(block[:, None] ^ hashes[None, first:]) <= HASH_BITS)
        left, right = left[left < right] + first, right[left < right] + first
        # Averages cannot be further apart than pixels are.
        close = np.abs(means[left] - means[right]).mean(axis=1) <= LEVELS
        left, right = left[close], right[close]
        for start in range(0, len(left), 4096):
            pair = left[start : start + 4096], right[start : start + 4096]
            difference = np.abs(squares[pair[0]].astype(np.int16) - squares[pair[1]]).mean(axis=(1, 2, 3))
            found.append(np.stack(pair, axis=1)[difference <= LEVELS])
    return np.concatenate(found)


def relations(groups):
    """How many groups of members lie across parts, across classes, or in neither sense."""
    counts = Counter()
    for group in groups:
        parts, classes = ({getattr(member, field) for member in group} for field in ("part", "class_name"))
        counts["across parts"] += len(parts) > 1
        counts["across classes"] += len(classes) > 1
        counts["within a class of a part"] += len(parts) == len(classes) == 1
    return counts


# --- Showing

_TILE, _GAP, _LABEL, _WIDTH = 64, 4, 18, 1600


def contact_sheet(sources, class_names):
    """A PIL image with a few images of each class: eight of few classes, two of many."""
    each = 8 if len(class_names) <= 40 else 4 if len(class_names) <= 200 else 2
    strip, height = each * (_TILE + _GAP) + 2 * _GAP, _LABEL + _TILE + 2 * _GAP
    columns = min(max(1, _WIDTH // strip), max(1, len(class_names)))
    sheet = Image.new("RGB", (columns * strip, -(-len(class_names) // columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    size = _size(sources, _TILE)

    def pictures(name):
        for source in sources.values():
            if name in labels[id(source)]:
                members = np.flatnonzero(source.labels == labels[id(source)][name])
                if len(members):
                    return source.squares(members[np.unique(np.linspace(0, len(members) - 1, each).astype(int))], size)
        return []

    labels = {id(source): {name: k for k, name in enumerate(source.class_names)} for source in sources.values()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (name, found) in enumerate(zip(class_names, pool.map(pictures, class_names), strict=True)):
            x, y = number % columns * strip + _GAP, number // columns * height + _GAP
            _draw_label(draw, (x, y), printable(str(name)), strip - 2 * _GAP, font)
            for place, square in enumerate(found):
                corner = x + place * (_TILE + _GAP), y + _LABEL - _GAP
                if isinstance(square, ImageError):  # a crossed frame
                    box = (*corner, corner[0] + _TILE - 1, corner[1] + _TILE - 1)
                    draw.rectangle(box, outline="red")
                    draw.line(box, fill="red")
                else:
                    sheet.paste(Image.fromarray(square).resize((_TILE, _TILE)), corner)
    return sheet


def _draw_label(draw, corner, text, width, font):
    """A class's name, cut where the strip ends."""
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType has Latin letters only
        text = text.encode("latin-1", "replace").decode("latin-1")
    text = text[:200]
    while text and draw.textlength(text, font=font) > width:
        text = text[:-1]
    draw.text(corner, text, fill="black", font=font)


def _counted(reasons):
    shown = [f"{name} {reason}" for name, reason in itertools.islice(reasons.items(), _SHOWN)]
    return [f"{len(reasons):,}", *shown, *["..."] * (len(reasons) > _SHOWN)]


def _first(reasons):
    first = [{"file": name, "reason": reason} for name, reason in itertools.islice(reasons.items(), _LISTED)]
    return {"count": len(reasons), "first": first}


def _groups_to_json(groups):
    return {
        "count": len(groups),
        **{relation.replace(" ", "_"): count for relation, count in relations(groups).items()},
        "first": [[member._asdict() for member in group[:_LISTED]] for group in groups[:_LISTED]],
    }


def _escaped(text):
    return html.escape(printable(text))


def _replace(path, write):
    """A file that is whole or not there."""
    unfinished = path.with_name(path.name + ".tmp")
    write(unfinished)
    os.replace(unfinished, path)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ font: 14px/1.5 system-ui, sans-serif; color: #202124; margin: 2rem; }}
  table {{ border-collapse: collapse; margin: 0 0 2rem; }}
  th, td {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #e8eaed; }}
  img {{ max-width: 100%; }}
</style>
<h1>{title}</h1>
<table>
{facts}</table>
<img src="contact_sheet.png" alt="A few images of each class">
<table>
{classes}</table>
</html>
"""
