"""The command line: `python -m alexnet COMMAND`; `main.py` is the first of the commands, `train`."""

import argparse
import csv
import functools
import json
import sys
from pathlib import Path

from alexnet.recipe import BACKENDS, PROJECT, Recipe, RecipeError, allowed, nearest, read_yaml, resolve

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
    for add in (_add_train, _add_evaluate, _add_predict, _add_convert, _add_batch, _add_parity):
        add(commands)
    return parser


def _add_command(commands, name, run, help, description, example):
    parser = commands.add_parser(
        name, help=help, description=description, epilog=f"example: python -m alexnet {example}", allow_abbrev=False
    )
    parser.set_defaults(command=run, parser=parser)
    return parser


def _add_fields(parser, *names, **defaults):
    """Flags that mean what the field of the recipe means."""
    for name in names:
        default = defaults.get(name, _shown(Recipe.model_fields[name].default))
        text = f"{Recipe.model_fields[name].description} ({allowed(name)}; default {default})"
        parser.add_argument(f"--{name}", metavar="VALUE", help=text)


def _shown(value):
    return "None" if value is None else str(value).lower() if isinstance(value, bool) else value


def _add_train(commands):
    parser = _add_command(
        commands,
        "train",
        _train,
        "train a network and record the run",
        "Train a network and record the run in run_dir/name/backend. Values come from params/default.yaml, "
        "then from the files given with --params, then from the flags below.",
        "train --params params/cifar10.yaml --backend jax --epochs 3",
    )
    parser.add_argument(
        "--params", action="append", default=[], metavar="FILE", help="a file of params/; may be repeated"
    )
    _add_fields(parser.add_argument_group("parameters of the run"), *Recipe.model_fields)


def _add_evaluate(commands):
    parser = _add_command(
        commands,
        "evaluate",
        _evaluate,
        "top-1, top-5 and loss of a checkpoint, or of several together",
        "Evaluate a checkpoint in any format, or a run, on a folder of images: its validation part where it has one. "
        "Of several checkpoints the probabilities are averaged.",
        "evaluate --weights alexnet-owt-7be5be79.pth --data_dir imagenet --views 10",
    )
    _add_weights(parser, nargs="+")
    _add_fields(
        parser,
        *("data_dir", "views", "resize", "batch_size", "cache_gb", "backend"),
        data_dir="the run's own validation images",
        resize="the run's own, or 256 for a crop of 224 or 227",
        cache_gb=0,
    )
    parser.add_argument("--output", metavar="FOLDER", help="write per_class.csv, confusion.csv, mistakes.csv there")


def _add_predict(commands):
    parser = _add_command(
        commands,
        "predict",
        _predict,
        "the five most probable classes of image files",
        "Print the five most probable classes of each image.",
        "predict --weights runs/default/jax photo.jpg",
    )
    _add_weights(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    _add_fields(parser, "views", "resize", "backend", resize="the run's own, or 256 for a crop of 224 or 227")


def _add_convert(commands):
    parser = _add_command(
        commands,
        "convert",
        _convert,
        "a checkpoint into another format",
        "Convert a checkpoint. The format of IN is recognized from its content, that of OUT from its ending: .keras, "
        ".weights.h5, .onnx, .safetensors, .pth, .tflite, or none for a folder with a TensorFlow SavedModel.",
        "convert bvlc_alexnet.caffemodel alexnet.onnx",
    )
    parser.add_argument("source", metavar="IN", help="a checkpoint, or the folder of a run")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument("--preset", metavar="NAME", help="which network IN holds, where it does not tell")
    _add_fields(parser, "backend")


def _add_parity(commands):
    parser = _add_command(
        commands,
        "parity",
        _parity,
        "how far the backends' results are apart",
        "Build presets with the same weights on several backends and print the largest relative difference of logits, "
        "gradients and the losses of five training steps. At full size a preset takes about a minute.",
        "parity --presets paper torchvision --width 0.25 --image_size 67",
    )
    parser.add_argument("--presets", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--backends", nargs="+", metavar="BACKEND", help="tensorflow, jax, torch; default: all three")
    parser.add_argument("--width", type=float, default=1.0, metavar="VALUE", help="factor of filters (default 1)")
    parser.add_argument("--image_size", type=int, metavar="VALUE", help="pixels a side (default 227, or 224)")
    parser.add_argument("--output", metavar="FILE", help="write the numbers there, as JSON")


def _add_weights(parser, **arguments):
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint in any format that README lists, or the folder of a run, run_dir/name/backend",
        **arguments,
    )
    parser.add_argument("--preset", metavar="NAME", help="which network it holds, where the file does not tell")


def _add_batch(commands):
    parser = _add_command(
        commands,
        "batch",
        _batch,
        "run notebooks for each backend and a grid of parameters, then report",
        "Run notebooks through papermill, once for each backend and each combination of the grid, each in its own "
        "process and its own folder; finished runs are skipped. Ends with a report, run_dir/name.html.",
        "batch notebooks/02_train.ipynb -f params/cifar10.yaml "
        "--backends jax torch --grid learning_rate=0.01,0.02 width=0.25,0.5",
    )
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


def _start(backend):
    """Keras on a backend that the command line names, checked as a recipe's."""
    from alexnet.backend import import_keras

    return import_keras(Recipe(backend=backend).backend)


def _fails(command):
    """A command whose expected errors become one message and an exit status."""

    @functools.wraps(command)
    def run(options):
        from alexnet.backend import BackendError

        try:
            _start(options.backend)
            from alexnet.checkpoints import CheckpointError
            from alexnet.data import DataError, ImageError
        except BackendError as error:
            return _fail(error, BAD_USAGE)
        try:
            return command(options)
        except (BackendError, CheckpointError, DataError) as error:
            return _fail(error, BAD_USAGE)
        except (ImageError, OSError) as error:
            return _fail(error, FAILED)

    return run


@_fails
def _evaluate(options):
    from alexnet.checkpoints import recognize
    from alexnet.data import load_data, load_test_data, readable
    from alexnet.evaluation import about, assess, input_size
    from alexnet.model import load_checkpoint, preset_of

    models = [load_checkpoint(path, options.preset) for path in options.weights]
    known = [about(path, model) for path, model in zip(options.weights, models, strict=True)]
    for path, (names, _) in zip(options.weights, known, strict=True):
        if names != known[0][0]:
            return _fail(f"{path} has other classes than {options.weights[0]}; they cannot be averaged.", BAD_USAGE)
    names, size = known[0][0], max(map(input_size, models))
    resize = max(resize for _, resize in known)
    given = {
        name: _value(name, getattr(options, name))
        for name in ("data_dir", "resize", "views", "batch_size", "cache_gb")
        if getattr(options, name) is not None
    }
    values = {"resize": resize, "cache_gb": 0, **given, "image_size": size}
    files = [recognize(path)[0].parent / "params.yaml" for path in options.weights]
    runs = [Recipe.read(file) for file in files if file.is_file()]
    if "data_dir" not in given and not runs:
        return _fail("--data_dir is needed: the folder of images to evaluate on.", BAD_USAGE)
    values.setdefault("data_dir", runs[0].data_dir if runs else None)
    trained = [run for run in runs if resolve(run.data_dir) == resolve(values["data_dir"])]
    if trained:  # on images of this folder: those that it held out
        if len({(run.validation_split, run.seed) for run in trained}) > 1:
            return _fail("these runs held out different images of their folder; give another --data_dir.", BAD_USAGE)
        images = load_data(trained[0].replace(**values))[1]
    else:
        images = load_test_data(Recipe(**values), names)
    recipe = Recipe(**values)
    held = ", ".join(
        f"{preset_of(model) or 'a network of its own'} from {path}"
        for path, model in zip(options.weights, models, strict=True)
    )
    print(
        f"{held}: {len(images):,} images of {values['data_dir']}, {recipe.views} view{'s' * (recipe.views > 1)}",
        flush=True,
    )
    if names is None:  # as everybody numbers the folders that he trains on: in the order of their names
        print("The checkpoint names no classes; the folder's are taken in alphabetical order.")
        names = images.class_names
        classes = models[0].output.shape[-1]
        if len(names) != classes:
            return _fail(f"the checkpoint has {classes} classes, {values['data_dir']} has {len(names)}.", BAD_USAGE)
    assessment = assess(models, images, recipe.views)
    print("  ".join(f"{name} {value:.4f}" for name, value in assessment.scores.items()))
    worst = assessment.per_class()[:10]
    print("\nweakest classes    top1   top5  images  mostly taken for")
    for row in worst:
        print(
            f"{row['name'][:16]:16}  {row['top1']:5.1%}  {row['top5']:5.1%}  {row['images']:6d}  {row['mistaken_for']}"
        )
    print("\nmost confident mistakes")
    for i in assessment.mistakes(10):
        said, right = (readable(names[k]) for k in (assessment.guesses[i, 0], assessment.labels[i]))
        print(f"{assessment.probabilities[i, 0]:6.1%}  {said}, in truth {right}: {images.path(i)}")
    if options.output:
        _write_assessment(Path(options.output), assessment, images)
    return 0


def _write_assessment(folder, assessment, images):
    """The whole tables as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = assessment.per_class()
    names = list(assessment.class_names)
    _write_csv(folder / "per_class.csv", list(rows[0]), [row.values() for row in rows])
    _write_csv(
        folder / "confusion.csv",
        ["class", *names],
        [[n, *row] for n, row in zip(names, assessment.confusion(), strict=True)],
    )
    _write_csv(
        folder / "mistakes.csv",
        ["image", "class", "said", "probability"],
        [
            [
                images.path(i),
                names[assessment.labels[i]],
                names[assessment.guesses[i, 0]],
                f"{assessment.probabilities[i, 0]:.6f}",
            ]
            for i in assessment.mistakes()
        ],
    )
    print(f"\n{folder}: per_class.csv, confusion.csv, mistakes.csv")


def _write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@_fails
def _predict(options):
    import numpy as np

    from alexnet.data import ImageError, read_square, readable
    from alexnet.evaluation import about, input_size, look
    from alexnet.model import load_checkpoint

    model = load_checkpoint(options.weights, options.preset)
    names, resize = about(options.weights, model)
    names = names or [f"class {k}" for k in range(model.output.shape[-1])]
    given = {name: getattr(options, name) for name in ("resize", "views") if getattr(options, name) is not None}
    recipe = Recipe(**{"resize": resize, **given, "image_size": input_size(model)})
    status = 0
    for path in options.images:
        try:
            square = read_square(path, recipe.resize)
        except ImageError as error:
            status = _fail(error, FAILED)
            continue
        probabilities = look(model, square[None], recipe.views, batch_size=1)[0]
        print(path)
        for k in np.argsort(-probabilities, kind="stable")[:5]:
            wnid = f"  ({names[k]})" if readable(names[k]) != names[k] else ""
            print(f"{probabilities[k]:8.2%}  {readable(names[k])}{wnid}")
    return status


def _convert(options):
    target = Path(options.target)
    if options.backend is None and target.suffix in ("", ".tflite"):
        options.backend = "tensorflow"  # which alone writes LiteRT, and SavedModel best
    return _convert_here(options)


@_fails
def _convert_here(options):
    from alexnet.model import load_checkpoint, preset_of, save_checkpoint

    model = load_checkpoint(options.source, options.preset)
    try:
        save_checkpoint(model, options.target)
    except ValueError as error:
        return _fail(error, BAD_USAGE)
    print(f"{options.target}: {preset_of(model) or 'a network of its own'}, {model.count_params():,} parameters")
    return 0


def _parity(options):
    for name, values in (("preset", options.presets), ("backend", options.backends)):
        for value in values or ():
            Recipe(**{name: value})
    backends = options.backends or list(BACKENDS)
    if len(set(backends)) < 2:
        options.parser.error("--backends takes two or three different backends")
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    from alexnet.backend import BackendError, import_keras

    try:
        import_keras(backends[0])
    except BackendError as error:
        return _fail(error, BAD_USAGE)
    import subprocess

    from alexnet import parity

    chosen = {name: tuple(getattr(options, name)) for name in ("presets", "backends") if getattr(options, name)}
    try:
        rows = parity.compare(**chosen, width=options.width, image_size=options.image_size)
    except subprocess.CalledProcessError as error:
        return _fail(f"{error.cmd[-1].stem} failed; its own message stands above", FAILED)
    print("largest relative difference between two backends (of gradients, of the middle one of three images)")
    print(f"{'preset':16}{'logits':>10}{'gradients':>12}{'training':>12}")
    for row in rows:
        print(f"{row['preset']:16}{row['logits']:10.1e}{row['gradients']:12.1e}{row['training']:12.1e}")
    if options.output:
        from alexnet.training import hardware, versions

        record = {"rows": rows, "width": options.width, "image_size": options.image_size}
        record |= {"versions": versions(), "hardware": hardware()}
        Path(options.output).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
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
