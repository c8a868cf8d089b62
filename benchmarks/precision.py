"""What lower precision costs and gains: training in mixed precision, inference in bfloat16, float16 and int8.

    python -m alexnet train --backend torch --name precision
    python benchmarks/precision.py runs/precision/torch

On each backend, in a process of its own:

- training: the run's network learns the same batches from the same NumPy weights in each dtype policy, without dropout,
  whose random numbers would differ;
- accuracy: the run's weights in each form on its held-out images, beside float32's predictions on this backend;
- speed and size: the whole network of 227 pixels, all forms in turn, as ratios to float32 in the same round.

`--backends jax` measures one backend and keeps the other rows of `benchmarks/results/precision.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "precision.json"
BACKENDS = ("tensorflow", "jax", "torch")
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
INT8 = {"int8 weights": None, "int8": "default"}  # how activations are treated: left alone, or int8 in each product
FORMS = (*POLICIES, *INT8)
STEPS, BATCH_SIZES, ROUNDS = 25, (1, 32), 7
SLOW = 2.0  # seconds; a form that takes longer is timed in one round only
TURN = 0.2  # seconds; a shorter form is repeated for so long


def measure(folder):
    """Everything on this process's backend."""
    import alexnet

    keras = alexnet.import_keras()
    from alexnet.training.system_info import hardware, versions

    recipe = alexnet.Recipe.read(Path(folder) / "params.yaml")
    images, validation = alexnet.load_data(recipe)
    return {
        "backend": keras.backend.backend(),
        "hardware": hardware(),
        "versions": versions(),
        "training": training(keras, recipe, images),
        "accuracy": accuracy(keras, folder, recipe, validation),
        "speed": speed(keras),
    }


def say(*what):
    print(f"{os.environ['KERAS_BACKEND']}: {', '.join(what)}", file=sys.stderr, flush=True)


def in_form(keras, form, make):
    """The model that `make()` builds, in one of `FORMS`."""
    keras.config.set_dtype_policy("float32" if form in INT8 else form)
    model = make()
    keras.config.set_dtype_policy("float32")
    if form in INT8:  # without `filters`, Keras warns of every layer that it leaves alone
        model.quantize(config=keras.quantizers.Int8QuantizationConfig(None, INT8[form]), filters="^fc")
    return model


def training(keras, recipe, images):
    import numpy as np

    from alexnet.model import AlexNet, init_gain, without_softmax
    from alexnet.networks import NETWORKS
    from alexnet.parity import batch_loss
    from alexnet.training import SGD

    def training_model():
        shape = (recipe.image_size, recipe.image_size, 3)
        model = AlexNet(recipe.network, shape, len(images.class_names), recipe.width, dropout=0.0)
        rng = np.random.default_rng(0)
        for layer in model.layers:
            if layer.weights:  # like `he_normal`, but the same on every backend
                kernel, bias = layer.get_weights()
                spread = init_gain(NETWORKS[recipe.network]) * (2 / np.prod(kernel.shape[:-1])) ** 0.5
                layer.set_weights([rng.normal(0, spread, kernel.shape), np.zeros_like(bias)])
        model = without_softmax(model)
        optimizer = SGD(recipe.learning_rate, recipe.momentum, recipe.weight_decay)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    stream = iter(images.batches())
    batches = [next(stream) for _ in range(STEPS)]
    rows = []
    for policy in POLICIES:
        say("training", policy)
        model, losses, seconds = in_form(keras, policy, training_model), [], []
        for batch in batches:
            began = time.perf_counter()
            losses.append(batch_loss(model, *batch))
            seconds.append(time.perf_counter() - began)
        rows.append(
            {
                "form": policy,
                "first_loss": losses[0],
                "last_loss": statistics.mean(losses[-5:]),
                "skipped_steps": STEPS - int(keras.ops.convert_to_numpy(model.optimizer.iterations)),
                "images_per_second": recipe.batch_size / statistics.median(seconds[STEPS // 2 :]),
            }
        )
    return rows


def accuracy(keras, folder, recipe, validation):
    import numpy as np

    from alexnet.evaluation import evaluate
    from alexnet.model import AlexNet

    def trained():
        shape = (recipe.image_size, recipe.image_size, 3)
        return AlexNet(recipe.network, shape, len(validation.class_names), recipe.width, weights=folder)

    found = {}
    for form in FORMS:
        say("accuracy", form)
        found[form] = evaluate(in_form(keras, form, trained), validation, verbose=0, details=True)
    plain = found["float32"]
    return [
        {
            "form": form,
            **one.metrics,
            "same_guesses": float(np.mean(one.top5[:, 0] == plain.top5[:, 0])),
        }
        for form, one in found.items()
    ]


def speed(keras):
    import numpy as np

    from alexnet.model import AlexNet
    from alexnet.saving import save_checkpoint

    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), 227, 227, 3), dtype="uint8")
    models = {form: in_form(keras, form, AlexNet) for form in FORMS}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for form, model in models.items():
            path = Path(scratch) / "model.keras"
            save_checkpoint(model, path)
            weights = sum(keras.ops.convert_to_numpy(variable).nbytes for variable in model.variables)
            rows.append({"form": form, "memory_bytes": weights, "disk_bytes": path.stat().st_size})
    for count in BATCH_SIZES:

        def once(form, count=count):
            began = time.perf_counter()
            models[form].predict_on_batch(pixels[:count])  # returns NumPy, so the computation has ended
            return time.perf_counter() - began

        say("speed", f"batch {count}")
        first = {form: once(form) for form in FORMS}  # compiles
        usual = {form: first[form] if first[form] > 2 * SLOW else once(form) for form in FORMS}
        times = {form: [] for form in FORMS}
        for turn in range(ROUNDS):
            for form in FORMS if turn % 2 == 0 else FORMS[::-1]:
                if not turn or usual[form] < SLOW:
                    repeats = max(1, round(TURN / usual[form]))
                    times[form].append(statistics.median(once(form) for _ in range(repeats)))
        for row in rows:
            ratios = [plain / own for plain, own in zip(times["float32"], times[row["form"]], strict=False)]
            row[f"batch_{count}"] = {
                "images_per_second": count / statistics.median(times[row["form"]]),
                "against_float32": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            }
    return rows


def show(record):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def table(title, columns, rows):
        drawn = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in drawn.columns[1:]:
            column.justify = "right"
        for row in rows:
            drawn.add_row(*row)
        Console(width=120).print(drawn)

    for found in record["backends"].values():
        name = found["backend"]
        rows = [
            [row["form"], f"{row['first_loss']:.3f}", f"{row['last_loss']:.3f}", str(row["skipped_steps"])]
            + [f"{row['images_per_second']:,.0f}"]
            for row in found["training"]
        ]
        columns = ["", "first loss", "mean of the last five", "skipped steps", "images/s"]
        table(f"{name}: {STEPS} steps of training", columns, rows)
        rows = [
            [row["form"], f"{row['top1']:.1%}", f"{row['loss']:.4f}", f"{row['same_guesses']:.1%}"]
            for row in found["accuracy"]
        ]
        table(f"{name}: the run's weights", ["", "top-1", "loss", "same prediction as float32"], rows)
        columns = ["", "memory", "disk"]
        for count in BATCH_SIZES:
            columns += [f"images/s, batch {count}", "against float32"]
        rows = []
        for row in found["speed"]:
            cells = [row["form"], *(f"{row[f'{where}_bytes'] / 1e6:.0f} MB" for where in ("memory", "disk"))]
            for count in BATCH_SIZES:
                one = row[f"batch_{count}"]
                cells += [
                    f"{one['images_per_second']:,.1f}",
                    "{median:.2f} ({min:.2f}–{max:.2f})".format(**one["against_float32"]),
                ]
            rows.append(cells)
        table(f"{name}: the whole network", columns, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a finished run, runs/NAME/BACKEND")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        Path(options.worker).write_text(json.dumps(measure(options.folder)), encoding="utf-8")
        return
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"backends": {}}
    record["command"] = "python benchmarks/precision.py runs/precision/torch"
    with tempfile.TemporaryDirectory() as scratch:
        for backend in options.backends:
            path = Path(scratch) / "found.json"
            command = [sys.executable, __file__, options.folder, "--worker", path]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
            record["backends"][backend] = json.loads(path.read_text(encoding="utf-8"))
            RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show(record)


if __name__ == "__main__":
    main()
