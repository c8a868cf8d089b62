"""The command line: `python -m alexnet train`, `python -m alexnet batch`; `main.py` is the first of them."""

import argparse
import sys
from pathlib import Path

from alexnet.recipe import PROJECT, Recipe, RecipeError, allowed, nearest, read_yaml

FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Says what was meant when a flag is misspelt; one line and exit status 2 for bad usage."""

    def error(self, message):
        if message.startswith("unrecognized arguments"):
            unknown = next((word for word in message.split()[2:] if word.startswith("--")), "")
            flags = [flag.removeprefix("--") for flag in self._option_string_actions if flag.startswith("--")]
            message += f".{nearest(unknown.removeprefix('--').partition('=')[0], flags)}"
        self.exit(BAD_USAGE, f"{self.prog}: {message} (--help lists all flags)\n")


def main(arguments=None):
    """Run a command; returns the exit status: 0, 1 for a failed run, 2 for bad usage, 130 after Ctrl-C."""
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.command(options)
    except RecipeError as error:
        return _fail(error, BAD_USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(error, status):
    print(f"error: {error}", file=sys.stderr)
    return status


def _build_parser():
    parser = _Parser(
        prog="python -m alexnet",
        description="AlexNet in Keras 3, on TensorFlow, JAX or PyTorch.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_batch(commands)
    return parser


def _add_train(commands):
    parser = commands.add_parser(
        "train",
        help="train a network and record the run",
        description="Train a network and record the run in run_dir/name/backend. Values come from params/default.yaml, "
        "then from the files given with --params, then from the flags below.",
        epilog="example: python -m alexnet train --params params/cifar10.yaml --backend jax --epochs 3",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_train, parser=parser)
    parser.add_argument(
        "--params", action="append", default=[], metavar="FILE", help="a file of params/; may be repeated"
    )
    fields = parser.add_argument_group("parameters of the run")
    for name, field in Recipe.model_fields.items():
        default = (
            "None"
            if field.default is None
            else f"{field.default}".lower()
            if isinstance(field.default, bool)
            else field.default
        )
        fields.add_argument(
            f"--{name}", metavar="VALUE", help=f"{field.description} ({allowed(name)}; default {default})"
        )


def _add_batch(commands):
    parser = commands.add_parser(
        "batch",
        help="run notebooks for each backend and a grid of parameters, then report",
        description="Run notebooks through papermill, once for each backend and each combination of the grid, each "
        "in its own process and its own folder; finished runs are skipped. Ends with a report, run_dir/name.html.",
        epilog="example: python -m alexnet batch notebooks/02_train.ipynb -f params/cifar10.yaml "
        "--backends jax torch --grid learning_rate=0.01,0.02 width=0.25,0.5",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_batch, parser=parser)
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a notebook with a cell tagged parameters")
    parser.add_argument(
        "-f", "--params", action="append", default=[], metavar="FILE", help="a file of params/; may be repeated"
    )
    parser.add_argument(
        "-p", "--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter"
    )
    parser.add_argument("--backends", nargs="+", metavar="BACKEND", help="tensorflow, jax, torch; default: all three")
    parser.add_argument(
        "--grid", nargs="+", default=[], metavar="NAME=V1,V2", help="values to combine, e.g. width=0.25,0.5"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time (default 1)")
    parser.add_argument("--force", action="store_true", help="run again what has finished")


def _params_file(path):
    """A params file as given, or from the project's folder when the shell stands elsewhere."""
    return path if Path(path).exists() or not (PROJECT / path).exists() else PROJECT / path


def _value(name, text):
    """A flag's text, which Recipe converts; paths start where the shell stands."""
    from alexnet.data.sources import NAMED

    if name in ("data_dir", "run_dir", "weights") and text not in (*NAMED, "", "None", "null"):
        return str(Path(text).expanduser().absolute())
    return text


def _train(options):
    given = {name: getattr(options, name) for name in Recipe.model_fields if getattr(options, name) is not None}
    values = {name: _value(name, text) for name, text in given.items()}
    recipe = Recipe.read(*[_params_file(path) for path in options.params], **values)

    from alexnet.backend import BackendError, import_keras

    try:
        keras = import_keras(recipe.backend)
    except BackendError as error:
        return _fail(error, BAD_USAGE)

    from alexnet.checkpoints import CheckpointError
    from alexnet.data import DataError, ImageError
    from alexnet.training import RunError, build, train

    folder = recipe.run_folder / keras.backend.backend()
    print(
        f"Training {recipe.preset} on {recipe.data_dir} with {keras.backend.backend()}; results go to {folder}",
        flush=True,
    )
    try:
        run = train(recipe)
    except (DataError, CheckpointError) as error:
        return _fail(error, BAD_USAGE)
    except (RunError, ImageError, OSError) as error:
        return _fail(error, FAILED)
    from alexnet import figures

    run.save_figure(figures.curves(run.history), "curves")
    run.save_figure(figures.filters(run.model, build(recipe, len(run.class_names))), "filters")
    results, times = run.metrics["results"], run.metrics["times"]
    print(
        f"val_top1 {results['val_top1']:.4f}, val_top5 {results['val_top5']:.4f}, val_loss {results['val_loss']:.4f} "
        f"after {results['epoch']} epochs in {times['seconds']:.0f} s ({times['images_per_second']:.0f} images/s)"
    )
    return 0


def _batch(options):
    from alexnet.batch import BatchError, run_batch

    values = {}
    for path in options.params:
        values.update(read_yaml(_params_file(path)))
    for name, text in options.set:
        values[name] = _value(name, text)
    grid = {}
    for item in options.grid:
        name, equals, texts = item.partition("=")
        if not equals or not texts:
            options.parser.error(f"--grid takes NAME=VALUE,VALUE. Received: {item}")
        grid[name] = [_value(name, text) for text in texts.split(",")]
    try:
        return run_batch(options.notebooks, values, options.backends, grid, jobs=options.jobs, force=options.force)
    except BatchError as error:
        return _fail(error, BAD_USAGE)
