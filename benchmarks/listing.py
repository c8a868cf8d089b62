"""How long it takes to list a large tree of images, and how much memory their names need.

python benchmarks/listing.py [--files 1000000] [--folders 1000] [--folder DIR]

Writes that many empty .JPEG files with names like ImageNet's, lists them as training would, and then loads the list
that was cached beside the runs. "cold" is measured if the kernel's caches can be dropped, which only root may do.
"""

import argparse
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

from rich.console import Console
from rich.table import Table

from alexnet.data import listing


def write(root, files, folders):
    for number in range(folders):
        folder = root / f"n{number:08d}"
        folder.mkdir()
        for image in range(files // folders):
            os.close(os.open(folder / f"n{number:08d}_{image}.JPEG", os.O_CREAT))


def drop_caches():
    """Drop the kernel's caches of the disk; returns whether that was possible."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError:
        return False


def timed(function):
    began = time.perf_counter()
    found = function()
    return found, f"{time.perf_counter() - began:.2f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--folder", help="where to write the tree; a temporary folder otherwise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root, cache = Path(folder) / "images", Path(folder) / "runs" / ".listings"
        root.mkdir()
        _, seconds = timed(lambda: write(root, options.files, options.folders))
        rows = [(f"writing {options.files:,} files in {options.folders:,} folders", seconds)]
        if drop_caches():
            rows.append(("listing, cold", timed(lambda: listing.list_images(root))[1]))
        listing.list_images(root)
        rows.append(("listing, warm", timed(lambda: listing.list_images(root))[1]))
        time.sleep(3)  # the list of a tree that has just changed is not cached
        rows.append(("listing and caching", timed(lambda: listing.list_images(root, cache))[1]))
        size = sum(path.stat().st_size for path in cache.iterdir())
        rows.append(("listing, cached", timed(lambda: listing.list_images(root, cache))[1]))
        tracemalloc.start()
        found = listing.list_images(root, cache)
        kept, peak = tracemalloc.get_traced_memory()
        rows.append(("names found", f"{len(found.names):,}"))
        rows.append(("memory of the names", f"{kept / 1e6:.0f} MB, at most {peak / 1e6:.0f} MB while loading them"))
        rows.append(("file of the listing", f"{size / 1e6:.0f} MB"))
        table = Table("", "measured")
        for row in rows:
            table.add_row(*row)
        Console().print(table)


if __name__ == "__main__":
    main()
