"""The result of inspecting a data set, for a person, a program or a browser to read."""

import html
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alexnet.atomic import atomic_write, write_list, write_text
from alexnet.data import contact_sheet
from alexnet.data.summary import Summary, printable

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
        summary: `Summary` of how `data_dir` was understood.
        sources: `{part: LabeledImages}`.
        problem: A sentence that says why a run could not train on it; None if it could.
        classes: `{class: {part: number of images}}`.
        unreadable: `{name: reason}` of folders that could not be listed, and of rows that have no image.
        sizes: `{"width" | "height" | "shorter side": (min, median, max)}` in pixels.
        measured: How many images `sizes` come from.
        decoded: How many images were decoded, including those that failed.
        damaged: `{name: reason}` of those that failed.
        expected_damaged: An estimate of how many of all images are damaged, from the sample of each part.
        exact: Groups of equal images, lists of `Member`: among all images, files that are equal byte for byte; among
            the decoded ones, central squares with the same pixels.
        compared_files: Whether files were compared; in some layouts only pixels are.
        near: Groups that look alike, as `group_similar` finds them. Of exact duplicates only the first is compared.
        compared: How many images were searched for near duplicates.
        not_compared: How many decoded images were left out of that search, because there were too many.
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
    compared: int
    not_compared: int

    @property
    def images(self) -> int:
        return sum(self.summary.images.values())

    def too_many_unreadable(self, max_skipped: float) -> str | None:
        """A sentence if a run would stop because of them, None if it would go on."""
        expected = len(self.unreadable) + self.expected_damaged
        if expected <= max_skipped * self.images and expected < self.images:
            return None
        name, reason = next(iter({**self.damaged, **self.unreadable}.items()), (self.summary.data_dir, "is empty"))
        about = "" if self.decoded == self.images else "about "
        limit = f", more than max_skipped ({max_skipped:g}) allows" if max_skipped < 1 else ""
        return f"{name} {reason}; in all, {about}{expected:,.0f} of {self.images:,} images cannot be read{limit}."

    def facts(self) -> Iterator[tuple[str, list[str]]]:
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
            equal = "; equal files are searched for among all" * self.compared_files
            lines = [f"{self.decoded:,} of {self.images:,} images{equal}", "the lines below are about these; see --all"]
            yield "decoded", lines
        yield "damaged", self._reasons(self.damaged) if self.damaged else ["none"]
        yield "exact duplicates", self._groups(self.exact, " = ")
        near = self._groups(self.near, " ~ ")
        if self.not_compared:
            near.append(f"{self.not_compared:,} images not compared, only the first {self.compared:,}")
        yield "near duplicates", near

    def _groups(self, groups, sign):
        if not groups:
            return ["none"]
        relations = ", ".join(f"{count:,} {relation}" for relation, count in count_relations(groups).items() if count)
        shown = [self._group(group, sign) for group in groups[:_SHOWN]]
        number = f"{len(groups):,} group{'s' * (len(groups) > 1)} of {sum(map(len, groups)):,} images"
        return [f"{number}: {relations}", *shown, *["..."] * (len(groups) > _SHOWN)]

    def _group(self, group, sign):
        """The members, each with its part and class; named once if all have the same. One of each is first."""
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

    def table(self) -> Iterator[list[str]]:
        """Rows of text: the headings, then each class with its number of images in each part."""
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

    def to_json(self) -> dict:
        """The same for programs, with more examples."""
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

    def write(self, folder: Path) -> None:
        """Write `contact_sheet.png`, `index.html`, and `duplicates.csv` and `passed_over.csv` if there is something to
        list. Files of an earlier inspection are replaced or removed."""
        folder.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet.draw(self.sources, self.classes)
        with atomic_write(folder / "contact_sheet.png") as path:
            sheet.image.save(path, "PNG")
        write_text(folder / "index.html", self._page(sheet.strips), "backslashreplace")
        kinds = [("exact", group) for group in self.exact] + [("near", group) for group in self.near]
        rows = ((number, kind, *member) for number, (kind, group) in enumerate(kinds, 1) for member in group)
        write_list(folder / "duplicates.csv", ["group", "kind", *Member._fields], rows)
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


def count_relations(groups: list[list[Member]]) -> dict[str, int]:
    """How many groups span parts, span classes, or do neither."""
    counts: Counter = Counter()
    for group in groups:
        counts.update(relations(group))
    return dict(counts)


def relations(group):
    """`{relation: whether it holds}` of a group of members."""
    parts, classes = ({getattr(member, field) for member in group} for field in ("part", "class_name"))
    return {
        "across parts": len(parts) > 1,
        "across classes": len(classes) > 1,
        "within a class of a part": len(parts) == len(classes) == 1,
    }


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
    """The value with the bytes of names that are not UTF-8 written out: not every program reads lone surrogates."""
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
