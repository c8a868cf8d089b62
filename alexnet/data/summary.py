"""How a data set was understood, in one line, so that a person can see a mistake."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.atomic import write_list
from alexnet.data.formats import NOT_READ
from alexnet.data.source import ENDING

_SHOWN = 5


def printable(text: str) -> str:
    """Text on one line, whatever file names it contains."""
    return text.encode(errors="backslashreplace").decode().replace("\n", "\\n")


def _by_ending(names):
    """`(reason, names)` of files with an extension that is not read. For images, the reason says what to do."""
    found = {ENDING: []}
    for name in names:
        ending = os.path.splitext(name)[1].lower()
        reason = f"{ending}: {NOT_READ[ending]}" if ending in NOT_READ else ENDING
        found.setdefault(reason, []).append(name)
    return [(reason, some) for reason, some in found.items() if some]


@dataclass(frozen=True)
class Summary:
    """How a `data_dir` was understood.

    Attributes:
        data_dir: As the user wrote it.
        layout: What was recognized.
        labels_from, paths_from: Where the classes come from, and the list of images.
        class_names: The classes of all parts.
        images: `{part: number of images}`.
        validation_from: Where the validation images come from.
        passed_over: `(reason, names)` of files that are not among the images.
        notes: Sentences on what was decided.
    """

    data_dir: str
    layout: str
    labels_from: str
    paths_from: str
    class_names: Sequence
    images: dict
    validation_from: str
    passed_over: tuple
    notes: tuple

    @classmethod
    def of(cls, data_dir: str, **sources: Any) -> "Summary":
        """The `Summary` of the sources of `training` and `validation`, or of `all` if there is one. None is ignored."""
        sources = {part: source for part, source in sources.items() if source is not None}
        first = next(iter(sources.values()))
        passed_over: dict = {}
        for source in sources.values():
            for reason, names in source.passed_over:
                for told, some in _by_ending(names) if reason == ENDING else [(reason, names)]:
                    passed_over.setdefault(told, {}).update(dict.fromkeys(some))
        return cls(
            str(data_dir),
            first.layout,
            first.labels_from,
            first.paths_from,
            first.class_names,
            {part: len(source) for part, source in sources.items()},
            next((source.origin for part, source in sources.items() if part != "training"), ""),
            tuple((reason, list(names)) for reason, names in passed_over.items()),
            tuple(dict.fromkeys(note for source in sources.values() for note in source.notes)),
        )

    @property
    def counts(self) -> dict[str, int]:
        """`{reason: number of files that were passed over}`."""
        return {reason: len(names) for reason, names in self.passed_over}

    def __str__(self):
        names = [str(name) for name in self.class_names]
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        labels = f" by {self.labels_from}" if self.labels_from else ""
        images = " and ".join(f"{count:,}{'' if part == 'all' else f' {part}'}" for part, count in self.images.items())
        parts = [self.layout, f"{len(names):,} classes{labels} ({shown})", f"{images} images"]
        if self.paths_from:
            parts.insert(1, f"images by {self.paths_from}")
        if self.validation_from:
            parts.append(f"validation: {self.validation_from}")
        if self.passed_over:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.items())
            parts.append(f"passed over: {counts}")
        return printable("; ".join([f"{self.data_dir}: {parts[0]}", *parts[1:], *self.notes]))

    def to_json(self) -> dict:
        """The values for `metrics.json`."""
        return {
            "labels_from": self.labels_from,
            "paths_from": self.paths_from,
            "validation_from": self.validation_from,
            "passed_over": self.counts,
            "notes": list(self.notes),
        }

    def write(self, path: str | os.PathLike) -> None:
        """Write the files that were passed over as CSV, `file,reason`. If there are none, there is no such file."""
        rows = ((name, reason) for reason, names in self.passed_over for name in names)
        write_list(path, ["file", "reason"], rows)
