"""A run's model card: the `README.md` that a hub shows when the folder is uploaded."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from alexnet.networks import NETWORKS
from alexnet.units import format_duration, format_size

_PACKAGES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# What hubs call the published sets that a run knows by name.
_PUBLIC_SETS = {name: name for name in ("cifar10", "cifar100", "mnist", "fashion_mnist")}
_GENERATED = ("shapes", "signs")
_SHOWN_CLASSES = 20
_SETTINGS: tuple[str, ...] = (
    "epochs",
    "batch_size",
    "learning_rate",
    "patience",
    "momentum",
    "weight_decay",
    "dropout",
    "initializer",
)
_SETTINGS += ("freeze", "random_crop", "mirror", "pca_color", "color_statistics", "dtype_policy", "seed")


def model_card(metrics: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    """The model card of a finished run, as Markdown with the YAML head that hubs read.

    It is made of what the run has recorded and nothing else. Of folders and files on the machine it tells the names,
    never where they are. There is no license in it: only who made the model can choose one.

    Args:
        metrics: The content of the run's `metrics.json`.
        history: Its `history.csv`, as `read_history` returns it.
    """
    head = yaml.safe_dump(_head(metrics), sort_keys=False, allow_unicode=True, width=120)
    parts = [_summary(metrics), _accuracy(metrics), _use(metrics), _training(metrics, history), _environment(metrics)]
    return f"---\n{head}---\n\n" + "\n".join(parts)


def _head(metrics):
    name, public = _data_name(metrics), _public_name(metrics)
    dataset = {"name": name, "type": public or "imagefolder", "split": "validation"}
    results = {"task": {"type": "image-classification", "name": "Image classification"}, "dataset": dataset}
    results["metrics"] = [
        {"type": kind, "name": f"{measure}, {views}", "value": values[key]}
        for views, values in _results(metrics).items()
        for key, kind, measure in (
            ("top1", "accuracy", "top-1 accuracy"),
            ("top5", "top_5_accuracy", "top-5 accuracy"),
            ("loss", "loss", "cross-entropy"),
        )
    ]
    head = {"library_name": "keras", "pipeline_tag": "image-classification"}
    head["tags"] = ["alexnet", "keras"]
    if public:
        head["datasets"] = [public]
    return {**head, "model-index": [{"name": metrics["name"], "results": [results]}]}


def _results(metrics):
    """`{views: {"top1": ..., "top5": ..., "loss": ...}}` on the validation images."""
    found = {"one view": {name: metrics["results"][f"val_{name}"] for name in ("top1", "top5", "loss")}}
    if "ten_views" in metrics:
        found["ten views"] = {name: metrics["ten_views"][name] for name in ("top1", "top5", "loss")}
    return found


def _data_name(metrics):
    """The data set's name: the last part of a path."""
    name = _last_part(metrics["parameters"]["data_dir"])
    return name if name.strip(".~") else "a folder of images"


def _last_part(path):
    return _one_line(re.split(r"[/\\]", path.rstrip("/\\"))[-1])


def _public_name(metrics):
    """What hubs call the data set, or None of one that they do not know."""
    data_dir, data = metrics["parameters"]["data_dir"], metrics["data"]
    if data["source"].startswith("ImageNet") and len(data["class_names"]) == 1000:
        return "imagenet-1k"
    return _PUBLIC_SETS.get(data_dir)


def _one_line(text):
    """Text without line breaks and other characters that do not print: names of files and classes may have them."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _text(value):
    """Any text as it is, in a line of Markdown."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", _one_line(str(value)))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _table(rows, heading=("", "")):
    lines = (" | ".join(row) for row in (heading, ["---"] * len(heading), *rows))
    return "".join(f"| {line} |\n" for line in lines)


def _summary(metrics):
    parameters, data = metrics["parameters"], metrics["data"]
    network = parameters["network"]
    described = [_text(network)]
    if network in NETWORKS:
        described[0] += f" ({_text(NETWORKS[network].title)})"
    if parameters["width"] != 1:
        described.append(f"{parameters['width']:g} times as many filters and hidden units")
    if parameters["activation"] != "relu":
        described.append(f"{parameters['activation']} for ReLU")
    if parameters["without"]:
        described.append(f"without {_text(parameters['without'].replace('+', ' and '))}")
    names = data["class_names"]
    shown = ", ".join(map(_text, names[:_SHOWN_CLASSES]))
    if len(names) > _SHOWN_CLASSES:
        shown += f" and {len(names) - _SHOWN_CLASSES:,} more, listed in metrics.json"
    size, resize = parameters["image_size"], parameters["resize"]
    held_out = f" ({_text(data['validation_from'])})" if data["validation_from"] else ""
    rows = [
        ("network", ", ".join(described)),
        ("parameters", f"{metrics['model']['weights']:,}"),
        ("input", f"{size} × {size} RGB pixels from 0 to 255, the center of an image whose shorter side is {resize}"),
        ("classes", f"{len(names):,}: {shown}"),
        ("data set", _text(_data_name(metrics))),
        ("training images", f"{data['training_images']:,}"),
        ("validation images", f"{data['validation_images']:,}{held_out}"),
    ]
    title = f"# {_text(metrics['name'])}\n\n"
    title += f"An image classifier in Keras, trained with {_PACKAGES[metrics['backend']]}. "
    return f"{title}`metrics.json` has the numbers on this page in full.\n\n{_table(rows)}"


def _accuracy(metrics):
    rows = [
        (views, f"{found['top1']:.2%}", f"{found['top5']:.2%}", f"{found['loss']:.4f}")
        for views, found in _results(metrics).items()
    ]
    epochs = metrics["results"]["epoch"]
    return (
        f"## Accuracy\n\nOn the {metrics['data']['validation_images']:,} validation images, after "
        f"{epochs:,} epoch{'s' * (epochs > 1)}. They also decided when the learning rate was divided, so results on "
        f"other images may be slightly worse.\n\n{_table(rows, ('', 'top-1', 'top-5', 'loss'))}"
    )


def _use(metrics):
    size, classes = metrics["parameters"]["image_size"], len(metrics["data"]["class_names"])
    return f"""## Use

```python
import json
import alexnet

model = alexnet.load_checkpoint("model.keras")
probabilities = model.predict(images)  # (n, {size}, {size}, 3), RGB from 0 to 255, to (n, {classes})
class_names = json.load(open("metrics.json"))["data"]["class_names"]
```

Or on the command line, in this folder: `python -m alexnet predict --weights . photo.jpg`
"""


def _shown(value):
    """A parameter's value as YAML has it."""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _training(metrics, history):
    parameters = metrics["parameters"]
    rows = [(f"`{name}`", _shown(parameters[name])) for name in _SETTINGS if name in parameters]
    if parameters["weights"]:
        rows.append(("`weights`", _text(_last_part(parameters["weights"]))))
    if history:
        rows.append(("learning rate in the last epoch", f"{history[-1]['learning_rate']:g}"))
    return (
        f"## Training\n\n{_table(rows, ('parameter', 'value'))}\n`params.yaml` has every parameter. To train the same "
        f"network again, in this folder and with the path to your copy of the images:\n\n    {_command(metrics)}\n"
    )


def _command(metrics):
    """What trains the same network again, under another name: training under the same one removes the run."""
    parameters = metrics["parameters"]
    words = ["python", "-m", "alexnet", "train", "--params", "params.yaml", "--backend", metrics["backend"]]
    words += ["--run_dir", "runs", "--name", "again"]
    data_dir = parameters["data_dir"]
    if data_dir not in (*_GENERATED, *_PUBLIC_SETS):
        words += ["--data_dir", _data_name(metrics)]
    if parameters["weights"]:
        words += ["--weights", _last_part(parameters["weights"])]
    return shlex.join(words)


def _environment(metrics):
    versions, hardware, times = metrics["versions"], metrics["hardware"], metrics["times"]
    backend = metrics["backend"]
    libraries = [f"Python {versions['python']}", f"Keras {versions['keras']}"]
    libraries += [f"{_PACKAGES[backend]} {versions[backend]}"] if backend in versions else [_PACKAGES[backend]]
    rows = [
        ("versions", ", ".join(libraries)),
        ("system", _text(hardware["system"])),
        ("processor", f"{_text(hardware['processor'])}, {hardware['cores']} cores, {hardware['threads']} threads"),
        ("devices", ", ".join(map(_text, hardware["devices"]))),
    ]
    if hardware["memory_bytes"]:
        rows.append(("memory", format_size(hardware["memory_bytes"])))
    if metrics["peak_memory_bytes"]:
        rows.append(("memory used at most", format_size(metrics["peak_memory_bytes"])))
    rows.append(("training took", format_duration(times["seconds"])))
    rows.append(("training speed", f"{times['images_per_second']:,.0f} images a second"))
    return f"## Versions and hardware\n\n{_table(rows)}"
