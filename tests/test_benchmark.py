"""The baselines compute our network, and their times are evaluated correctly. Only for the backend under test."""

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
from keras import ops

from alexnet import plotting, profiling
from alexnet.cli import main as package_main
from alexnet.layers import GroupedConv2D, LocalResponseNormalization
from alexnet.model import AlexNet
from alexnet.parity import set_numpy_weights
from alexnet.plotting.speed import candidate_name
from alexnet.recipe import Recipe
from benchmarks import few_images
from benchmarks.__main__ import main
from benchmarks.harness import candidates, growth, in_process, suite, targets, worker
from benchmarks.harness.comparison import compare_backends, fastest, ratio, ratios, run_interleaved

ROOT = Path(__file__).resolve().parents[1]
BACKEND = keras.backend.backend()
BASELINES = candidates.NETWORKS[BACKEND][1:]
SMALL = {"image_size": 67, "width": 0.25, "classes": 10, "dropout": 0.0}
TINY = {"batch_size": 2, "image_size": 67, "width": 0.0625}


@pytest.fixture
def module_of(monkeypatch):
    """The module of a candidate, imported here."""
    if BACKEND == "torch":  # this tests only that the compiler accepts the baseline, without half a minute of C++
        import torch

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    return functools.partial(worker.module_of, BACKEND)


def trained(baseline):
    """Logits (up to a constant) before and after many steps that only decay kernels, a first step's loss, and logits
    before and after three steps of descent. All weights come from NumPy."""
    model = AlexNet(input_shape=(67, 67, 3), classes=10, width=0.25, initializer="zeros")
    set_numpy_weights(model)
    weights = {layer.name: layer.get_weights() for layer in model.layers if layer.get_weights()}
    weights["conv1"][0] /= 75  # activations of about 1, and logits of about a tenth
    weights["fc8"][0] *= 0.1
    rng = np.random.default_rng(5)
    batch = baseline.batch(rng.integers(0, 256, (2, 67, 67, 3), np.uint8), np.zeros(2, np.int32))

    def logits(first_bias):
        found = np.log(np.asarray(baseline.predict(batch)))
        return found[:, 1:] - found[:, 1:].mean() if first_bias else found

    found = {}
    # The network is certain of the true class, so gradients vanish.
    for name, first_bias, steps in (("decay", 40.0, 30), ("descent", 0.0, 3)):
        weights["fc8"][1][:] = [first_bias, *[0] * 9]
        baseline.set_weights(weights)
        found[f"before {name}"] = logits(first_bias)
        found["loss"], _ = baseline.train(batch, 1)
        baseline.train(batch, steps - 1)
        found[f"after {name}"] = logits(first_bias)
    return found


@functools.cache
def ours_trained(module):
    return trained(module.Network("ours", **SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_our_network(module_of, name):
    """The same weights give the same logits; momentum, and decay of kernels only, work in the same way as ours."""
    ours = ours_trained(module_of("ours"))
    theirs = trained(module_of(name).Network(name, **SMALL))
    for trial, effect in (("decay", 0.005), ("descent", 0.1)):
        before, after = f"before {trial}", f"after {trial}"
        scale = max(np.abs(ours[before]).max(), np.abs(ours[after]).max())
        assert np.abs(ours[after] - ours[before]).max() > effect * scale  # far above the tolerance
        for moment in (before, after):
            np.testing.assert_allclose(theirs[moment], ours[moment], rtol=0, atol=1e-4 * scale)
    if name != "keras":  # which adds the penalty of its kernels
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)


@pytest.mark.parametrize("name", candidates.NORMALIZATIONS[BACKEND])
def test_normalizations_are_the_same(module_of, name):
    """Output and gradient, compared with NumPy in float64."""
    rng = np.random.default_rng(1)
    x, above = rng.normal(0, 80, (2, 3, 4, 10)).astype("float32"), rng.normal(0, 1, (2, 3, 4, 10)).astype("float32")
    near = np.abs(np.subtract.outer(range(10), range(10))) <= 2
    scale = 2 + 1e-4 * np.square(x, dtype="float64") @ near
    output = x * scale**-0.75
    below = above * scale**-0.75 - 1.5e-4 * x * ((above * x * scale**-1.75) @ near)
    found = [ops.convert_to_numpy(array) for array in module_of(name).normalization(name, x, above)()]
    if found[0].shape != x.shape:  # channels first
        found = [array.transpose(0, 2, 3, 1) for array in found]
    np.testing.assert_allclose(found[0], output, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], below, rtol=1e-4, atol=1e-5)


class Fake:
    """A candidate with known times: a second, slower from turn to turn as if the machine got warm."""

    def __init__(self, log, name, seconds):
        self.log, self.name, self.seconds = log, name, seconds

    def request(self, do, count, **arguments):
        self.log.append((self.name, do, count, arguments))
        return {"seconds": count * self.seconds * (1 + 0.001 * len(self.log)), "loss": 1.0, "memory": len(self.log)}


def test_a_contest_alternates():
    log = []
    fakes = {"slow": Fake(log, "slow", 3.0), "quick": Fake(log, "quick", 0.25)}
    times, last = run_interleaved(fakes, {"do": "predict", "batch_size": 4}, rounds=3, seconds=1.0, verbose=0)
    warm, rounds = ["slow", "slow", "quick", "quick"], ["slow", "quick", "quick", "slow", "slow", "quick"]
    assert [name for name, *_ in log] == warm + rounds
    assert {count for name, _, count, _ in log[4:] if name == "slow"} == {1}
    assert {count for name, _, count, _ in log[4:] if name == "quick"} == {4}
    assert all(do == "predict" and arguments == {"batch_size": 4} for _, do, _, arguments in log)
    assert times["slow"] == pytest.approx([3.015, 3.024, 3.027]) and len(times["quick"]) == 3
    assert last["quick"]["memory"] == len(log)


def test_ratios():
    times = {"ours": [1.0, 2.0, 4.0], "a": [2.0, 2.0, 2.0], "b": [1.0, 3.0, 12.0]}
    assert ratio(times["ours"], times["b"]) == {"median": 1.5, "min": 1.0, "max": 3.0}
    assert ratios(times)["a"] == {"median": 1.0, "min": 0.5, "max": 2.0} and set(ratios(times)) == {"a", "b"}
    assert fastest({"x": [1, 9, 9], "y": [8, 8, 8]}) == "y"
    found = compare_backends({"jax": [2.0, 2.0], "torch": [4.0, 5.0], "tensorflow": [3.0, 3.0]})
    assert (found["slowest"], found["fastest"]) == ("torch", "jax") and found["median"] == pytest.approx(0.45)


def made_up():
    """A record in which ours is as fast as the best baselines, and twice as fast as Keras's own convolution."""
    record = {"settings": {"backends": ["jax", "torch"], "batch_size": 32, "image_size": 227, "width": 1.0}}
    record["comparisons"], record["startup"] = [], []
    for backend, names in (("jax", ("ours", "keras", "columns")), ("torch", ("ours", "keras", "eager"))):
        times = dict(zip(names, ([1.0, 1.1], [2.0, 2.2], [1.0, 1.1]), strict=True))
        for work, batch_size in (("training", 32), ("inference", 1), ("inference", 32)):
            record["comparisons"].append(
                {"group": backend, "work": work, "batch_size": batch_size, "seconds": times, "ratios": ratios(times)}
            )
        for name, memory, first in zip(names, (2.0e9, 3.0e9, 1.9e9), (9.9, 1.0, 1.0), strict=True):
            record["startup"].append(
                {"backend": backend, "candidate": name, "memory_bytes": memory, "first_step_seconds": first}
            )
    among = {"jax": [0.9, 0.9], "torch": [1.0, 1.0]}
    record["comparisons"].append({"group": "backends", "work": "training", "batch_size": 32, "seconds": among})
    norms = {"jax ours": [0.1], "jax shifted sum": [0.21], "torch ours": [0.1], "torch LocalResponseNorm": [0.29]}
    record["comparisons"].append({"group": "all", "work": "normalization", "batch_size": 32, "seconds": norms})
    record["scaling"] = [
        {"backend": backend, "batch_size": batch_size, "image_size": image_size, "width": width}
        | {"training_seconds": 0.1 * batch_size, "inference_seconds": 0.02 * batch_size, "memory_bytes": 1e9}
        for backend in ("jax", "torch")
        for batch_size, image_size, width in ((1, 227, 1.0), (32, 227, 1.0), (32, 67, 1.0), (32, 227, 0.25))
    ]
    return record


@pytest.mark.once
def test_targets():
    rows = {row["target"]: row for row in targets.check_targets(made_up())}
    assert {target: row["met"] for target, row in rows.items()} == {
        "LRN: torch ours against torch LocalResponseNorm": False,
        "LRN: jax ours against jax shifted sum": True,
        "training: jax ours against columns, the best baseline": False,
        "training: jax ours against Keras's Conv2D(groups=2)": False,
        "training: torch ours against eager, the best baseline": False,
        "training: torch, the slowest backend, against jax, the fastest": True,
        "inference: jax ours against columns, the best baseline": True,
        "inference: torch ours against eager, the best baseline": True,
        "peak memory: jax ours against columns, the best baseline": False,
        "peak memory: torch ours against eager, the best baseline": False,
        "first step: jax ours": True,
        "first step: torch ours": True,
    }
    assert [target.partition(":")[0] for target in rows][::5] == ["LRN", "training", "first step"]
    keras_row = rows["training: jax ours against Keras's Conv2D(groups=2)"]
    assert (keras_row["wanted"], keras_row["measured"], keras_row["range"]) == (4.0, 2.0, [2.0, 2.0])


@pytest.mark.once
def test_pictures_of_a_record():
    record = json.loads(json.dumps(made_up()))
    drawn = plotting.benchmark(record), plotting.scaling(record)
    rates = [bar.get_width() for bar in drawn[0].axes[0].patches]
    assert rates == pytest.approx([32 / 1.05, 32 / 2.1, 32 / 1.05], rel=0.01)
    assert [bar.get_width() for bar in drawn[0].axes[5].patches] == pytest.approx([100, 290])
    assert len(drawn[1].axes[0].lines) == 4  # training and inference, two backends
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in drawn[1].axes} == {("log", "log")}
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels[0] == "this package" and {"Keras, written plainly", "JAX, two convolutions"} <= set(labels)
    better = [drawn[0].axes[k].get_xlabel().rpartition("(")[2] for k in (0, 2, 4)]
    assert better == ["longer is better)", "longer is better)", "shorter is better)"]
    rows = [{"layer": name, "forward_seconds": 0.01, "backward_seconds": 0.02} for name in ("conv1", "relu1")]
    for figure in (*drawn, plotting.layer_times(rows)):
        figure.canvas.draw()
    assert plt.get_fignums() == []


@pytest.mark.once
def test_names_of_all_candidates():
    names = {
        name for group in (candidates.NETWORKS, candidates.NORMALIZATIONS) for row in group.values() for name in row
    }
    assert {name for name in names if candidate_name(name) == name} == set()


@pytest.mark.once
def test_exponents_of_growth():
    """For times that are a power of the size, and for a sum of powers, in which the larger one dominates in the end."""
    settings = {"backends": ["jax"], "batch_size": 32, "image_size": 227, "width": 1.0}
    rows = [{"backend": "jax", **settings, "batch_size": n, "training_seconds": n**0.5, "inference_seconds": 50 + n**2}
            for n in (1, 2, 8, 32, 128, 512)]  # fmt: skip
    record = {"settings": settings, "scaling": [*rows, {**rows[0], "batch_size": 32, "width": 0.5}]}
    (every, width), (last, _) = growth.exponents(record), growth.exponents(record, last=2)
    assert (every["size"], every["backend"], width["size"]) == ("batch_size", "jax", "width")
    assert every["training"] == pytest.approx(0.5) == last["training"]
    assert every["inference"] < 1.5 < 1.9 < last["inference"] < 2


@pytest.mark.once
def test_the_study_of_few_images_changes_one_thing_at_a_time():
    made = {name: few_images.recipe_of(name, 20, 1, "signs", "runs") for name in few_images.VARIANTS}
    scratch, tuned, frozen = (recipe.model_dump() for recipe in made.values())
    assert {name for name in tuned if tuned[name] != frozen[name]} == {"name", "freeze"}
    assert {name for name in tuned if tuned[name] != scratch[name]} == {"name", "weights", "learning_rate"}
    every = few_images.recipe_of("from scratch", few_images.ALL, 0, "signs", "runs")
    assert every == Recipe(name="from-scratch-200-0", images_per_class=few_images.ALL)  # the default run
    row = {"images_per_class": 20, "training": "fine-tuned", "top1": [0.5, 0.7]}
    assert few_images.describe(row).endswith(" 60.0% ± 14.1%  (50.0%, 70.0%)")


@pytest.mark.slow
def test_a_candidate_answers_and_stands_still(capfd):
    candidate = candidates.Candidate(BACKEND, "ours")
    try:
        assert candidate.import_seconds > 0.1
        assert candidate.request("normalization", shape=[2, 5, 5, 8])["first_step_seconds"] > 0
        found = candidate.request("normalize", count=2)
        assert found["seconds"] > 0 and found["memory"] > 50e6
        process = psutil.Process(candidate._process.pid)
        assert process.status() == psutil.STATUS_STOPPED
        with pytest.raises(candidates.BenchmarkError, match=f"{BACKEND} ours: AttributeError: .*'dance'"):
            candidate.request("dance")
        with pytest.raises(candidates.BenchmarkError, match=f"{BACKEND} ours ended with status 1. AttributeError"):
            candidate.request("normalize", count=1)  # it does not continue after a failure
    finally:
        candidate.close()
    assert not process.is_running()
    assert capfd.readouterr() == ("", "")  # the libraries' messages stay with the candidate


@pytest.mark.once
@pytest.mark.slow
def test_a_candidate_ends_with_its_parent():
    program = (
        "import os, signal\nfrom benchmarks.harness.candidates import Candidate\n"
        f"print(Candidate({BACKEND!r}, 'ours')._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    assert found.returncode == -signal.SIGKILL
    until = time.monotonic() + 10
    while _alive(int(found.stdout)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _alive(int(found.stdout))


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.once
def test_the_whole_benchmark(monkeypatch, tmp_path, capsys):
    """The command from its flags to its files, with a few candidates, tiny networks and one round."""
    monkeypatch.setitem(candidates.NETWORKS, BACKEND, ("ours", BASELINES[1], "absent"))
    monkeypatch.setitem(candidates.NORMALIZATIONS, BACKEND, ("ours",))
    monkeypatch.setattr(suite, "TRAINING_SECONDS", 0.1)
    sizes = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    assert main(["--backends", BACKEND, "--rounds", "1", *sizes, "--output", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "bench.json").read_text())
    assert [(c["group"], c["work"], c["batch_size"]) for c in record["comparisons"]] == [
        (BACKEND, "training", 2),
        (BACKEND, "inference", 1),
        (BACKEND, "inference", 2),
        ("all", "normalization", 2),
    ]
    assert all(len(rounds) == 1 for comparison in record["comparisons"] for rounds in comparison["seconds"].values())
    assert [row["candidate"] for row in record["startup"]] == ["ours", BASELINES[1]]
    assert list(record["left_out"]) == [f"{BACKEND} absent"]
    assert record["versions"]["keras"] == keras.__version__ and record["hardware"]["cores"] >= 1
    assert {row["target"].partition(":")[0] for row in record["targets"]} >= {"training", "inference", "first step"}
    printed = capsys.readouterr().out
    assert f"{BACKEND}: training, 2 images" in printed and "Targets" in printed and "absent" in printed
    assert (tmp_path / "bench.png").stat().st_size < 150_000


@pytest.mark.once
def test_scaling_stops_at_long_steps(monkeypatch):
    monkeypatch.setattr(suite, "_cost", lambda backend, sizes: {"training_seconds": sizes["batch_size"] / 1.5})
    bench = suite.Suite({}, 1, {"batch_size": 4, "image_size": 227, "width": 1.0}, lambda part, value: None, 0)
    rows = bench.scaling(["jax"])
    assert [row["batch_size"] for row in rows if row["image_size"] == 227 and row["width"] == 1] == [1, 2, 4, 8, 16, 32]
    assert len(rows) == 6 + 6 + 4  # the size of the comparisons belongs to all three series


def test_times_of_layers():
    pixels = keras.Input((9, 9, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = GroupedConv2D(4, 3)(x)
    x = LocalResponseNormalization()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    model = keras.Model(pixels, keras.layers.Dense(5)(x))
    rows = profiling.layer_times(model, np.zeros((2, 9, 9, 3), "uint8"), repetitions=1)
    assert [row["layer"] for row in rows] == [layer.name for layer in model.layers[1:]]
    assert all(row["forward_seconds"] > 0 and row["backward_seconds"] >= 0 for row in rows)
    assert rows[0]["backward_seconds"] == 0  # it has no weights, and pixels need no gradient
    assert sum(row["backward_seconds"] for row in rows) > 0


@pytest.mark.once
@pytest.mark.slow
def test_measured_in_this_process():
    """A record with everything that the picture shows, and with measured times."""
    path = list(sys.path)
    rows = profiling.batch_times(AlexNet(input_shape=(67, 67, 3), classes=5, width=0.0625), (1, 4), repetitions=1)
    assert [row["batch_size"] for row in rows] == [1, 4] and all(row["seconds"] > 0 for row in rows)
    record = in_process.measure(**TINY, rounds=2, verbose=0)
    assert record["settings"] == {"backends": [BACKEND], "rounds": 2, **TINY}
    seconds = {(c["group"], c["work"]): c["seconds"] for c in record["comparisons"]}
    assert list(seconds) == [(BACKEND, "training"), (BACKEND, "inference"), ("all", "normalization")]
    assert list(seconds[BACKEND, "training"]) == ["ours", BASELINES[1]]
    assert all(len(rounds) == 2 and min(rounds) > 0 for times in seconds.values() for rounds in times.values())
    plotting.benchmark(record).canvas.draw()
    plotting.batch_times(rows).canvas.draw()
    assert path == sys.path and plt.get_fignums() == []


@pytest.mark.once
def test_bad_usage_is_one_sentence():
    for arguments, message in (
        (["--backends", "torhc"], "Did you mean torch?"),
        (["--backends", "foo"], "backend: received 'foo'; allowed: tensorflow, jax, torch"),
        (["--rounds", "0"], "--rounds takes a whole number of 1 or more"),
        (["--batch_size", "0"], "batch_size: received 0; allowed: a whole number at least 1"),
        (["--image_size", "10"], "image_size: received 10"),
        (["--width", "0"], "width: received 0.0"),
    ):
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert found.returncode == 2, (arguments, found.stderr)
        assert message in found.stderr and len(found.stderr.strip().splitlines()) == 1, found.stderr


@pytest.mark.once
def test_help_is_worth_reading():
    found = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True)
    words = ["--rounds", "--scaling", "default benchmarks/results", "example:"]
    assert found.returncode == 0 and all(word in " ".join(found.stdout.split()) for word in words)


@pytest.mark.once
def test_the_package_says_where_the_command_went(capsys):
    with pytest.raises(SystemExit) as ended:
        package_main(["bench", "--quick"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "In a clone of the project it is: python -m benchmarks" in said
    assert len(said.strip().splitlines()) == 1
