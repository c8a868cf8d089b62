"""`inspect`."""

import json
from pathlib import Path

from alexnet.cli.common import BAD_USAGE, FAILED, fail, output_path, value_of
from alexnet.recipe import DATA_FIELDS, Recipe

FIELDS = (*DATA_FIELDS[1:], "validation_split", "split_by", "images_per_class", "seed", "max_skipped")


def inspect(options):
    from alexnet.data import DataError, ImageError
    from alexnet.data import inspection as inspecting

    output = None if options.output is None else output_path(options.output)
    if output is not None and output.resolve().is_relative_to(Path(value_of("data_dir", options.source)).resolve()):
        options.parser.error("--output is inside DIR, and would become part of the data")
    given = {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    recipe = Recipe(**given, data_dir=value_of("data_dir", options.source))
    try:
        inspection = inspecting.inspect(recipe, options.all)
        print(json.dumps(inspection.to_json(), indent=1) if options.json else inspection, flush=True)
        if output is not None:
            inspection.write(output)
    except DataError as error:
        return fail(error, BAD_USAGE)
    except (ImageError, OSError) as error:
        return fail(error, FAILED)
    if inspection.problem:
        return fail(inspection.problem, BAD_USAGE)
    damage = inspection.too_many_unreadable(recipe.max_skipped)
    return fail(damage, FAILED) if damage else 0
