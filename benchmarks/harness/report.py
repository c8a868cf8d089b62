"""Shows measurements as tables, and writes them to files."""

import json
import statistics
import sys

from alexnet.atomic import write_text


def write(record, folder):
    """Write a record as `bench.json`, with its pictures."""
    from alexnet import plotting

    write_text(folder / "bench.json", json.dumps(record, indent=1) + "\n")
    plotting.benchmark(record).savefig(folder / "bench.png", dpi=100)
    written = ["bench.json", "bench.png"]
    if "scaling" in record:
        plotting.scaling(record).savefig(folder / "bench_growth.png", dpi=100)
        written.append("bench_growth.png")
    print(f"{folder}: {', '.join(written)}")


class Report:
    """Prints the measurements, table by table."""

    def __init__(self):
        self._backend = None

    def __call__(self, part, value):
        getattr(self, part)(value)

    def left_out(self, reason):
        print(f"left out: {reason}", flush=True)

    def comparison(self, comparison):
        times, work, count = comparison["seconds"], comparison["work"], comparison["batch_size"]
        against = comparison["ratios"]
        columns = ["", "ms", "images/s", "spread", *(["ours is faster", "spread"] if against else [])]
        who = {"backends": "ours on each backend: ", "all": ""}.get(comparison["group"], f"{comparison['group']}: ")
        what = "LRN alone, forward and backward" if work == "normalization" else work
        table = _table(f"{who}{what}, {count} image{'s' * (count > 1)}", columns)
        for name, seconds in times.items():
            middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
            cells = [f"{1000 * middle:,.1f}", f"{count / middle:,.1f}", f"{count / most:,.1f}–{count / least:,.1f}"]
            if name in against:
                found = against[name]
                cells += [f"{found['median']:.2f} ×", f"{found['min']:.2f}–{found['max']:.2f}"]
            table.add_row(name, *cells)
        _show(table)

    def startup(self, rows):
        columns = ["", "import", "build", "build and first step", "peak memory"]
        table = _table(f"{rows[0]['backend']}: start and memory", columns)
        for row in rows:
            seconds = [f"{row[f'{part}_seconds']:.1f} s" for part in ("import", "build", "first_step")]
            table.add_row(row["candidate"], *seconds, f"{row['memory_bytes'] / 1e9:.2f} GB")
        _show(table)

    def scaling(self, row):
        if self._backend != row["backend"]:
            self._backend = row["backend"]
            print(f"{row['backend']}: our network in other sizes")
        print(
            f"  batch_size {row['batch_size']:3}  image_size {row['image_size']:3}  width {row['width']:<4g}  "
            f"training {row['training_seconds']:7.3f} s  inference {row['inference_seconds']:7.3f} s  "
            f"first step {row['first_step_seconds']:5.1f} s  {row['memory_bytes'] / 1e9:5.2f} GB",
            flush=True,
        )


def print_targets(rows):
    table = _table("Targets", ["", "target", "measured", "range", ""])
    for row in rows:
        digits = ".2f" if row["unit"] != "s" else ".1f"
        spread = "–".join(format(end, digits) for end in row["range"]) if row["range"] else ""
        sign = "≤" if row["range"] is None else "≥"
        unit = "" if row["unit"].startswith("times") else f" {row['unit']}"
        cells = [f"{sign} {row['wanted']:{digits}}{unit}", f"{row['measured']:{digits}}{unit}", spread]
        table.add_row(row["target"], *cells, "met" if row["met"] else "missed", style=None if row["met"] else "red")
    _show(table)


def _table(title, columns):
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _show(table):
    from rich.console import Console

    Console().print(table)
    sys.stdout.flush()  # also into a pipe, so that results stay if the measurement is stopped
