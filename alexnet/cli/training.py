"""`train` and `batch`."""

from alexnet.cli.common import BAD_USAGE, FAILED, fail, params_file, value_of
from alexnet.packages import missing
from alexnet.recipe import Recipe, read_yaml
from alexnet.units import format_duration


def train(options):
    given = {name: getattr(options, name) for name in Recipe.model_fields if getattr(options, name) is not None}
    values = {name: value_of(name, text) for name, text in given.items()}
    recipe = Recipe.read(*[params_file(path) for path in options.params], **values)

    from alexnet.runtime import BackendError, import_keras

    try:
        import_keras(recipe.backend)
    except BackendError as error:
        return fail(error, BAD_USAGE)

    from alexnet.data import DataError, ImageError
    from alexnet.training import RunError, build_model, train
    from alexnet.weights import CheckpointError

    try:
        run = train(recipe)
    except (DataError, CheckpointError) as error:
        return fail(error, BAD_USAGE)
    except (RunError, ImageError, OSError) as error:
        return fail(error, FAILED)
    if not run.is_chief:
        return 0
    try:
        from alexnet import plotting
    except ModuleNotFoundError as error:
        print(f"No figures were drawn: {missing(error)}")
    else:
        run.save_figure(plotting.curves(run.history), "curves")
        run.save_figure(plotting.filters(run.model, build_model(recipe, len(run.class_names))), "filters")
    results, times = run.metrics["results"], run.metrics["times"]
    print(
        f"val_top1 {results['val_top1']:.4f}, val_top5 {results['val_top5']:.4f}, val_loss {results['val_loss']:.4f} "
        f"after {results['epoch']} epochs in {format_duration(times['seconds'])} "
        f"({times['images_per_second']:.0f} images/s); the run is in {run.folder}"
    )
    return 0


def batch(options):
    from alexnet.studies import BatchError, MirrorError, run_batch

    values = {}
    for path in options.params:
        values.update(read_yaml(params_file(path)))
    for name, text in options.set:
        values[name] = value_of(name, text)
    grid = {}
    for item in options.grid:
        name, equals, texts = item.partition("=")
        if not equals or not texts:
            options.parser.error(f"--grid takes NAME=VALUE,VALUE. Received: {item}")
        grid[name] = [value_of(name, text) for text in texts.split(",")]
    try:
        return run_batch(
            *(options.notebooks, values, options.backends, grid, options.jobs, options.force),
            engine=options.engine,
            address=options.address,
        )
    except BatchError as error:
        return fail(error, BAD_USAGE)
    except MirrorError as error:
        return fail(error, FAILED)
