"""`doctor`."""

import json
import math
from pathlib import Path

from alexnet.cli.common import FAILED, value_of
from alexnet.recipe import Recipe


def doctor(options):
    for backend in options.backends or ():
        Recipe(backend=backend)
    if not (math.isfinite(options.timeout) and options.timeout > 0):
        options.parser.error(f"--timeout is a number of seconds above 0. Received: {options.timeout:g}")
    recipe = Recipe() if options.run_dir is None else Recipe(run_dir=value_of("run_dir", options.run_dir))
    from alexnet.doctor import examine

    report = examine(Path(recipe.run_folder).parent, options.backends or (), options.timeout)
    if options.json:
        print(json.dumps(report.to_json(), indent=1, allow_nan=False))
    else:
        from rich.console import Console

        report.print(Console())
    return FAILED if report.count("problem") else 0
