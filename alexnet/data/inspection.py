"""A data set in numbers and pictures: images of each class and part, sizes, duplicates, a contact sheet."""

import hashlib
import html
import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alexnet.data import contact_sheet
from alexnet.data.duplicates import SIDE, group_equal, group_similar, join_groups, thumbnail
from alexnet.data.errors import ImageError
from alexnet.data.readers import find_parts
from alexnet.data.source import common_size
from alexnet.data.summary import Summary, printable
from alexnet.progress import progress
from alexnet.replacing import replace_list, replace_text, replacing

SAMPLE, MEASURED = 2000, 500  # images that are decoded, and whose headers are read
COMPARED = 100_000  # images in which near duplicates are looked for: every one is compared with every other one
_SIZE = 128  # of the images that are decoded; of exact duplicates they are the same
_SHOWN, _LISTED = 5, 100  # examples in the report, and in JSON


class Member(NamedTuple):
    """One of several images that are alike."""

    part: str
    class_name: str
    name: str


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        summary: `Summary` of what `data_dir` was taken for.
        sources: `{part: LabeledImages}`.
        problem: Why nobody could train on it, a sentence; None if one can.
        classes: `{class: {part: number of images}}`.
        unreadable: `{name: reason}` of folders that could not be listed, and of rows that lead to no image.
        sizes: `{"width" | "height" | "shorter side": (min, median, max)}` in pixels.
        measured: How many images `sizes` come from.
        decoded: How many images were decoded, or tried.
        damaged: `{name: reason}` of those that cannot be.
        expected_damaged: How many of all images that makes: those of a part stand for the whole part.
        exact: Groups, lists of `Member`, of the same image: files that are equal byte for byte, of all, and central
            squares with the same pixels, of those decoded.
        compared_files: Whether files were compared; of some layouts only pixels are.
        near: Groups that look alike, as `group_similar` finds them. The first one of exact duplicates stands for all.
        not_compared: How many of the decoded images were too many to look for near duplicates.
    """

    summary: Summary
    sources: dict
    problem: str | None
    classes: dict
    unreadable: dict
    sizes: dict
    measured: int
    decoded: int
    damaged: dict
    expected_damaged: float
    exact: list
    compared_files: bool
    near: list
    not_compared: int

    @property
    def images(self):
        return sum(self.summary.images.values())

    def too_many_unreadable(self, max_skipped):
        """The sentence that says so, None if a run would go on."""
        expected = len(self.unreadable) + self.expected_damaged
        if expected <= max_skipped * self.images and expected < self.images:
            return None
        name, reason = next(iter({**self.damaged, **self.unreadable}.items()), (self.summary.data_dir, "is empty"))
        about = "" if self.decoded == self.images else "about "
        limit = f", more than max_skipped ({max_skipped:g}) allows" if max_skipped < 1 else ""
        return f"{name} {reason}; with it {about}{expected:,.0f} of {self.images:,} images cannot be read{limit}."

    def facts(self):
        """`(what, lines)` for a person to read."""
        summary = self.summary
        names = [str(name) for name in self.classes]
        yield "data_dir", [summary.data_dir]
        if self.problem:
            yield "problem", [self.problem]
        yield "layout", [summary.layout]
        yield "classes", [f"{len(names):,}: {_few(names)}"]
        for what, value in (("labels from", summary.labels_from), ("images from", summary.paths_from)):
            if value:
                yield what, [value]
        parts = (f"{count:,}{'' if part == 'all' else ' ' + part}" for part, count in summary.images.items())
        yield "images", [", ".join(parts)]
        if summary.validation_from:
            yield "validation from", [summary.validation_from]
        passed = [f"{len(names):,} {reason}: {_few(map(self._short, names))}" for reason, names in summary.passed_over]
        yield "passed over", passed or ["nothing"]
        if self.unreadable:
            yield "unreadable", self._reasons(self.unreadable)
        if summary.notes:
            yield "notes", list(summary.notes)
        if self.sizes:
            lines = [f"{what} {low:,} to {high:,}, median {mid:,}" for what, (low, mid, high) in self.sizes.items()]
            yield "pixels", [*lines, f"of {self.measured:,} images"]
        if self.decoded == self.images:
            yield "decoded", [f"all {self.images:,} images"]
        else:
            equal = "; files that are equal are looked for among all" * self.compared_files
            lines = [f"{self.decoded:,} of {self.images:,} images{equal}", "the rest is about these: --all decodes all"]
            yield "decoded", lines
        yield "damaged", self._reasons(self.damaged) if self.damaged else ["none"]
        yield "exact duplicates", self._groups(self.exact, " = ")
        near = self._groups(self.near, " ~ ")
        if self.not_compared:
            near.append(f"{self.not_compared:,} images not compared: only the first {COMPARED:,} are")
        yield "near duplicates", near

    def _groups(self, groups, sign):
        if not groups:
            return ["none"]
        relations = ", ".join(f"{count:,} {relation}" for relation, count in count_relations(groups).items() if count)
        shown = [self._group(group, sign) for group in groups[:_SHOWN]]
        number = f"{len(groups):,} group{'s' * (len(groups) > 1)} of {sum(map(len, groups)):,} images"
        return [f"{number}: {relations}", *shown, *["..."] * (len(groups) > _SHOWN)]

    def _group(self, group, sign):
        """Members, each with its part and class, or both said once where they are the same. First one of each."""
        kinds = {(member.part, member.class_name): member for member in reversed(group)}
        group = list(dict.fromkeys([*reversed(kinds.values()), *group]))
        names = [self._short(member.name) for member in group]
        where = [f"{'' if member.part == 'all' else f'{member.part} '}{member.class_name}: " for member in group]
        if len(set(where)) == 1:
            return where[0] + _few(names, sign)
        return _few(map("".join, zip(where, names, strict=True)), sign)

    def _reasons(self, reasons):
        shown = [f"{self._short(name)} {reason}" for name, reason in itertools.islice(reasons.items(), _SHOWN)]
        return [f"{len(reasons):,}: {shown[0]}", *shown[1:], *["..."] * (len(reasons) > _SHOWN)]

    def _short(self, name):
        return name.removeprefix(self.summary.data_dir.rstrip(os.sep) + os.sep)

    def table(self):
        """Rows of text, the first one of headings: each class and its images of each part."""
        yield ["class", *("images" if part == "all" else part for part in self.sources)]
        for name, counts in self.classes.items():
            yield [str(name), *(f"{counts[part]:,}" for part in self.sources)]

    def __str__(self):
        lines = []
        for what, values in self.facts():
            for title, value in zip(itertools.chain([what], itertools.repeat("")), values, strict=False):
                lines.append(f"{title:<18}{printable(value)}")
        rows = [[printable(cell) for cell in row] for row in self.table()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append("")
        for name, *counts in rows:
            cells = (f"{count:>{width}}" for count, width in zip(counts, widths[1:], strict=True))
            lines.append("  ".join([f"{name:<{widths[0]}}", *cells]))
        return "\n".join(lines)

    def to_json(self):
        """For programs: the same, with more examples."""
        summary = self.summary
        return _encodable(
            {
                "data_dir": summary.data_dir,
                "problem": self.problem,
                "layout": summary.layout,
                "labels_from": summary.labels_from,
                "paths_from": summary.paths_from,
                "validation_from": summary.validation_from,
                "images": summary.images,
                "classes": {str(name): counts for name, counts in self.classes.items()},
                "passed_over": {
                    reason: {"count": len(names), "first": list(names[:_LISTED])}
                    for reason, names in summary.passed_over
                },
                "unreadable": _first(self.unreadable),
                "notes": list(summary.notes),
                "sizes": {
                    "images": self.measured,
                    **{
                        what.replace(" ", "_"): dict(zip(("min", "median", "max"), values, strict=True))
                        for what, values in self.sizes.items()
                    },
                },
                "decoded": self.decoded,
                "damaged": {**_first(self.damaged), "expected_of_all": round(self.expected_damaged)},
                "duplicates": {
                    "exact": _groups_to_json(self.exact),
                    "near": {**_groups_to_json(self.near), "not_compared": self.not_compared},
                },
            }
        )

    def write(self, folder):
        """`contact_sheet.png`, `index.html`, and, where there is something to list, `duplicates.csv` and
        `passed_over.csv`; those of an earlier inspection are replaced or removed."""
        folder.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet.draw(self.sources, self.classes)
        with replacing(folder / "contact_sheet.png") as path:
            sheet.image.save(path, "PNG")
        replace_text(folder / "index.html", self._page(sheet.strips), "backslashreplace")
        kinds = [("exact", group) for group in self.exact] + [("near", group) for group in self.near]
        rows = ((number, kind, *member) for number, (kind, group) in enumerate(kinds, 1) for member in group)
        replace_list(folder / "duplicates.csv", ["group", "kind", *Member._fields], rows)
        self.summary.write(folder / "passed_over.csv")

    def _page(self, strips):
        facts = "".join(
            f"<tr><th>{_escape(what)}<td>{'<br>'.join(map(_escape, values))}\n" for what, values in self.facts()
        )
        head, *rows = self.table()
        heads = "".join(f'<th class="count">{_escape(part)}' for part in head[1:])
        classes = [f"<tr><th>{_escape(head[0])}{heads}<th>\n"]
        for (name, *counts), key in zip(rows, self.classes, strict=True):
            cells = "".join(f'<td class="count">{count}' for count in counts)
            strip = ""
            if key in strips:
                x, y, width, height = strips[key]
                strip = f'<div style="width:{width}px;height:{height}px;background-position:{-x}px {-y}px"></div>'
            classes.append(f"<tr><td>{_escape(name)}{cells}<td>{strip}\n")
        title = os.path.basename(self.summary.data_dir.rstrip(os.sep)) or self.summary.data_dir
        return _PAGE.format(title=_escape(title), facts=facts, classes="".join(classes))


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

    Example:
        >>> print(inspect(Recipe(data_dir="pets")))
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
        return sorted(found, key=lambda group: [not crosses for crosses in _relations(group).values()])

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
        len(firsts) - len(compared),
    )


def count_relations(groups):
    """How many groups lie across parts, across classes, or in neither sense."""
    counts = Counter()
    for group in groups:
        counts.update(_relations(group))
    return dict(counts)


def _relations(group):
    """`{relation: whether it holds}` of a group of members."""
    parts, classes = ({getattr(member, field) for member in group} for field in ("part", "class_name"))
    return {
        "across parts": len(parts) > 1,
        "across classes": len(classes) > 1,
        "within a class of a part": len(parts) == len(classes) == 1,
    }


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


def _measure(sources, sample, pool):
    """`(sizes, images)` as `Inspection` has them; what cannot be read is not counted."""

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
    """Of each image `(part, place)` and a digest of its pixels, and the thumbnails of the first `COMPARED`."""

    places: list
    digests: list
    thumbnails: np.ndarray


def _decode(sources, sample, pool, verbose):
    """`_Decoded` of a sample, and `{part: {name: reason}}` of what cannot be decoded."""
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
    """Groups of `(part, place)` of files that are equal byte for byte. Only those with equal marks are read whole."""

    def mark(place):
        return _tried(place, lambda reader, index: reader.mark(index))

    def digest(place):
        return _tried(place, lambda reader, index: hashlib.sha256(reader.read(index)).digest())

    def _tried(place, function):
        source = sources[place[0]]
        try:
            return function(source.reader, source.indices[place[1]])
        except (ImageError, OSError):
            return place  # equal to no other one

    places = [
        (part, place) for part, source in sources.items() if source.reader.has_marks for place in range(len(source))
    ]
    groups = [group for group in group_equal(places, pool.map(mark, places)) if len(group) > 1]
    places = [place for group in groups for place in group]
    return [group for group in group_equal(places, pool.map(digest, places)) if len(group) > 1]


def _member(sources, part, place):
    source = sources[part]
    return Member(part, str(source.class_names[source.labels[place]]), source.name(place))


# --- Showing


def _few(texts, separator=", "):
    texts = list(itertools.islice(texts, _SHOWN + 1))
    return separator.join(texts[:_SHOWN] + ["..."] * (len(texts) > _SHOWN))


def _first(reasons):
    first = [{"file": name, "reason": reason} for name, reason in itertools.islice(reasons.items(), _LISTED)]
    return {"count": len(reasons), "first": first}


def _groups_to_json(groups):
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        **{relation.replace(" ", "_"): count for relation, count in count_relations(groups).items()},
        "first": [[member._asdict() for member in group[:_LISTED]] for group in groups[:_LISTED]],
    }


def _encodable(value):
    """The same, where names that are no UTF-8 have their bytes written out: not every program reads lone surrogates."""
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _escape(text):
    return html.escape(printable(text))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 15px/1.5 system-ui, sans-serif; color: #202124; margin: 2rem auto; padding: 0 1rem; max-width: 72rem; }}
  h1 {{ font-size: 1.6rem; }}
  table {{ border-collapse: collapse; margin: 0 0 2.5rem; }}
  th, td {{ text-align: left; vertical-align: top; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid #e8eaed; }}
  th {{ font-weight: 600; white-space: nowrap; }}
  td {{ overflow-wrap: anywhere; min-width: 5rem; }}
  .classes td {{ vertical-align: middle; }}
  th.count, .count {{ text-align: right; font-variant-numeric: tabular-nums; }}
  div {{ background-image: url(contact_sheet.png); }}
</style>
<h1>{title}</h1>
<table>
{facts}</table>
<table class="classes">
{classes}</table>
</html>
"""
