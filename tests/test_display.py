"""What a person sees during training: on a terminal, in a notebook, in a log."""

import contextlib
import os
import pty
import re
import signal
import sys
import threading
import types

import pytest
from runs_helpers import BACKEND, Told

from alexnet import progress, training
from alexnet.progress import Bar, is_interactive
from alexnet.recipe import Recipe
from alexnet.training import display, train

pytestmark = pytest.mark.once
STEPS = 6  # of an epoch of `tiny`


class InterruptAt(Told):
    """Ctrl-C in a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        self.step -= 1
        if not self.step:
            os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def terminal(monkeypatch):
    """Makes standard output a terminal of 90 columns; gives a list whose only string is afterwards what it showed."""
    leader, follower = pty.openpty()
    written, shown = [], []

    def read():
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(leader, 4096):
                written.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with open(follower, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        for name, value in {"TERM": "xterm", "COLUMNS": "90", "LINES": "24"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", stream)
        patch.setattr(progress, "INTERVAL", 0)
        yield shown
    reader.join()
    os.close(leader)
    shown.append(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(written).decode()))


@pytest.fixture
def notebook(monkeypatch):
    """Makes this process a notebook's kernel; a list of what its displays show, one after the other."""
    displays = []

    class Handle:
        def __init__(self, bundle):
            self.shown = [bundle]
            displays.append(self.shown)

        def update(self, bundle, raw):
            self.shown.append(bundle)

    monkeypatch.setattr(progress, "_shell", lambda: types.SimpleNamespace(kernel=True, user_ns={}))
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw, display_id: Handle(bundle))
    monkeypatch.setattr(progress, "INTERVAL", 0)
    return displays


def lines_of(text):
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("verbose", [None, 1, 2])
def test_a_log_has_one_line_an_epoch_under_one_header(tiny, capsys, verbose):
    run = train(Recipe(**tiny), verbose=verbose)
    said = capsys.readouterr()
    summary, header, *epochs = lines_of(said.out)
    assert said.err == "" and "3 classes" in summary and "\r" not in said.out
    assert re.split(r" {2,}", header) == [
        *("epoch", "loss", "top-1", "val loss", "val top-1", "val top-5", "learning rate", "seconds"),
    ]
    assert len(epochs) == 2 and all(len(line.removesuffix("  best")) == len(header) for line in epochs)
    for line, row in zip(epochs, run.history, strict=True):
        words = line.split()
        assert words[0] == f"{row['epoch']}/2" and words[1] == f"{row['loss']:.4f}"
        assert words[4] == f"{row['val_top1']:.1%}" and words[6] == f"{row['learning_rate']:.2g}"
    assert epochs[0].endswith("  best")
    assert epochs[1].endswith("  best") == (run.history[1]["val_top1"] > run.history[0]["val_top1"])


def test_silence(tiny, capsys, notebook):
    train(Recipe(**tiny), verbose=0)
    assert capsys.readouterr() == ("", "") and notebook == []


def test_a_terminal_shows_the_epoch_under_way(tiny, monkeypatch):
    with terminal(monkeypatch) as screen:
        train(Recipe(**tiny))
    (shown,) = screen
    for step in range(STEPS + 1):
        assert f"step {step} of {STEPS}" in shown
    assert "epoch 1 of 2" in shown and "epoch 2 of 2" in shown and "validation, batch 1 of" in shown
    assert re.search(r"loss [\d.]+, [\d,]+ images/s, about \d+ s left in this epoch, \d+ s in all", shown)
    assert re.findall(r" ([12]/2) +[\d.]+ +[\d.]+% ", shown) == ["1/2", "2/2"]  # lines of epochs, above the bar


def test_interrupted_and_resumed_on_a_terminal(tiny, monkeypatch):
    recipe = Recipe(**tiny)
    with pytest.raises(training.Interrupted) as caught:
        train(recipe, [InterruptAt(STEPS + 2)], verbose=0)
    folder = recipe.run_folder / BACKEND / "checkpoints"
    assert str(caught.value) == (
        f"Interrupted in epoch 2 of 2, after step 2 of {STEPS}. The run is saved, in {folder}: "
        "run the same command again to resume."
    )
    assert caught.value._render_traceback_() == [str(caught.value)] and caught.value.status == 130
    with terminal(monkeypatch) as screen:
        train(recipe)
    resumed = screen[0].partition("Resuming ")[2]
    assert resumed.startswith(f"in epoch 2 of 2, after step 2 of {STEPS}")
    found = [int(step) for step in re.findall(rf"epoch 2 of 2\D*step (\d) of {STEPS}", resumed)]
    assert found[0] == 2 and found == sorted(found)


def test_what_an_interruption_says_was_saved(tiny, monkeypatch):
    recipe = Recipe(**tiny)
    with monkeypatch.context() as patch, pytest.raises(training.Interrupted, match="before the training began: run"):
        patch.setattr(training, "load_data", lambda recipe: signal.raise_signal(signal.SIGINT))
        train(recipe)
    with monkeypatch.context() as patch, pytest.raises(training.Interrupted, match=r"step 1 of 6\. Nothing was saved"):
        patch.setattr(training.RunDir, "save", lambda self: None)  # as on a full disk
        train(recipe, [InterruptAt(1)], verbose=0)
    with pytest.raises(training.Interrupted, match="set resume to true and run the same command again"):
        train(recipe.replace(resume=False), [InterruptAt(3)], verbose=0)


def test_a_notebook_shows_a_bar_and_a_curve_that_grows(tiny, notebook, capsys):
    train(Recipe(**{**tiny, "epochs": 3}), verbose=1)
    bar, curve = notebook
    texts = [bundle["text/plain"] for bundle in bar]
    assert any(re.match(rf"epoch 2 of 3: step 3 of {STEPS}  loss [\d.]+, .* in all$", text) for text in texts)
    assert any(f'value="3" max="{STEPS}"' in bundle["text/html"] for bundle in bar)
    assert bar[-1]["text/html"] == ""
    assert [page["text/html"].count("<polyline") for page in curve] == [0, 0, 4, 4]
    points = [re.findall(r'points="([^"]*)"', page["text/html"])[0].split() for page in curve[2:]]
    assert [len(each) for each in points] == [2, 3]
    assert re.search(r'role="img" aria-label="After 3 epochs: loss [\d.]+, in validation', curve[-1]["text/html"])
    assert len(lines_of(capsys.readouterr().out)) == 1 + 1 + 3


def test_the_curve_of_a_loss_that_rises():
    history = [{"loss": 1.0, "val_loss": value, "top1": 0.5, "val_top1": 1.0} for value in (2.0, 4.0)]
    page = display._curve(history)["text/html"]
    assert f'points="0.0,{display._HEIGHT / 2:.1f} 300.0,0.0"' in page


def test_a_bar_is_drawn_four_times_a_second_at_most(notebook, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.25)
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in progress.progress(range(100), 100, "Counting", verbose=1):
        now[0] += 0.01
    (shown,) = notebook
    counts, notes = zip(*(bundle["text/plain"].partition("  ")[::2] for bundle in shown[1:-1]), strict=True)
    assert counts == tuple(f"Counting: {done} of 100" for done in (0, 25, 50, 75))
    assert notes[:3:2] == ("", "0.5 s left")


def test_a_bar_where_there_is_no_end_in_sight(notebook, monkeypatch):
    assert list(progress.progress(iter("abc"), None, "Counting", verbose=1)) == ["a", "b", "c"]
    assert notebook[0][2]["text/plain"] == "Counting: 1" and " max=" not in notebook[0][2]["text/html"]
    monkeypatch.setattr(progress, "_shell", lambda: None)
    with terminal(monkeypatch) as screen, Bar(sys.stdout) as bar:
        bar.draw("Counting", 3, None, "3")
    assert "Counting" in screen[0]


def test_who_is_watching(monkeypatch):
    for name in ("JPY_SESSION_NAME", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    assert not is_interactive()  # a program that a notebook has started, into a pipe
    shell = types.SimpleNamespace(kernel=True, user_ns={})
    monkeypatch.setattr(progress, "_shell", lambda: shell)
    assert is_interactive()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert not is_interactive()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert is_interactive()
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert not is_interactive()  # papermill
    shell.user_ns["__vsc_ipynb_file__"] = "a.ipynb"
    assert is_interactive()
