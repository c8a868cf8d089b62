"""The command line in processes of its own, as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from helpers import write_class_folders

from alexnet.cli import main
from alexnet.data import load_data
from alexnet.locking import FolderLock
from alexnet.model import AlexNet
from alexnet.networks import PUBLISHED
from alexnet.parity import BOUNDS
from alexnet.recipe import Recipe
from alexnet.saving import save_checkpoint
from alexnet.training import train

ROOT = Path(__file__).resolve().parents[1]
BACKEND = keras.backend.backend()


def run(*arguments, program=("-m", "alexnet"), **environment):
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=environment.pop("cwd", ROOT),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def call(capsys):
    """The same in this process, many times faster."""

    def call(*arguments):
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as stop:  # of argparse
            status = stop.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return call


def flags(tiny):
    return [word for name, value in tiny.items() for word in (f"--{name}", value)]


@pytest.mark.slow
def test_main_trains_on_a_folder(tiny, tmp_path):
    """`python main.py --data_dir DIR` from a different folder, with a relative path and nothing on the error stream."""
    write_class_folders(tmp_path / "images", {"": 12})
    settings = {**tiny, "data_dir": "images", "run_dir": "out", "image_size": 67, "initializer": "he_normal"}
    found = run(*flags(settings), "--backend", BACKEND, program=[ROOT / "main.py"], cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    folder = tmp_path / "out" / "tiny" / BACKEND
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "finished"
    assert metrics["parameters"]["learning_rate"] == 0.01  # from params/brief.yaml
    assert {path.name for path in (folder / "figures").iterdir()} == {"curves.png", "filters.png"}
    assert found.stdout.splitlines()[-1].startswith(f"val_top1 {metrics['results']['val_top1']:.4f}")
    epochs = [line.split()[0] for line in found.stdout.splitlines() if line.split()[0] in ("1/2", "2/2")]
    assert epochs == ["1/2", "2/2"]  # one line per epoch


@pytest.mark.once
def test_params_replace_the_brief(tmp_path):
    found = run("--params", "params/cifar10.yaml", "--data_dir", tmp_path / "none", program=[ROOT / "main.py"])
    assert found.returncode == 2 and "there is no folder" in found.stderr


@pytest.mark.once
def test_help_is_worth_reading():
    for arguments, words in (
        (["--help"], ["train", "evaluate", "predict", "convert", "inspect", "batch", "parity"]),
        (["evaluate", "--help"], ["--views", "1, 10", "example:", "the run's own validation images"]),
        (["train", "--help"], ["--weight_decay", "inside the momentum", "example:", "default 0.0005"]),
        (["batch", "--help"], ["--grid", "--jobs", "example:"]),
    ):
        found = run(*arguments)
        assert found.returncode == 0 and all(word in " ".join(found.stdout.split()) for word in words)


def bad_inputs(folder):
    write_class_folders(folder / "one", {"": 3}, classes=["ring"])
    (folder / "empty").mkdir()
    write_class_folders(folder / "text", {"": 4})
    (folder / "text" / "ring" / "0000.jpg").write_text("no image")
    write_class_folders(folder / "cut", {"": 4})
    cut = folder / "cut" / "ring" / "0000.jpg"
    cut.write_bytes(cut.read_bytes()[:1000])
    (folder / "file").touch()
    (folder / "other.keras").write_text("no checkpoint")
    good = write_class_folders(folder / "good", {"": 6})
    return [
        (["--data_dir", folder / "absent"], 2, "there is no folder"),
        (["--data_dir", folder / "empty"], 2, "holds no images"),
        (["--data_dir", folder / "one"], 2, "holds only one class (ring)"),
        (["--data_dir", folder / "text"], 1, "0000.jpg is not an image"),
        (["--data_dir", folder / "cut"], 1, "0000.jpg cannot be decoded"),
        (["--data_dir", good, "--run_dir", folder / "file" / "runs"], 1, "The run cannot be written"),
        (["--data_dir", good, "--weights", folder / "other.keras"], 2, "is not in a supported format"),
        (["--data_dir", good, "--epochs", "none"], 2, "epochs: received 'none'"),
        (["--data_dir", good, "--params", folder / "absent.yaml"], 2, "cannot be read"),
    ]


@pytest.mark.once
def test_bad_input_is_one_clear_sentence(tiny, tmp_path, call):
    """On each backend: the status tells bad usage from a failed run; no traceback, and nothing that looks finished."""
    for arguments, status, message in bad_inputs(tmp_path):
        common = {**tiny, "data_dir": "", "run_dir": tmp_path / "runs", "epochs": 1, "batch_size": 4}
        found = call("train", *flags({k: v for k, v in common.items() if k != "data_dir"}), *arguments)
        assert found.returncode == status, (arguments, found.stderr)
        assert message in found.stderr and "Traceback" not in found.stderr, found.stderr
        assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    assert not list((tmp_path / "runs").rglob("*.keras"))
    for metrics in (tmp_path / "runs").rglob("metrics.json"):
        assert json.loads(metrics.read_text())["status"] == "failed"


def test_evaluate_predict_and_convert(tiny, tmp_path, call):
    """A run of two epochs: evaluated as it was validated, used to predict images, and converted to ONNX and back."""
    assert call("train", *flags(tiny), "--backend", BACKEND).returncode == 0
    folder = Path(tiny["run_dir"]) / "tiny" / BACKEND
    results = json.loads((folder / "metrics.json").read_text())["results"]
    expected = f"top1 {results['val_top1']:.4f}  top5 1.0000  loss {results['val_loss']:.4f}"

    found = call("evaluate", "--weights", folder, "--output", tmp_path / "tables")
    assert (found.returncode, found.stderr) == (0, "")
    understood, what, scores = found.stdout.splitlines()[:3]
    assert understood.startswith(f"{tiny['data_dir']}: class folders; 3 classes by the names of the folders (cross, ")
    assert what == f"paper from {folder}: 18 images of {tiny['data_dir']}, 1 view of 67 pixels out of 72"
    assert scores == expected
    tables = {path.name: path.read_text().splitlines() for path in (tmp_path / "tables").iterdir()}
    assert tables["per_class.csv"][0] == "class,name,images,top1,top5,most_confused_with"
    assert len(tables["per_class.csv"]) == 4
    assert tables["confusion.csv"][0] == "class,cross,ring,triangle"
    counts = [int(value) for line in tables["confusion.csv"][1:] for value in line.split(",")[1:]]
    assert sum(counts) == 18 and counts[0] + counts[4] + counts[8] == round(18 * results["val_top1"])
    assert len(tables["mistakes.csv"]) == 1 + 18 - round(18 * results["val_top1"])

    model = tmp_path / "model.onnx"
    found = call("convert", folder, model)
    assert found.returncode == 0 and found.stdout.startswith(f"{model}: paper, ")
    assert "The names of its 3 classes are not in the file" in found.stdout
    data = ("--data_dir", tiny["data_dir"], "--resize", "72")
    # A converted model has lost the names of its classes, and takes the folder's.
    found = call("evaluate", "--weights", model, *data)
    assert found.returncode == 0 and "names no classes" in found.stdout and expected in found.stdout, found.stderr
    found = call("evaluate", "--weights", folder, model, *data, "--views", "10")
    assert found.returncode == 0 and "10 views" in found.stdout

    # Runs of different seeds are averaged if the data has its own validation part.
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "params.yaml").write_text((folder / "params.yaml").read_text().replace("seed: 0", "seed: 1"))
    found = call("evaluate", "--weights", folder, other)
    assert found.returncode == 0 and expected in found.stdout, found.stderr

    image = next(Path(tiny["data_dir"]).rglob("ring/*.jpg"))
    (tmp_path / "text.jpg").write_text("no image")
    found = call("predict", "--weights", folder, image, tmp_path / "text.jpg")
    assert found.returncode == 1 and "text.jpg is not an image" in found.stderr
    lines = found.stdout.splitlines()
    assert lines[0] == str(image) and len(lines) == 4
    assert {line.split()[1] for line in lines[1:]} == {"cross", "ring", "triangle"}
    shares = [float(line.split()[0].removesuffix("%")) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.1)


@pytest.mark.once
def test_evaluate_knows_what_a_run_was_trained_on(tiny, tmp_path, capsys):
    """By any path, after images were added, and for a part of the folder or a folder around it."""
    folder = write_class_folders(tmp_path / "all" / "images", {"": 20})
    recipe = Recipe(**{**tiny, "data_dir": str(folder), "epochs": 1, "validation_split": 0.25, "images_per_class": 9})
    trained = train(recipe, verbose=0)
    held_out = len(trained.validation)
    assert 0 < held_out < 30 and len(trained.training) == 27
    (tmp_path / "link").symlink_to(folder)

    def evaluated(*arguments):
        status = main(["evaluate", "--weights", str(trained.folder), *map(str, arguments)])
        return status, capsys.readouterr()

    for path in ((), (folder,), (tmp_path / "link",), (folder / "ring" / ".." / ".." / "images",)):
        status, said = evaluated(*(["--data_dir", *path] if path else []))
        assert status == 0 and f": {held_out} images of " in said.out, said
        assert "trained" not in said.out
    status, said = evaluated("--data_dir", tmp_path / "all")
    assert f"{trained.folder} was trained on 27 of these 60 images." in said.out

    for number in range(8):
        shutil.copy(folder / "ring" / "0000.jpg", folder / "ring" / f"new{number}.jpg")
    status, said = evaluated()
    then, now = f"27 training and {held_out} validation images then", len(load_data(recipe)[1])
    assert status == 0 and f"changed since {trained.folder} was trained: {then}, 27 and {now} now" in said.out
    assert "What is held out was held out then" in said.out and f": {now} images of " in said.out

    (folder / "val.txt").write_text("ring/0000.jpg\nring/0001.jpg\ncross/0000.jpg\ntriangle/0000.jpg\n")
    status, said = evaluated()
    assert status == 2 and "can no longer be told" in said.err  # a different part is the validation now
    (folder / "val.txt").unlink()
    (trained.folder / "params.yaml").write_text(recipe.replace(split_by="order").to_yaml())
    status, said = evaluated()
    assert status == 2 and "can no longer be told" in said.err


@pytest.mark.once
def test_names_that_are_no_text(tiny, tmp_path, call):
    """Files with names in a different encoding: training, evaluation, prediction and lists."""
    folder = write_class_folders(tmp_path / "images", {"": 8})
    ring = os.fsencode(folder / "ring")
    for name in os.listdir(ring):
        os.rename(os.path.join(ring, name), os.path.join(ring, b"\xe9" + name))
    trained = train(Recipe(**{**tiny, "data_dir": str(folder), "epochs": 1}), verbose=0)
    name = next((folder / "ring").iterdir())
    found = call("evaluate", "--weights", trained.folder, "--output", tmp_path / "tables")
    assert (found.returncode, found.stderr) == (0, "")
    found = call("predict", "--weights", trained.folder, name)
    assert found.returncode == 0 and found.stdout.splitlines()[0].endswith(f"ring/\\udce9{name.name[1:]}"), found
    assert (tmp_path / "tables" / "mistakes.csv").stat().st_size > 0


@pytest.mark.once
def test_bad_weights_and_formats(tmp_path, call):
    (tmp_path / "text.pth").write_text("no checkpoint")
    for arguments, message in (
        (["evaluate", "--weights", tmp_path / "absent.pth"], "there is no file"),
        (["predict", "--weights", tmp_path / "text.pth", "a.jpg"], "is not in a supported format"),
        (["convert", tmp_path / "text.pth", tmp_path / "out.onnx"], "is not in a supported format"),
        (["convert", tmp_path / "text.pth", tmp_path / "out.onnx", "--network", "alexnet"], "allowed: paper"),
        (["evaluate", "--weights", tmp_path / "text.pth", "--view", "10"], "Did you mean views?"),
        (["parity", "--networks", "papr"], "Did you mean paper?"),
        (["parity", "--width", "x"], "invalid float value"),
        (["parity", "--backends", "jax", "jax"], "two or three different backends"),
    ):
        found = call(*arguments)
        assert found.returncode == 2, (arguments, found.stderr)
        assert message in found.stderr and "Traceback" not in found.stderr, found.stderr


@pytest.mark.once
def test_parity(tmp_path):
    """A small network on all three backends, as `python -m alexnet parity` does it with the full ones."""
    small = ("--width", "0.0625", "--image_size", "67", "--output", tmp_path / "parity.json")
    found = run("parity", "--networks", "krizhevsky2012", *small)
    assert found.returncode == 0, found.stderr
    record = json.loads((tmp_path / "parity.json").read_text())
    (row,) = record["rows"]
    assert row["network"] == "krizhevsky2012"
    assert all(0 < row[name] < bound for name, bound in BOUNDS.items()), row
    assert found.stdout.splitlines()[2].startswith("krizhevsky2012")


@pytest.mark.once
def test_the_recorded_parity_holds():
    """What 01_architecture shows: full networks, all of them, within the bounds."""
    record = json.loads((ROOT / "benchmarks" / "results" / "parity.json").read_text())
    assert (record["width"], record["image_size"]) == (1.0, None)
    assert [row["network"] for row in record["rows"]] == list(PUBLISHED)
    for row in record["rows"]:
        assert all(row[name] < bound for name, bound in BOUNDS.items()), row


@pytest.mark.once
def test_bad_usage(call):
    for arguments, message in (
        (["train", "--epoch", "3"], "unrecognized arguments: --epoch 3. Did you mean epochs?"),
        (["train", "--backend", "jaxx"], "Did you mean jax?"),
        (["tran"], "invalid choice"),
        (["batch", "absent.ipynb"], "There is no notebook absent.ipynb"),
        (["batch", "notebooks/02_train.ipynb", "-p", "widht", "1"], "Did you mean width?"),
        (["batch", "notebooks/02_train.ipynb", "--grid", "width"], "--grid takes NAME=VALUE,VALUE"),
        (["batch", "notebooks/02_train.ipynb", "--backends", "torhc"], "Did you mean torch?"),
    ):
        found = call(*arguments)
        assert found.returncode == 2, (arguments, found.stderr)
        assert message in found.stderr and "Traceback" not in found.stderr


@pytest.mark.once
def test_a_backend_that_is_not_there():
    found = run("train", KERAS_BACKEND="caffe")
    assert found.returncode == 2 and "backend: received 'caffe'; allowed: tensorflow, jax, torch" in found.stderr
    absent = "import sys; sys.modules['tensorflow'] = None\nfrom alexnet.cli import main; sys.exit(main(['train']))"
    found = run(absent, program=["-c"], KERAS_BACKEND="")
    assert found.returncode == 2 and "Keras would run on tensorflow, which is not installed here" in found.stderr
    assert "Traceback" not in found.stderr
    hidden = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'jax' else real(name, *rest)\n"
        "from alexnet.cli import main; sys.exit(main(['train', '--backend', 'jax']))"
    )
    found = run(hidden, program=["-c"])
    sentence = "error: backend: jax is not installed here. Install it with: pip install jax, or its extra: "
    assert (found.returncode, found.stderr) == (2, f"{sentence}pip install 'alexnet-keras[jax]'\n")


@pytest.mark.once
def test_settings_with_which_keras_does_not_start(tmp_path):
    for content, message in (
        ('{"floatx": "float17"}', "Expected one of"),
        ('{"backend": "mxnet"}', "mxnet"),
        ("[1]", ""),
    ):
        (tmp_path / "keras.json").write_text(content)
        found = run("train", KERAS_HOME=str(tmp_path), KERAS_BACKEND="")
        assert found.returncode == 2 and len(found.stderr.splitlines()) == 1, found.stderr
        assert found.stderr.startswith("error: backend: Keras does not start. ") and message in found.stderr
        assert found.stderr.endswith(f"Its settings are those of {tmp_path / 'keras.json'}.\n")


WITHOUT = """
import sys
from importlib.machinery import PathFinder

absent, real = sys.argv.pop(1).split(","), PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in absent else real(name, *rest)
from alexnet.cli import main
"""


@pytest.mark.once
def test_packages_that_a_task_does_not_need(tiny, tmp_path):
    """One process trains and evaluates without any of them; if one is needed, the error only names it."""
    absent = "psutil,matplotlib,papermill,nbformat,nbconvert,jinja2,onnx,onnxruntime,safetensors,pyarrow,scipy"
    folder = Path(tiny["run_dir"]) / "tiny" / "torch"
    words = {**tiny, "epochs": 1, "backend": "torch"}
    commands = [
        ["train", *map(str, flags(words))],
        ["evaluate", "--weights", str(folder)],
        ["convert", str(folder), str(tmp_path / "x.pth"), "--backend", "torch"],
        ["convert", str(folder), str(tmp_path / "x.onnx")],
        ["convert", str(folder), str(tmp_path / "x.safetensors")],
        ["batch", "notebooks/02_train.ipynb"],
    ]
    program = WITHOUT + f"for words in {commands!r}: print('status', main(words), flush=True)\n"
    program += "from benchmarks.__main__ import main as bench; print('status', bench(['--quick']))"
    found = run(absent, program=["-c", program], KERAS_BACKEND="torch")
    assert found.returncode == 0, found.stderr
    statuses = [int(line.split()[1]) for line in found.stdout.splitlines() if line.startswith("status ")]
    assert statuses == [0, 0, 0, 1, 1, 1, 1]
    assert "No figures were drawn: the package matplotlib is not installed here" in found.stdout
    extras = {"onnx": "formats", "safetensors": "formats", "nbformat": "studies", "psutil": None}
    sentence = "error: the package {0} is not installed here. Install it with: pip install {0}"
    extra = ", or its extra: pip install 'alexnet-keras[{0}]'"
    lines = [sentence.format(name) + (extra.format(of) if of else "") for name, of in extras.items()]
    assert found.stderr.splitlines() == lines
    assert json.loads((folder / "metrics.json").read_text())["hardware"]["memory_bytes"] > 0
    assert not list(tmp_path.glob("x.onnx")) and not list(tmp_path.glob("x.safetensors"))


@pytest.mark.once
def test_commands_do_not_write_into_one_folder_at_once(tiny, tmp_path, call, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = tmp_path / "model.keras"
    save_checkpoint(AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16, initializer="zeros"), model)
    data = tiny["data_dir"]
    commands = {
        ".lock": ["evaluate", "--weights", model, "--data_dir", data, "--resize", "72", "--output", "~/out"],
        ".lock.tmp": ["pack", data, tmp_path / "out", "--resize", "72"],
    }
    for name, command in commands.items():
        with FolderLock(tmp_path / "out", name):
            found = call(*command)
        assert found.returncode == 1 and "in use by another process" in found.stderr, found.stderr
        assert len(found.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
        found = call(*command)
        assert found.returncode == 0, found.stderr
        assert (tmp_path / "out").is_dir() and not list((tmp_path / "out").glob(".*"))
        shutil.rmtree(tmp_path / "out")


@pytest.mark.once
def test_keras_cannot_change_its_backend():
    program = "import alexnet; alexnet.import_keras('torch'); alexnet.import_keras('jax')"
    found = run(program, program=["-c"])
    assert "Keras already runs on torch in this process and cannot change to jax" in found.stderr


@pytest.mark.slow
def test_the_backend_starts_quietly():
    found = run("import alexnet; alexnet.import_keras(); print('ready')", program=["-c"], TF_CPP_MIN_LOG_LEVEL="3")
    assert (found.stdout, found.stderr) == ("ready\n", "")


@pytest.mark.once
def test_papermill_itself_runs_the_notebook_with_parameters():
    """Papermill without our runner, as docs/notebooks.md shows it; tests/notebooks has each backend."""
    found = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook", ROOT / "notebooks" / "02_train.ipynb"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "learning_rate: Unknown type (default 0.005)" in found.stdout and "momentum" in found.stdout, found.stdout
