"""Notebooks as pages: complete without the internet, and with links that lead somewhere."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import notebook_pages  # noqa: E402

pytestmark = pytest.mark.once
FETCHED = re.compile(r'<script[^>]*src=|<link|@import|url\(\s*["\']?http|<img[^>]*src="(?!data:)')


def stand_in(latex, display):
    return f'<math display="{display}"><mi>{latex}</mi></math>'


def notebook_of(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source) for source in sources])


@pytest.mark.parametrize("name", ["01_architecture", "03_evaluate"])
def test_a_page_asks_nobody_for_anything(name):
    """03 has a picture in its text, a file of docs."""
    page = notebook_pages.as_page(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4), stand_in)
    assert not FETCHED.search(page) and page.count("data:image/png") > 5
    assert FETCHED.search('<script src="https://cdn.example/mathjax.js">') and FETCHED.search('<img src="../x.png">')


def test_a_page_has_a_title_and_is_dark_where_the_system_is():
    page = notebook_pages.as_page(notebook_of("# Layer by layer"), stand_in)
    assert "<title>Layer by layer</title>" in page
    (dark,) = re.findall(r'<style media="screen and \(prefers-color-scheme: dark\)">(.*?)</style>', page, re.DOTALL)
    assert "--jp-layout-color0:" in dark


def test_a_table_of_text_keeps_its_lines():
    """On a phone it is moved sideways; one long line is wrapped."""
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text=text)])
        for text in ("one long line\n", "a table\n" * 5)
    ]
    page = notebook_pages.as_page(nbformat.v4.new_notebook(cells=cells), stand_in)
    assert re.findall(r'<div class="(lines|)">\s*<div class="jp-RenderedText', page) == ["", "lines"]


def test_formulas_are_formulas_and_code_is_code():
    notebook = notebook_of("# A\n\n$$ b = 1 $$\n\nand $a_i * a_j * c$, but `$HOME` and `b$`\n\n    echo $A $B\n")
    page = notebook_pages.as_page(notebook, stand_in)
    assert '<math display="block"><mi>b = 1</mi></math>' in page
    assert '<math display="inline"><mi>a_i * a_j * c</mi></math>' in page
    assert "$HOME" in page and "echo $A $B" in page and page.count("<math ") == 2


def test_every_formula_of_the_notebooks_is_mathml():
    pytest.importorskip("latex2mathml", reason="pip install -e '.[docs]' has it")
    found = 0
    for path in sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for code, block, line in notebook_pages.MATH.findall(cell.source if cell.cell_type == "markdown" else ""):
                if not code:
                    text = re.sub(r"<[^>]+>", "", notebook_pages.mathml((block or line).strip(), "inline"))
                    assert "\\" not in text, text
                    found += 1
    assert found > 4


def test_links_lead_to_pages():
    text = "[a](02_train.ipynb) [b](../docs/glossary.md#stride) [c](../docs/data.md) [d](https://x.org/y.md) [e](../a)"
    page = notebook_pages.with_links(notebook_pages.as_page(notebook_of(text), stand_in))
    assert re.findall(r'<a href="([^"#][^"]*)">', page) == [
        "02_train.html",
        "glossary.html#stride",
        "https://x.org/y.md",
    ]
    inner = notebook_pages.with_links('<a href="../../docs/glossary.md#relu">x</a> <a href="../01.ipynb">y</a>', 1)
    assert inner == '<a href="../glossary.html#relu">x</a> <a href="../01.html">y</a>'


def test_the_glossary_has_the_anchors_that_notebooks_name():
    anchors = set(re.findall(r'<h2 id="([^"]+)"', notebook_pages.glossary()))
    named = set()
    for path in (ROOT / "notebooks").rglob("[0-9]*.ipynb"):
        named |= set(re.findall(r"glossary\.md#([\w-]+)", path.read_text(encoding="utf-8")))
    assert len(named) > 15 and named <= anchors


def test_without_a_browser_there_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebook_pages, "ROOT", tmp_path)
    monkeypatch.setattr(notebook_pages, "PAGES", tmp_path / "build" / "pages")
    monkeypatch.setattr(notebook_pages, "browser", lambda: None)
    monkeypatch.setattr(notebook_pages, "mathml", stand_in)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").write_text("# Glossary\n\n## Feature map\n\nMaps.\n", encoding="utf-8")
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    for name in ("01_a", "solutions/01_a"):
        nbformat.write(notebook_of("# Title\n\n$x$"), tmp_path / "notebooks" / f"{name}.ipynb")
    notebook_pages.main()
    said = capsys.readouterr().out
    assert "build/pages: 3 pages, each as HTML\n" in said and "No PDF: it needs Chromium, Chrome or Edge" in said
    made = sorted(path.relative_to(tmp_path / "build" / "pages").as_posix() for path in tmp_path.rglob("*.html"))
    assert made == ["01_a.html", "glossary.html", "solutions/01_a.html"]
    assert 'id="feature-map"' in (tmp_path / "build" / "pages" / "glossary.html").read_text(encoding="utf-8")
