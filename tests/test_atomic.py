"""Files are written completely or not at all."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alexnet import atomic
from alexnet.atomic import atomic_write, remove_unfinished, write_csv, write_list, write_text

pytestmark = pytest.mark.once


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_name_at_the_end(tmp_path, durable):
    path = tmp_path / "a.weights.h5"
    path.write_text("old")
    with atomic_write(path, durable) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old" and unfinished.name.endswith(".weights.h5")
        unfinished.with_name("beside").write_text("not kept")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.weights.h5"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt(), ValueError("no")])
def test_after_an_error_the_old_file_is_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)), atomic_write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none.txt"):
        pass  # nothing was written
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch):
    path = tmp_path / "model"

    def write(text):
        with atomic_write(path) as unfinished:
            unfinished.mkdir()
            (unfinished / text).write_text(text)

    write("one")
    write("two")
    assert os.listdir(path) == ["two"] and os.listdir(tmp_path) == ["model"]
    real, calls = os.replace, []

    def fails_once(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(*paths)

    monkeypatch.setattr(atomic.os, "replace", fails_once)
    with pytest.raises(OSError, match="Input/output error"):
        write("three")
    assert os.listdir(path) == ["two"] and os.listdir(tmp_path) == ["model"]


def test_what_a_kill_leaves_is_removed(tmp_path):
    program = (
        "import os, signal, sys\nfrom alexnet.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as unfinished:\n"
        "    unfinished.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "a.txt").write_text("old")
    found = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.txt")], timeout=60)
    assert found.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old" and len(os.listdir(tmp_path)) == 2
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_writers_of_the_same_file_do_not_meet(tmp_path):
    texts = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "a.txt", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in texts and os.listdir(tmp_path) == ["a.txt"]


def test_tables(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ["name", "n"], [("é, f", 1), ("\udcff", 2)])
    assert path.read_bytes() == 'name,n\r\n"é, f",1\r\n\\udcff,2\r\n'.encode()
    write_list(path, ["name"], iter([("x",)]))
    assert path.read_text().split() == ["name", "x"]
    write_list(path, ["name"], [])
    write_list(path, ["name"], [])
    assert os.listdir(tmp_path) == []


def test_nothing_else_replaces_files():
    """Except for papermill's files, and for a drawn data set, which replaces nothing."""
    package = Path(atomic.__file__).parent
    found = {path.name for path in package.rglob("*.py") if re.search(r"os\.(replace|rename)\(", path.read_text())}
    assert found == {"atomic.py", "tasks.py", "shapes.py"}
