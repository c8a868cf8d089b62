"""Notebooks as self-contained HTML pages, and as PDF.

make pages      every notebook, its solutions and the glossary, into build/pages

The formulas become MathML, which browsers draw themselves. nbconvert's own pages fetch MathJax from the internet.
PDF needs Chromium, Chrome or Edge.
"""

import base64
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
# Matches code, which stays as it is, or a formula: a displayed one, or one inside a line.
MATH = re.compile(r"(```.*?```|`[^`\n]*`|^ {4}[^\n]*)|\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL | re.MULTILINE)


def as_page(notebook, formula=None, folder=ROOT / "notebooks"):
    """A notebook as the HTML of one page.

    Args:
        notebook: As nbformat reads it.
        folder: Where it is. The pictures that its text names are found from there.
        formula: A function `formula(latex, display)` that returns HTML; None for MathML by latex2mathml.
    """
    from alexnet.studies.pages import as_html

    formulas = []

    def mark(match):
        code, block, line = match.groups()
        if code:
            return code
        formulas.append((formula or mathml)((block or line).strip(), "block" if block else "inline"))
        return f"FORMULA{len(formulas) - 1:04d}"

    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MATH.sub(mark, cell.source)
    page = as_html(notebook)
    page = re.sub(r"FORMULA(\d{4})", lambda match: formulas[int(match[1])], page)
    page = re.sub(r"<script[^>]*>.*?</script>|<link[^>]*>", "", page, flags=re.DOTALL)  # MathJax, require.js, mermaid
    return re.sub(r'(<img [^>]*src=")(?!data:)([^"]+\.png)', lambda match: match[1] + embedded(folder / match[2]), page)


def embedded(picture):
    """A PNG file as an address that holds its content."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def mathml(latex, display):
    from latex2mathml.converter import convert

    return convert(latex, display=display)


def with_links(page, depth=0):
    """The page with links to the pages of notebooks and of the glossary. Links to other files are removed."""
    up = "../" * depth
    page = re.sub(r'(href="[^":]*)\.ipynb(["#])', r"\1.html\2", page)
    page = re.sub(r'href="(?:\.\./)+docs/glossary\.md', f'href="{up}glossary.html', page)
    return re.sub(r'<a href="(?:\.\./)+(?![^"]*\.html["#])[^"]*">(.*?)</a>', r"\1", page)


def glossary():
    """The glossary as a page, with the same anchors as on GitHub."""
    cell = nbformat.v4.new_markdown_cell((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    page = as_page(nbformat.v4.new_notebook(cells=[cell]))
    return re.sub(r'<h2 id="([^"]+)"', lambda match: f'<h2 id="{match[1].lower()}"', page)


def browser():
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_pdf(program, page, target):
    """Print a page as PDF, with everything unfolded."""
    with tempfile.TemporaryDirectory() as folder:
        opened = Path(folder) / "page.html"
        opened.write_text(page.replace("<details>", "<details open>"), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}"]
        command = [program, *options, f"--print-to-pdf={target}", opened.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main():
    PAGES.mkdir(parents=True, exist_ok=True)
    pages = {"glossary": glossary()}
    for path in sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")):
        name = path.relative_to(ROOT / "notebooks").with_suffix("")
        page = as_page(nbformat.read(path, 4), folder=path.parent)
        pages[name.as_posix()] = with_links(page, len(name.parts) - 1)
    program = browser()
    for name, page in pages.items():
        target = PAGES / f"{name}.html"
        target.parent.mkdir(exist_ok=True)
        target.write_text(page, encoding="utf-8")
        if program:
            print_pdf(program, page, target.with_suffix(".pdf"))
    print(f"{PAGES.relative_to(ROOT)}: {len(pages)} pages, each as HTML{' and PDF' if program else ''}")
    if not program:
        print("No PDF: it needs Chromium, Chrome or Edge, and none was found. Any browser prints the HTML.")


if __name__ == "__main__":
    sys.exit(main())
