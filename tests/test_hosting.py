"""`python -m alexnet kaggle`: a self-contained notebook, and its metadata for Kaggle."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hosted_session
import nbformat
import pytest
from helpers import write_class_folders
from runs_helpers import BACKEND, stop_after

from alexnet import cli, hosting, mounts
from alexnet.hosting.notebook import MAX_BYTES, archive
from alexnet.recipe import PROJECT, Recipe
from alexnet.training import train

pytestmark = pytest.mark.once

NOTEBOOKS = sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb"))
# Every key that `kaggle kernels push` reads, except `id_no`, an alternative to `id`.
KEYS = "id title code_file language kernel_type is_private enable_gpu enable_tpu enable_internet machine_shape "
KEYS += "dataset_sources competition_sources kernel_sources model_sources keywords docker_image "
KEYS += "docker_image_pinning_type"


def make(folder, *arguments, notebook="02_train", status=0):
    """The metadata and the notebook that the command writes."""
    assert cli.main(["kaggle", notebook, str(folder), "--user", "Somebody", *arguments]) == status
    if status:
        return None
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    return metadata, nbformat.read(folder / metadata["code_file"], as_version=4)


def cell(notebook, tag):
    (found,) = [each for each in notebook.cells if tag in each.metadata.get("tags", ())]
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_notebook_is_small_and_valid(tmp_path, name):
    metadata, notebook = make(tmp_path / "out", notebook=name)
    nbformat.validate(notebook)
    assert sorted(metadata) == sorted(KEYS.split())
    slug = name.replace("_", "-")
    assert (metadata["id"], metadata["title"]) == (f"somebody/alexnet-{slug}", f"AlexNet {name.replace('_', ' ')}")
    assert (tmp_path / "out" / f"{name}.ipynb").stat().st_size < MAX_BYTES
    tags = [tag for each in notebook.cells for tag in each.metadata.get("tags", [])]
    assert tags[:2] == ["parameters", "package"]  # before the cell that imports it
    text = "\n".join(each.source for each in notebook.cells if each.cell_type == "markdown")
    assert not re.findall(r"\]\((?!https?:|#|data:)[^)\s]*\)", text)  # no link to a file that does not exist


def test_the_archive_has_what_notebooks_read_in_the_checkout(tmp_path):
    assert archive() == archive()
    _, notebook = make(tmp_path / "out")
    folder = unpack(notebook, tmp_path)
    for name in NOTEBOOKS:
        source = (PROJECT / "notebooks" / f"{name}.ipynb").read_text()
        for parts in re.findall(r'PROJECT((?: / \\"[^"\\]+\\")+)', source):
            place = "/".join(re.findall(r'"(\w[^"\\]*)', parts))
            assert (folder / place).exists(), place
    assert (folder / "params" / "default.yaml").is_file() and not list(folder.rglob("*.png"))


def unpack(notebook, tmp_path, program=""):
    """The folder that the notebook's cell makes, as seen by a process that has no other copy of the package."""
    source = cell(notebook, "package").source
    after = f"import shutil; shutil.copytree(_unpacked.name, {str(tmp_path / 'seen')!r})\n{program}"
    (tmp_path / "program.py").write_text(f"{source}\n{after}")
    (tmp_path / "empty").mkdir()
    found = subprocess.run(
        [sys.executable, tmp_path / "program.py"], cwd=tmp_path / "empty", capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    (tmp_path / "printed").write_text(found.stdout)
    return tmp_path / "seen"


def test_paths_start_in_the_shells_folder(tmp_path):
    """The unpacked files are removed with the kernel, runs are not; other Python processes find the package, too."""
    _, notebook = make(tmp_path / "out")
    program = (
        "import alexnet.recipe as r, subprocess\nfrom alexnet.data.readers import drawing_places as places\n"
        "print(r.PROJECT, r.Recipe().run_folder, r.resolve('photos'), *places(), sep='\\n', flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import alexnet; print(alexnet.__file__)'])"
    )
    unpack(notebook, tmp_path, program)
    project, runs, photos, cache, here, other = (tmp_path / "printed").read_text().splitlines()
    assert "/alexnet-" in project and not Path(project).exists()
    assert [runs, photos, here] == [f"{tmp_path}/empty/{name}" for name in ("runs/default", "photos", "data")]
    assert cache.endswith("alexnet/data") and other == f"{project}/alexnet/__init__.py"


def test_a_changed_package_is_not_run(tmp_path):
    _, notebook = make(tmp_path / "out")
    source = cell(notebook, "package").source
    for changed in (source[:5000] + source[5077:], source[:5000] + source[6000:], source[:5000] + "x" + source[5001:]):
        with pytest.raises(RuntimeError, match="was changed or cut off"):
            exec(changed, {})


def test_parameters_are_written_as_papermill_writes_them(tmp_path):
    """From files and flags, later values replacing earlier ones, each with its type."""
    (tmp_path / "x.yaml").write_text("epochs: 5\nlearning_rate: 1e-3\nname: '007'\nweights: null\n")
    flags = ["-f", str(tmp_path / "x.yaml"), "-p", "epochs", "3", "-p", "mirror", "false"]
    _, notebook = make(tmp_path / "out", *flags)
    found = cell(notebook, "injected-parameters")
    assert found.source.splitlines() == [
        *("# Parameters", "epochs = 3", "learning_rate = 0.001", "name = '007'", "weights = None", "mirror = False")
    ]
    before = notebook.cells[notebook.cells.index(found) - 1]
    assert before.metadata.tags == ["parameters"]


def test_what_kaggle_is_asked_for(tmp_path):
    flags = ["--gpu", "--internet", "--public", "--title", "Pets & AlexNet", "--data", "me/pets"]
    metadata, notebook = make(tmp_path / "out", *flags, "--kernel", "me/earlier", "--model", "a/b/keras/c/1")
    assert metadata["id"] == "somebody/pets-alexnet" and notebook.metadata.accelerator == "GPU"
    wanted = {"enable_gpu": True, "enable_internet": True, "is_private": False, "machine_shape": "NvidiaTeslaT4"}
    wanted |= {"dataset_sources": ["me/pets"], "kernel_sources": ["me/earlier"], "model_sources": ["a/b/keras/c/1"]}
    assert {name: metadata[name] for name in wanted} == wanted
    assert "data_dir = 'me/pets'" in cell(notebook, "injected-parameters").source
    metadata, notebook = make(tmp_path / "out", "--competition", "dogs", "--model", "a/b/keras/c/1",
                              "-p", "weights", "a/b/Keras/c/1/x.keras")  # fmt: skip
    plain = {"enable_gpu": False, "enable_internet": False, "is_private": True, "competition_sources": ["dogs"]}
    assert {name: metadata[name] for name in plain} == plain
    assert "data_dir = 'dogs'" in cell(notebook, "injected-parameters").source


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--user", "some body"], "--user: a Kaggle user name has letters, digits, - and _. Received: 'some body'"),
        (["--data", "pets"], "--data takes OWNER/SLUG"),
        (["--competition", "a/b"], "--competition takes SLUG"),
        (["--model", "a/b"], "--model takes OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"),
        (["--title", "abc"], "--title: Kaggle takes 5 to 50 letters. Received: 3"),
        (["--title", "日本語のノート"], "--title: no address can be made"),
        (["-p", "epoch", "3"], "epoch: unknown parameter of 02_train.ipynb. Did you mean epochs?"),
        (["-p", "epochs", "0"], "epochs: received '0'; allowed: a whole number at least 1"),
        (["-p", "data_dir", "photos"], "data_dir: photos is not attached, and Kaggle does not see this machine's"),
        (["-p", "weights", "/home/me/x.keras"], "weights: /home/me/x.keras is not attached"),
        (["-p", "data_dir", "cifar10"], "data_dir: cifar10 is downloaded, which takes --internet"),
        (["--data", "a/b", "--data", "a/c"], "2 sources of data are attached; say which is trained on"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, capsys, flags, message):
    make(tmp_path / "out", *flags, status=2)
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_folders_and_notebooks_that_cannot_be_used(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"
    make(folder)
    make(folder, "-p", "epochs", "2")  # the command's own files are replaced
    (folder / "thesis.tex").touch()
    make(folder, status=2)
    make(folder / "thesis.tex", status=2)
    make(tmp_path / "new", notebook="02_trian", status=2)
    (tmp_path / "a.ipynb").write_text("{}")
    make(tmp_path / "new", notebook=str(tmp_path / "a.ipynb"), status=2)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    make(tmp_path / "new", notebook=str(tmp_path / "a.ipynb"), status=2)
    monkeypatch.setattr("alexnet.hosting.notebook.MAX_BYTES", 1000)
    make(tmp_path / "new", status=2)
    said = capsys.readouterr().err.splitlines()
    for line, part in zip(
        said,
        ["holds other files (thesis.tex)", "is a file", "There is no notebook 02_trian. Did you mean 02_train",
         "is not a notebook", "no cell tagged parameters", "Kaggle takes fewer than 1,000"],
        strict=True,
    ):  # fmt: skip
        assert part in line
    assert not (tmp_path / "new").exists()


def test_without_a_checkout_any_notebook_is_taken_by_its_path(tmp_path, capsys, monkeypatch):
    notebooks = PROJECT / "notebooks"
    for module in ("notebook",):
        monkeypatch.setattr(f"alexnet.hosting.{module}.PROJECT", tmp_path)
    make(tmp_path / "out", status=2)
    make(tmp_path / "out", notebook=str(notebooks / "05_backends.ipynb"), status=2)
    said = capsys.readouterr().err.splitlines()
    assert "There is no notebook 02_train. Give the path of a notebook." in said[0]
    assert "05_backends.ipynb reads the folder benchmarks, which the installed package does not have" in said[1]
    _, notebook = make(tmp_path / "out", notebook=str(notebooks / "02_train.ipynb"))
    assert not (unpack(notebook, tmp_path) / "params").exists()


def test_links_and_pictures_of_a_page(tmp_path, monkeypatch):
    from alexnet.hosting import notebook

    monkeypatch.setattr(notebook, "PROJECT", tmp_path)
    for name in ("notebooks/02.ipynb", "docs/c.md", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"png")
    end = "[e](https://f) [g](#h) ![i](data:image/png;base64,cG5n) $x[0](y)$"
    text = "[a](02.ipynb) [b](../docs/c.md#d) " + end.replace("data:image/png;base64,cG5n", "../a.png")
    assert notebook._freed(text, tmp_path / "notebooks", "") == f"a b {end}"
    there = "https://github.com/me/net/blob/main"
    freed = notebook._freed(text, tmp_path / "notebooks", "me/net")
    assert freed == f"[a]({there}/notebooks/02.ipynb) [b]({there}/docs/c.md#d) {end}"


@pytest.mark.skipif(importlib.util.find_spec("kaggle") is None, reason="needs the package kaggle, see the script")
def test_kaggles_own_client_takes_the_folder(tmp_path):
    make(tmp_path / "out", "--gpu", "--data", "me/pets")
    script = Path(__file__).with_name("kaggle_client.py")
    found = subprocess.run([sys.executable, script, tmp_path / "out"], capture_output=True, text=True, timeout=60)
    sent = json.loads(found.stdout)
    assert "title" not in sent["printed"] and sent["cells"] > 20
    request = sent["request"]
    assert request["slug"] == "somebody/alexnet-02-train" and request["dataset_data_sources"] == ["me/pets"]
    assert (request["enable_gpu"], request["enable_internet"], request["is_private"]) == (True, False, True)


def test_a_run_on_colabs_drive_mounts_it_first(tmp_path):
    _, notebook = make(tmp_path / "out", "-p", "run_dir", "/content/drive/MyDrive/runs")
    tags = [tag for each in notebook.cells for tag in each.metadata.get("tags", [])]
    assert tags[:4] == ["parameters", "injected-parameters", "package", "drive"]
    assert 'drive.mount("/content/drive")' in cell(notebook, "drive").source
    _, notebook = make(tmp_path / "out", "-p", "run_dir", "/content/runs")
    assert "google" not in json.dumps([each.source for each in notebook.cells[:5]])


# --- A session


@pytest.mark.slow
def test_a_session_on_kaggle(tmp_path, tiny, monkeypatch):
    """Images by the slug of a data set; the run of an earlier session resumes; the notebook is unchanged.

    Nothing is written but what is kept, and no package is there but the notebook's own: the repository is not.
    """
    if not hosted_session.can_isolate():
        pytest.skip("this machine does not let its users make namespaces: see the next test")
    write_class_folders(tmp_path / "input/datasets/me/pets", {"train": 24, "val": 6})
    unfinished_run(tmp_path, tiny, monkeypatch)
    flags = ["--data", "me/pets", "--kernel", "somebody/alexnet-02-train"]
    values = {name: tiny[name] for name in ("name", "resize", "width", "epochs", "batch_size")}
    make(tmp_path / "out", *flags, *[word for pair in values.items() for word in ("-p", pair[0], str(pair[1]))])
    notebook = nbformat.read(tmp_path / "out" / "02_train.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LOOK))
    nbformat.write(notebook, tmp_path / "out" / "02_train.ipynb")
    found = hosted_session.run(tmp_path / "out", tmp_path, BACKEND, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    check_session(tmp_path)
    last = nbformat.read(tmp_path / "working" / "out.ipynb", as_version=4).cells[-1]
    output = "".join(part.text for part in last.outputs)  # a slow machine sends it in parts
    assert output.split() == ["/kaggle/working", "True", "Read-only", "Network", "True"]


# What a cell sees of the session: its folder, the package's place, input read-only, no network, no repository.
LOOK = f"""
import errno, pathlib, socket, tempfile, alexnet
print(pathlib.Path.cwd(), alexnet.__file__.startswith(tempfile.gettempdir() + "/alexnet-"))
for attempt in (lambda: open("/kaggle/input/x", "w"), lambda: socket.create_connection(("1.1.1.1", 53), timeout=5)):
    try:
        print("done", attempt())
    except OSError as error:
        print(error.strerror.split()[0])
print(not pathlib.Path({str(PROJECT)!r}, "alexnet").exists())
"""


@pytest.mark.slow
def test_a_session_where_nothing_can_be_isolated(tmp_path, tiny, monkeypatch):
    """The same with a folder instead of /kaggle, and the cells as one program, for machines without namespaces."""
    if hosted_session.can_isolate():
        pytest.skip("the test above says more")
    write_class_folders(tmp_path / "input/datasets/me/pets", {"train": 24, "val": 6})
    unfinished_run(tmp_path, tiny, monkeypatch)
    values = {name: tiny[name] for name in ("name", "resize", "width", "epochs", "batch_size")}
    flags = ["--data", "me/pets", *[word for pair in values.items() for word in ("-p", pair[0], str(pair[1]))]]
    make(tmp_path / "out", *flags)
    command = [sys.executable, "-m", "papermill", tmp_path / "out" / "02_train.ipynb", "out.ipynb", "-k", "python3"]
    variables = {**os.environ, "KAGGLE_KERNEL_RUN_TYPE": "Batch", "ALEXNET_KAGGLE_ROOT": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path / "working", env=variables, check=True, timeout=300)
    check_session(tmp_path)


def unfinished_run(kaggle, tiny, monkeypatch):
    """Attach what the last session left to this one."""
    output = kaggle / "input/notebooks/somebody/alexnet-02-train"
    (kaggle / "working").mkdir()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="session"):
        patch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        patch.setattr(mounts, "INPUT", kaggle / "input")
        patch.setattr(mounts, "WORKING", output)
        output.mkdir(parents=True)
        stop_after(patch, 8, OSError("end of session"))
        train(Recipe(**{**tiny, "data_dir": "me/pets", "run_dir": "runs", "image_size": 67}), verbose=0)


def check_session(kaggle):
    folder = kaggle / "working" / "runs" / "tiny" / BACKEND
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "finished" and metrics["results"]["epoch"] == 2
    text = (kaggle / "working" / "out.ipynb").read_text()
    assert "The run of an earlier session" in text and "Resuming after epoch 1 of" in text
    assert sorted(path.name for path in (kaggle / "working").iterdir() if path.name[0] != ".") == ["out.ipynb", "runs"]


# --- Badges


def test_badges_once_the_repository_is_known(tmp_path, monkeypatch):
    """One for each notebook and each host, opening a self-contained notebook; without an owner there are none."""
    path = PROJECT / "docs" / "write_badges.py"
    spec = importlib.util.spec_from_file_location("write_badges", path)
    badges = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(badges)
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    plain = badges.readme(text, "")
    assert "Open in" not in plain and badges.readme(text, hosting.repository()) == text
    found = badges.readme(plain, "me/net")
    assert badges.readme(found, "me/net") == found and badges.readme(found, "") == plain
    for host, start in (("Colab", "https://colab.research.google.com/github/"), ("Kaggle", "https://kaggle.com/")):
        links = re.findall(rf"\[!\[Open in {host}\]\(\S+\)\]\((\S+)\)", found)
        assert [Path(link).stem for link in links] == NOTEBOOKS and all(link.startswith(start) for link in links)

    for name in ("notebooks", "hosted"):
        (tmp_path / name).mkdir()
    (tmp_path / "notebooks" / "02_train.ipynb").write_bytes((PROJECT / "notebooks" / "02_train.ipynb").read_bytes())
    (tmp_path / "README.md").write_text(plain)
    monkeypatch.setattr(badges, "ROOT", tmp_path)
    monkeypatch.setattr(badges, "README", tmp_path / "README.md")
    monkeypatch.setattr(badges, "repository", lambda: "me/net")
    badges.main()
    assert (tmp_path / "README.md").read_text() == found
    cell(nbformat.read(tmp_path / "hosted" / "02_train.ipynb", as_version=4), "package")
