"""An executed notebook as a page for a browser."""

import re
from os import PathLike
from pathlib import Path

# nbconvert's page, with the description that a figure carries (`alexnet.plotting`); its own template leaves that out.
_TEMPLATE = """\
{% extends "lab/index.html.j2" %}
{% block data_png %}
{%- set alt = output | get_metadata("alt", "image/png") -%}
{%- if alt -%}
{{ super() | replace("<img ", '<img alt="' ~ (alt | escape_html) ~ '" ') }}
{%- else -%}
{{ super() }}
{%- endif -%}
{% endblock data_png %}
"""


def notebook_page(notebook: str | PathLike) -> str:
    """A notebook as HTML with its pictures in it. Its title is the notebook's first heading.

    Raises:
        ModuleNotFoundError: nbconvert is not installed.
    """
    import nbformat
    from nbconvert import HTMLExporter

    content = nbformat.read(notebook, as_version=4)
    headings = (re.search(r"^# +(.+)$", cell.source, re.M) for cell in content.cells if cell.cell_type == "markdown")
    content.metadata["title"] = next((found[1] for found in headings if found), Path(notebook).stem)
    return HTMLExporter(embed_images=True, raw_template=_TEMPLATE).from_notebook_node(content)[0]
