"""The flags of every command."""

import argparse
import sys
from pathlib import Path

import alexnet
from alexnet.cli.checkpoints import convert, fetch, parity
from alexnet.cli.common import BAD_USAGE
from alexnet.cli.doctor import doctor
from alexnet.cli.evaluation import evaluate, predict
from alexnet.cli.hosting import kaggle
from alexnet.cli.inspection import FIELDS as INSPECTION_FIELDS
from alexnet.cli.inspection import inspect
from alexnet.cli.launching import launch
from alexnet.cli.packing import FIELDS, pack
from alexnet.cli.training import batch, train
from alexnet.recipe import DATA_FIELDS, Recipe, describe_field, grouped_fields, nearest

# As it was called: by the command that pip installs, or as a module.
_PROGRAM = "alexnet" if Path(sys.argv[0]).stem == "alexnet" else "python -m alexnet"


class Parser(argparse.ArgumentParser):
    """Says what was meant when a flag is misspelled; one line and exit status 2 for bad usage."""

    def error(self, message):
        if "invalid choice: 'bench'" in message:
            message = "bench is no longer a command. In a clone of the project it is: python -m benchmarks"
        if message.startswith("unrecognized arguments"):
            unknown = next((word for word in message.split()[2:] if word.startswith("--")), "")
            flags = [flag.removeprefix("--") for flag in self._option_string_actions if flag.startswith("--")]
            message += f".{nearest(unknown.removeprefix('--').partition('=')[0], flags)}"
        self.exit(BAD_USAGE, f"{self.prog}: {message} (--help lists all flags)\n")


def build_parser():
    parser = Parser(
        prog=_PROGRAM,
        description="AlexNet in Keras 3, on TensorFlow, JAX or PyTorch.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"alexnet {alexnet.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        *(_add_train, _add_evaluate, _add_predict, _add_convert, _add_fetch),
        *(_add_inspect, _add_pack, _add_batch, _add_parity, _add_kaggle, _add_launch, _add_doctor),
    ):
        add(commands)
    return parser


def _add_command(commands, name, run, help, description, example):
    parser = commands.add_parser(
        name, help=help, description=description, epilog=f"example: {_PROGRAM} {example}", allow_abbrev=False
    )
    parser.set_defaults(command=run, parser=parser)
    return parser


def _add_fields(parser, *names, **defaults):
    """Flags that mean what the field of the recipe means."""
    for name in names:
        default = defaults.get(name, _shown(Recipe.model_fields[name].default))
        text = f"{Recipe.model_fields[name].description} ({describe_field(name)}; default {default})"
        parser.add_argument(f"--{name}", metavar="VALUE", help=text)


def _shown(value):
    return "None" if value is None else str(value).lower() if isinstance(value, bool) else value


def _add_train(commands):
    parser = _add_command(
        commands,
        "train",
        train,
        "train a network and record the run",
        "Train a network and record the run in run_dir/name/backend. Values come from params/default.yaml, "
        "then from the files given with --params, then from the flags below.",
        "train --params params/cifar10.yaml --backend jax --epochs 3",
    )
    parser.add_argument(
        "--params", action="append", default=[], metavar="FILE", help="a file of params/; may be repeated"
    )
    for title, names in grouped_fields().items():
        _add_fields(parser.add_argument_group(title.lower()), *names)


def _add_evaluate(commands):
    parser = _add_command(
        commands,
        "evaluate",
        evaluate,
        "top-1, top-5 and loss of a checkpoint, or of several together",
        "Evaluate a checkpoint in any format, or a run, on a folder of images: its validation part where it has one. "
        "Of several checkpoints the probabilities are averaged.",
        "evaluate --weights alexnet-owt-7be5be79.pth --data_dir imagenet --views 10",
    )
    _add_weights(parser, nargs="+")
    _add_fields(
        parser,
        *(*DATA_FIELDS, "views", "resize", "batch_size", "cache_gb", "workers", "max_skipped", "backend"),
        data_dir="the run's own validation images",
        resize="the run's own, or 256 for a crop of 224 or 227 and in proportion for others",
        cache_gb=0,
    )
    parser.add_argument("--output", metavar="FOLDER", help="write per_class.csv, confusion.csv, mistakes.csv there")


def _add_predict(commands):
    parser = _add_command(
        commands,
        "predict",
        predict,
        "the five most probable classes of image files",
        "Print the five most probable classes of each image.",
        "predict --weights runs/default/jax photo.jpg",
    )
    _add_weights(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    _add_fields(
        parser,
        *("views", "resize", "max_megapixels", "white_level", "backend"),
        resize="the run's own, or 256 for a crop of 224 or 227 and in proportion for others",
        max_megapixels=f"the run's own, or {Recipe.model_fields['max_megapixels'].default:g}",
        white_level="the run's own, or None",
    )


def _add_convert(commands):
    parser = _add_command(
        commands,
        "convert",
        convert,
        "a checkpoint into a different format",
        "Convert a checkpoint. The format of IN is recognized from its content, that of OUT from its ending: .keras, "
        ".weights.h5, .onnx, .safetensors, .pth, .tflite, or none for a folder with a TensorFlow SavedModel.",
        "convert bvlc_alexnet.caffemodel alexnet.onnx",
    )
    parser.add_argument("source", metavar="IN", help="a checkpoint, or the folder of a run")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument("--network", metavar="NAME", help="which network IN holds, if the file does not say")
    _add_fields(parser, "backend")


def _add_fetch(commands):
    parser = _add_command(
        commands,
        "fetch",
        fetch,
        "published weights by name, checked against their published digests",
        "Fetch weights that others publish, and check that they are the right ones. Without NAME, list them. A file "
        "that is there already is checked and left as it is.",
        "fetch torchvision --to data",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="which; without it all are listed")
    parser.add_argument("--to", metavar="FOLDER", default=".", help="where to put the file (default: this folder)")
    parser.add_argument("--force", action="store_true", help="replace a different file of the same name")


def _add_inspect(commands):
    parser = _add_command(
        commands,
        "inspect",
        inspect,
        "how a data set is understood, its classes, sizes and duplicates",
        "Show how a run would read DIR: where the classes and the validation images come from, what is passed over; "
        "images of each class, their sizes, and duplicates across parts and classes. Of many images a sample of 2,000 "
        "is decoded. The exit status is 2 where a run would not begin, and 1 where too many images cannot be read.",
        "inspect flowers --output flowers-inspected",
    )
    parser.add_argument("source", metavar="DIR", help="anything that data_dir may be")
    parser.add_argument("--all", action="store_true", help="decode every image, not a sample of 2,000")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--output", metavar="FOLDER", help="write index.html, contact_sheet.png, duplicates.csv, passed_over.csv there"
    )
    _add_fields(parser, *INSPECTION_FIELDS)


def _add_pack(commands):
    parser = _add_command(
        commands,
        "pack",
        pack,
        "decode images once, so that training reads them several times as fast",
        "Decode all images of SRC once, and keep their central squares in a few large files in OUT, which data_dir "
        "accepts like any folder. If interrupted, run the same command again and it continues. "
        "raw keeps every pixel as training would see it, in 3 bytes; jpeg is several times smaller and slower.",
        "pack imagenet imagenet256 --resize 256; python -m alexnet pack imagenet256 --verify",
    )
    parser.add_argument("source", metavar="SRC", help="anything that data_dir may be")
    parser.add_argument("target", metavar="OUT", nargs="?", help="the folder to pack into")
    parser.add_argument("--encoding", choices=("raw", "jpeg"), default="raw", help="of the squares (default raw)")
    parser.add_argument("--verify", action="store_true", help="read OUT, or SRC alone, and compare all checksums")
    _add_fields(parser, *FIELDS, resize=256)


def _add_parity(commands):
    parser = _add_command(
        commands,
        "parity",
        parity,
        "how much the backends' results differ",
        "Build networks with the same weights on several backends and print the largest relative difference of logits, "
        "gradients and the losses of five training steps. At full size a network takes about a minute.",
        "parity --networks paper torchvision --width 0.25 --image_size 67",
    )
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="default: the six published ones")
    parser.add_argument("--backends", nargs="+", metavar="BACKEND", help="tensorflow, jax, torch; default: all three")
    parser.add_argument("--width", type=float, default=1.0, metavar="VALUE", help="factor of filters (default 1)")
    parser.add_argument("--image_size", type=int, metavar="VALUE", help="pixels a side (default 227, or 224)")
    parser.add_argument("--output", metavar="FILE", help="write the numbers there, as JSON")


def _add_weights(parser, **arguments):
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint in any format of docs/checkpoints.md, or the folder of a run, run_dir/name/backend",
        **arguments,
    )
    parser.add_argument("--network", metavar="NAME", help="which network it holds, if the file does not say")


def _add_batch(commands):
    parser = _add_command(
        commands,
        "batch",
        batch,
        "run notebooks for each backend and a grid of parameters, then report",
        "Run notebooks through papermill, once for each backend and each combination of the grid, each in its own "
        "process and its own folder; finished runs are skipped. Ends with a report, run_dir/name.html. Here run_dir "
        "may be a URL that fsspec opens, such as s3://bucket/runs.",
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
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at the same time on this machine (default 1)")
    text = "where they run: local, dask or ray (default local); the last two start workers on this machine"
    parser.add_argument("--engine", default="local", metavar="NAME", help=text)
    text = "HOST:PORT of a running Dask scheduler or Ray cluster, whose workers are used instead"
    parser.add_argument("--address", metavar="ADDRESS", help=text)
    parser.add_argument("--force", action="store_true", help="run again what has finished")


def _add_kaggle(commands):
    parser = _add_command(
        commands,
        "kaggle",
        kaggle,
        "a notebook that runs on Kaggle and Colab as it is, without installing anything",
        "Write a folder for `kaggle kernels push -p OUT`: kernel-metadata.json, and the notebook with the package and "
        "the parameters in it, which needs no internet. Colab opens the same notebook.",
        "kaggle 02_train 02_on_kaggle --user NAME --gpu -p epochs 60",
    )
    parser.add_argument("notebook", metavar="NOTEBOOK", help="a path, or a name as 02_train")
    parser.add_argument("folder", metavar="OUT", help="the folder to write")
    parser.add_argument("--user", required=True, metavar="NAME", help="your name on Kaggle")
    parser.add_argument("--title", help="the notebook's title there, from which its address is made")
    parser.add_argument("--gpu", action="store_true", help="run with a GPU")
    parser.add_argument("--internet", action="store_true", help="run with internet, for cifar10 and others that load")
    parser.add_argument("--public", action="store_true", help="let everybody see it (default: only you)")
    parser.add_argument(
        "-f", "--params", action="append", default=[], metavar="FILE", help="a file of params/; may be repeated"
    )
    parser.add_argument(
        "-p", "--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter"
    )
    for kind, shown, what in (
        ("data", "OWNER/SLUG", "a data set; becomes data_dir unless that is given"),
        ("competition", "SLUG", "a competition's data; becomes data_dir unless that is given"),
        ("kernel", "OWNER/SLUG", "another notebook's output, such as an unfinished run to go on with"),
        ("model", "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION", "a model, for weights"),
    ):
        text = f"attach {what}; may be repeated"
        parser.add_argument(f"--{kind}", action="append", default=[], metavar=shown, help=text)


def _add_launch(commands):
    parser = _add_command(
        commands,
        "launch",
        launch,
        "start the processes of one machine that train together",
        "Start a command in several processes of this machine that train together, one for each GPU, with the "
        "environment that PyTorch or JAX expects. Each line of their output begins with the rank. When one fails, the "
        "others are ended, and the exit status is its own; it is 124 after the time limit.",
        "launch -n 2 -- train --backend torch --distribute data",
    )
    parser.add_argument("-n", "--processes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end all of them after this time")
    text = "time to save after SIGTERM, before SIGKILL (default 30)"
    parser.add_argument("--grace", type=float, default=30, metavar="SECONDS", help=text)
    parser.add_argument("--port", type=int, metavar="PORT", help="of rank 0, on 127.0.0.1 (default: a free one)")
    parser.add_argument("arguments", nargs="...", metavar="-- COMMAND", help="the command, and its own flags")


def _add_doctor(commands):
    parser = _add_command(
        commands,
        "doctor",
        doctor,
        "whether this installation is right: packages, backends, devices, disk and memory",
        "Show what is installed and what it was tested with; for each backend its devices, a training step beside the "
        "other backends', and training on several devices beside one; disk and memory. It takes about a minute and "
        "writes temporary files only. The exit status is 1 where there is a problem.",
        "doctor --backends jax",
    )
    text = "those that must be there: tensorflow, jax, torch; default: all that are installed"
    parser.add_argument("--backends", nargs="+", metavar="BACKEND", help=text)
    text = "end a process that takes longer, and call it a problem (default 120)"
    parser.add_argument("--timeout", type=float, default=120, metavar="SECONDS", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    _add_fields(parser, "run_dir")
