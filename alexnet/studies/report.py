"""The report on a batch: one page that needs nothing beside it, and the same table for the terminal."""

import base64
import csv
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet import plotting
from alexnet.atomic import write_text
from alexnet.plotting.style import BACKEND_COLORS, png
from alexnet.studies.pages import notebook_page
from alexnet.units import format_duration, format_size

STATUS_MARKS = {"finished": "finished", "skipped": "finished before", "failed": "failed", "locked": "failed"}


def write_report(path: Path, batch: Sequence[Any], console: Console) -> None:
    """Write the page about a batch's jobs to `path` and print its table."""
    rows = [_row(job, path.parent) for job in batch]
    _print_table(rows, console)
    histories = [(row["label"], row["backend"], row["history"]) for row in rows if row["history"]]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("alexnet.studies", "."), autoescape=True)
    title, about = _heading(path.stem, rows)
    curves = plotting.comparison(histories) if histories else None
    page = environment.get_template("report.html").render(
        title=title,
        about=about,
        rows=rows,
        columns=COLUMNS,
        numbers=NUMBERS,
        colors=BACKEND_COLORS,
        failed=sum(row["status"] == "failed" for row in rows),
        curves=curves and _embed(png(curves)),
        curves_alt=curves and curves.alt,
        curves_width=curves and round(curves.get_figwidth() * curves.dpi),
        versions=_differing(rows, "versions"),
        hardware=_differing(rows, "hardware"),
        parameters=_differing(rows, "parameters"),
        written=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _heading(name, rows):
    """The page's title, which names networks and data, and a line on the images."""
    parameters = [row["parameters"] for row in rows if row["parameters"]]
    networks = _distinct(each.get("network") for each in parameters)
    data_sets = _distinct(Path(str(each["data_dir"])).name for each in parameters if "data_dir" in each)
    images = _distinct(
        f"{data['training_images']:,} training and {data['validation_images']:,} validation images, "
        f"{len(data['class_names'])} classes"
        for row in rows
        if (data := row["data"])
    )
    if not networks or not data_sets:
        return name, ""
    about = f"Batch {name}; {images[0]}" if len(images) == 1 else f"Batch {name}"
    return f"AlexNet ({', '.join(networks)}) on {', '.join(data_sets)}", about


def _distinct(values):
    return list(dict.fromkeys(value for value in values if value))


def _row(job, beside):
    """One run as the page and the table show it."""
    metrics = job.metrics() if job.status not in ("failed", "locked") else {}
    results, times = metrics.get("results", {}), metrics.get("times", {})
    notebook = {"failed": job.unfinished, "locked": None}.get(job.status, job.output)
    page = notebook and _convert(notebook)
    filters = job.folder / "figures" / "filters.png"
    return {
        "label": job.label,
        "backend": job.backend,
        "status": STATUS_MARKS[job.status],
        "error": job.error,
        "val_top1": _format(results.get("val_top1"), "{:.1%}".format),
        "val_top5": _format(results.get("val_top5"), "{:.1%}".format),
        "val_loss": _format(results.get("val_loss"), "{:.3f}".format),
        "epochs": _format(results.get("epoch"), "{:,}".format),
        "time": _format(times.get("seconds"), format_duration),
        "first": _format(times.get("first_epoch_seconds"), format_duration),
        "speed": _format(times.get("images_per_second"), "{:,.0f}".format),
        "memory": _format(metrics.get("peak_memory_bytes"), format_size),
        "version": metrics.get("versions", {}).get(job.backend, "–"),
        "notebook": notebook and _link(notebook, beside),
        "page": _link(page, beside) if page else None,
        "filters": _embed(filters.read_bytes()) if results and filters.is_file() else None,
        "filters_alt": _description(filters) if results and filters.is_file() else "",
        "history": _history(job.folder / "history.csv") if results else [],
        "versions": metrics.get("versions", {}),
        "hardware": _readable(metrics.get("hardware", {})),
        "parameters": metrics.get("parameters", {}),
        "data": metrics.get("data", {}),
    }


COLUMNS = {
    "label": "run", "status": "status", "val_top1": "top-1", "val_top5": "top-5", "val_loss": "loss",
    "epochs": "epochs", "time": "time", "first": "first epoch", "speed": "images/s", "memory": "memory",
    "version": "version",
}  # fmt: skip
NUMBERS = [key for key in COLUMNS if key not in ("label", "status", "version")]


def _print_table(rows, console):
    table = Table(title="Validation results", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for key, title in COLUMNS.items():
        number = key in NUMBERS
        table.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*[Text(row[key]) for key in COLUMNS], style="red" if row["status"] == "failed" else None)
    console.print(table)


def _differing(rows, key):
    """`(name, value)` where all runs agree, and a value for each backend where they do not."""
    filled = [row for row in rows if row[key]]
    names = dict.fromkeys(name for row in filled for name in row[key])
    for name in names:
        values = [str(row[key].get(name, "–")) for row in filled]
        agree = len(set(values)) == 1
        yield (
            name,
            values[0]
            if agree
            else "; ".join(f"{row['label']}: {value}" for row, value in zip(filled, values, strict=True)),
        )


def _format(value, form):
    return "–" if value is None else form(value)


def _readable(hardware):
    """What a run says of its machine, in people's units and words."""
    values = {name.removesuffix("_bytes").replace("_", " "): value for name, value in hardware.items()}
    if "memory_bytes" in hardware:
        values["memory"] = _format(hardware["memory_bytes"], format_size)
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}


def _history(path):
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in epoch.items()} for epoch in csv.DictReader(file)]


def _convert(notebook):
    """The executed notebook as a page beside it; browsers show no notebooks."""
    if not notebook.is_file():
        return None
    page = notebook.with_suffix(".html")
    if not page.is_file() or page.stat().st_mtime < notebook.stat().st_mtime:
        try:
            write_text(page, notebook_page(notebook))
        except ModuleNotFoundError:
            return None
    return page


def _link(path, beside):
    return os.path.relpath(path, beside).replace(os.sep, "/") if path.is_file() else None


def _description(path):
    """What the figure in a PNG file shows, as `Run.save_figure` has written it there."""
    with Image.open(path) as image:
        return getattr(image, "text", {}).get("Description", "The kernels of conv1.")


def _embed(content):
    return "data:image/png;base64," + base64.b64encode(content).decode()
