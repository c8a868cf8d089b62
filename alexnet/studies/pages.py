"""An executed notebook as a page for a browser."""

import re
from os import PathLike
from pathlib import Path
from typing import Any


def notebook_page(notebook: str | PathLike) -> str:
    """A notebook file as HTML with its pictures in it. Its title is the notebook's first heading.

    Raises:
        ModuleNotFoundError: nbconvert is not installed.
    """
    import nbformat

    return as_html(nbformat.read(notebook, as_version=4), Path(notebook).stem)


def as_html(notebook: Any, title: str = "") -> str:
    """The same of a notebook that nbformat has read; `title` is for one without a heading."""
    from nbconvert import HTMLExporter

    headings = (re.search(r"^# +(.+)$", cell.source, re.M) for cell in notebook.cells if cell.cell_type == "markdown")
    notebook.metadata["title"] = next((found[1] for found in headings if found), title)
    template = Path(__file__).with_name("notebook.html").read_text(encoding="utf-8")
    return HTMLExporter(embed_images=True, raw_template=template).from_notebook_node(notebook)[0]
