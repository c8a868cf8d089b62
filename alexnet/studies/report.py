"""The report on a batch: one page that needs nothing beside it, and the same table for the terminal."""

import base64
import csv
import datetime
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet import plotting
from alexnet.atomic import write_text

STATUS_MARKS = {"finished": "finished", "skipped": "finished before", "failed": "failed", "locked": "failed"}


def write_report(path: Path, batch: Sequence[Any], console: Console) -> None:
    """Write the page about a batch's jobs to `path` and print its table."""
    rows = [_row(job, path.parent) for job in batch]
    _print_table(rows, console)
    histories = [(row["label"], row["backend"], row["history"]) for row in rows if row["history"]]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("alexnet.studies", "."), autoescape=True)
    page = environment.get_template("report.html").render(
        title=path.stem,
        rows=rows,
        failed=sum(row["status"] == "failed" for row in rows),
        curves=_embed(plotting.comparison(histories)) if histories else None,
        versions=_differing(rows, "versions"),
        hardware=_differing(rows, "hardware"),
        parameters=_differing(rows, "parameters"),
        written=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _row(job, beside):
    """One run as the page and the table show it."""
    metrics = job.metrics() if job.status not in ("failed", "locked") else {}
    results, times = metrics.get("results", {}), metrics.get("times", {})
    notebook = {"failed": job.unfinished, "locked": None}.get(job.status, job.output)
    page = notebook and _convert(notebook)
    return {
        "label": job.label,
        "backend": job.backend,
        "status": STATUS_MARKS[job.status],
        "error": job.error,
        "val_top1": _format(results.get("val_top1"), "{:.1%}"),
        "val_top5": _format(results.get("val_top5"), "{:.1%}"),
        "val_loss": _format(results.get("val_loss"), "{:.3f}"),
        "epochs": _format(results.get("epoch"), "{}"),
        "time": _format(times.get("seconds"), "{:.0f} s"),
        "first": _format(times.get("first_epoch_seconds"), "{:.1f} s"),
        "speed": _format(times.get("images_per_second"), "{:,.0f}"),
        "memory": _format(metrics.get("peak_memory_bytes"), "{:.2f} GB", 1e9),
        "version": metrics.get("versions", {}).get(job.backend, "–"),
        "notebook": notebook and _link(notebook, beside),
        "page": _link(page, beside) if page else None,
        "filters": _picture(job.folder / "figures" / "filters.png") if results else None,
        "history": _history(job.folder / "history.csv") if results else [],
        "versions": metrics.get("versions", {}),
        "hardware": metrics.get("hardware", {}),
        "parameters": metrics.get("parameters", {}),
    }


COLUMNS = {
    "label": "run", "status": "status", "val_top1": "top-1", "val_top5": "top-5", "val_loss": "loss",
    "epochs": "epochs", "time": "time", "first": "first epoch", "speed": "images/s", "memory": "memory",
    "version": "version",
}  # fmt: skip


def _print_table(rows, console):
    table = Table(title="Validation results", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for key, title in COLUMNS.items():
        words = key in ("label", "status", "version")
        table.add_column(title, justify="left" if words else "right", no_wrap=not words, overflow="fold")
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


def _format(value, form, scale=1):
    return "–" if value is None else form.format(value / scale if scale != 1 else value)


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
            from nbconvert import HTMLExporter
        except ModuleNotFoundError:
            return None
        write_text(page, HTMLExporter(embed_images=True).from_filename(str(notebook))[0])
    return page


def _link(path, beside):
    return os.path.relpath(path, beside).replace(os.sep, "/") if path.is_file() else None


def _picture(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() if path.is_file() else None


def _embed(figure):
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=130)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
