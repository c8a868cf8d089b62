"""The frame of every notebook: who it is for, its versions, exercises and their solutions."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
ITEM = re.compile(r"^\*\*(\d)\. (\w+)\.\*\* ", flags=re.MULTILINE)

pytestmark = pytest.mark.once


def cells(path):
    return [cell.source for cell in nbformat.read(path, 4).cells]


@pytest.mark.parametrize("solutions", SOLUTIONS, ids=lambda path: path.stem)
def test_a_notebook_says_for_whom_it_is_and_what_ran_it(solutions):
    heading, *rest = cells(ROOT / "notebooks" / solutions.name)
    promised = re.findall(r"^- \*\*([\w ]+)\*\*", heading, flags=re.MULTILINE)
    assert promised == ["For", "You should know", "Takes", "Afterwards you can", "Next"]
    assert any(source.startswith("alexnet.print_versions()") for source in rest)
    assert rest[-1].startswith("## Next")
    assert "alexnet.print_versions()" in cells(solutions)


@pytest.mark.parametrize("solutions", SOLUTIONS, ids=lambda path: path.stem)
def test_exercises_are_of_three_kinds_and_each_is_solved(solutions):
    (exercises,) = [
        source for source in cells(ROOT / "notebooks" / solutions.name) if source.startswith("## Exercises")
    ]
    items = ITEM.findall(exercises)
    assert 4 <= len(items) <= 6 and {kind for _, kind in items} == {"Predict", "Change", "Write"}
    assert [number for number, _ in items] == [str(i + 1) for i in range(len(items))]
    assert exercises.count("<details><summary>What to expect</summary>") == len(items)
    assert f"(solutions/{solutions.name})" in exercises
    solved = [match[1] for source in cells(solutions) if (match := re.match(r"## (\d)\. ", source))]
    assert solved == [number for number, _ in items]


@pytest.mark.parametrize("path", [*SOLUTIONS, *(ROOT / "notebooks").glob("0[12]*.ipynb")], ids=lambda path: path.stem)
def test_sections_of_the_paper_are_linked_by_page(path):
    """The first mention of a section in a cell links to it; links to one section agree."""
    pages = {}
    for source in cells(path):
        for section, page in re.findall(r"\[(section [\d.]+|figure \d)\]\([^)]*Paper\.pdf#page=(\d)\)", source):
            assert pages.setdefault(section, page) == page, section
