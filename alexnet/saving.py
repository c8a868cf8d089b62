"""Checkpoints as Keras models, and Keras models as checkpoints."""

import os
import re
import zipfile
from pathlib import Path

import keras
import numpy as np

from alexnet.model import ZEROS, AlexNet, functional, require_the_network
from alexnet.networks import LAYERS, NETWORKS
from alexnet.packages import explain_missing
from alexnet.runtime import trim_memory, without
from alexnet.weights import (
    FORMATS,
    CheckpointError,
    from_config,
    read_checkpoint,
    recognize,
    write_checkpoint,
    write_onnx,
    write_state_dict,
)


def load_checkpoint(path: str | os.PathLike[str], network: str | None = None) -> keras.Model:
    """A checkpoint as a Keras model from RGB pixels 0-255 to probabilities, whatever input its authors used.

    Reads torchvision's `.pth`, Caffe's `.caffemodel`, the ONNX zoo's `bvlcalexnet`, `bvlc_alexnet.npy`, safetensors,
    and our own `.keras`, `.weights.h5`, or the folder of a run. The format is recognized from the content, sizes and
    number of classes from the arrays.

    Args:
        path: The file.
        network: Which network it holds, if the file does not say; None to recognize it.

    Returns:
        `keras.Model`, its input of the size that the network was trained with.

    Raises:
        CheckpointError: a missing or damaged file, or a network that is not `network` or cannot be recognized.

    Examples:
        >>> path = f"{folder}/small.safetensors"
        >>> alexnet.save_checkpoint(alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16), path)
        >>> alexnet.load_checkpoint(path).output.shape
        (None, 3)
    """
    if network is not None and network not in NETWORKS:
        raise CheckpointError(f"network: received {network!r}; allowed: {', '.join(NETWORKS)}.")
    path, format = recognize(path)
    if format == "keras":
        return _load_keras(path, network)
    checkpoint = read_checkpoint(path)
    where = f"weights: {path} ({FORMATS[checkpoint.format]})"
    network = network or checkpoint.network
    if network is None and checkpoint.architecture is not None:
        nearest = checkpoint.architecture.nearest()
        raise CheckpointError(
            f"{where} holds none of the networks known here. The nearest is {nearest}:\n  "
            + "\n  ".join(checkpoint.differences(nearest))
        )
    if network is None:
        fitting = checkpoint.candidates()
        raise CheckpointError(
            f"{where} does not say which network it holds. "
            + (f"Its kernels fit these; give one as network: {', '.join(fitting)}." if fitting else "None fits.")
        )
    require_the_network(checkpoint, network)
    checkpoint.network = network
    model = AlexNet(
        network,
        (*checkpoint.input_size, 3),
        checkpoint.classes,
        checkpoint.width,
        classifier_activation=checkpoint.activation,
        initializer=ZEROS,
        mean=checkpoint.mean,
        weights=checkpoint,
    )
    del checkpoint
    trim_memory()
    return model


@explain_missing()
def save_checkpoint(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write a model in the format that the path's ending names.

    | ending | |
    |---|---|
    | `.keras`, `.weights.h5` | Keras |
    | `.onnx` | one graph from `pixels` (RGB 0-255, channels last) to `fc8` and `prob`, on every backend |
    | `.safetensors`, `.pth` | PyTorch's layout; torchvision's names for its network |
    | `.tflite` | LiteRT, on TensorFlow |
    | none | a folder with a TensorFlow SavedModel, on TensorFlow and JAX |

    What LoRA has learned is added to the kernels. `.weights.h5`, `.safetensors` and `.pth` hold the arrays of the
    layers and nothing else: a model that needs more (its own mean, an end other than softmax, no top) is refused
    there. Files are written atomically: until the new one is finished the old one stays.

    Raises:
        ValueError: an unknown extension, a format that Keras does not write on this backend, or one that cannot hold
            everything the model needs.
        OSError: the file cannot be written, in a sentence; the disk is full, for example.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> alexnet.save_checkpoint(model, f"{folder}/small.onnx")
        >>> alexnet.save_checkpoint(model, f"{folder}/small.zip")
        Traceback (most recent call last):
            ...
        ValueError: small.zip: the ending names the format: .keras, .weights.h5, .onnx, ...
    """
    path, model = Path(path).expanduser(), functional(model)
    ending = ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix
    if ending not in ("", ".keras", ".weights.h5", ".onnx", ".safetensors", ".pth", ".tflite"):
        raise ValueError(
            f"{path.name}: the ending names the format: .keras, .weights.h5, .onnx, .safetensors, .pth, .tflite, or "
            "none for a TensorFlow SavedModel."
        )
    if ending in ("", ".tflite"):
        _require_the_backend(path)
    if ending in (".onnx", ".safetensors", ".pth"):
        _require_whole_and_square(model, path)
    if ending in (".weights.h5", ".safetensors", ".pth"):
        _require_nothing_but_arrays(model, path)
    with write_checkpoint(path, ending) as unfinished, without("tensorflow"):
        if ending == ".keras":
            model.save(unfinished)
        elif ending == ".weights.h5":
            # Through memory: after a full disk, HDF5 is unusable for the rest of the process, and repeats its error.
            archive = unfinished.with_name("whole.keras")
            model.save(archive)
            with zipfile.ZipFile(archive) as content:
                unfinished.write_bytes(content.read("model.weights.h5"))
        elif ending == ".onnx":
            write_onnx(model, unfinished, detect_network(model))
        elif ending in (".safetensors", ".pth"):
            write_state_dict(model, unfinished, detect_network(model))
        else:
            model.export(unfinished, format="litert" if ending else "tf_saved_model", verbose=False)


def detect_network(model: keras.Model) -> str | None:
    """The network whose layers a model has, at any width, or None."""
    architecture = _architecture(model)
    return None if architecture is None or architecture.input_size is None else architecture.detect()


def _architecture(model):
    """What a model says about its layers, or None if it says nothing."""
    try:
        with without("tensorflow"):
            config = model.get_config()
    except NotImplementedError:
        return None
    if "layers" not in config:
        return None
    found = from_config(config)
    return found.resolve(found.input_size) if found.input_size else found


def _load_keras(path, network):
    try:
        with without("tensorflow"):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # zipfile, h5py, JSON and Keras each have their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if unknown := re.search(r"Could not locate (class|function) '([^']*)'", str(error)):
            raise CheckpointError(
                f"weights: {path} needs the {unknown[1]} {unknown[2]}, which is not known here. Import the module that "
                "defines and registers it first."
            ) from None
        raise CheckpointError(f"weights: {path} is damaged or not safe to load ({reason}).") from None
    missing = _missing(model, without_some=True)
    if missing and all(name.startswith("fc") for name in missing):
        raise CheckpointError(
            f"weights: {path} holds an AlexNet without {', '.join(missing)}. keras.saving.load_model loads it as it is."
        )
    if missing:
        raise CheckpointError(
            f"weights: {path} does not hold an AlexNet: expected layers {', '.join(LAYERS)}, "
            f"found none called {', '.join(missing)}. A network of your own is known after you pass it to "
            "alexnet.register_network."
        )
    first = next(layer for layer in model.layers if type(layer).__name__ not in ("InputLayer", "ZeroPadding2D"))
    if getattr(first, "kernel", None) is not None:
        raise CheckpointError(
            f"weights: {path} does not normalize its pixels itself, so its input range is unknown. Put "
            "alexnet's PixelNormalization or keras.layers.Rescaling before it, or use keras.saving.load_model."
        )
    try:
        model = functional(model)
    except ValueError as error:
        raise CheckpointError(f"weights: {path}: {error}") from None
    if network is not None and detect_network(model) != network:
        architecture = _architecture(model)
        problems = architecture.differences(network) if architecture and architecture.input_size else []
        raise CheckpointError(
            f"weights: {path} holds {detect_network(model) or 'a custom network'}. Received: network={network!r}"
            + "".join(f"\n  {problem}" for problem in problems)
        )
    return model


def _missing(model, without_some=False):
    """Which of the eight layers a model lacks, whose layers are not called as those of any network.

    Args:
        without_some: Whether a network may lack some, as `AlexNet(without=...)` builds it.
    """
    names = [layer.name for layer in getattr(model, "layers", []) if getattr(layer, "kernel", None) is not None]
    for network in NETWORKS.values():
        known = [layer.name for layer in network.weighted]
        if names == known or (without_some and names[-1:] == known[-1:] and names == [n for n in known if n in names]):
            return []
    return [name for name in LAYERS if name not in names]


def _require_whole_and_square(model, path):
    if quantized := [layer.name for layer in model.layers if layer.quantization_mode]:
        raise ValueError(
            f"{path.name}: this format is written from float32 weights. Received: a model quantized in "
            f"{', '.join(quantized)}. Write .keras."
        )
    missing = set(_missing(model))
    if local := [layer.name for layer in model.layers if type(layer).__name__ == "LocallyConnected2D"]:
        raise ValueError(
            f"{path.name}: this format has no layer like {local[0]}, whose filters differ from position to position. "
            "Write .keras."
        )
    height, width = model.input.shape[1:3]
    if missing or height != width:
        what = f"one without {', '.join(sorted(missing))}" if missing else f"one of {height} x {width} pixels"
        raise ValueError(f"{path.name}: this format holds whole networks with square inputs. Received: {what}")


def _require_nothing_but_arrays(model, path):
    """For formats that hold nothing but the arrays of the layers."""
    if missing := set(_missing(model)):
        raise ValueError(
            f"{path.name}: this format holds whole networks. Received: one without {', '.join(sorted(missing))}. "
            "Write .keras."
        )
    if modes := {layer.quantization_mode for layer in model.layers} - {None, "int8"}:
        raise ValueError(f"{path.name}: this format cannot hold {', '.join(sorted(modes))}. Write .keras.")
    network = detect_network(model)
    if network is None:
        architecture = _architecture(model)
        problems = "it is not a functional model"
        if architecture is not None and architecture.input_size is not None:
            problems = "; ".join(architecture.differences(architecture.nearest()))
        raise ValueError(
            f"{path.name}: this format cannot hold the layers of a custom network, and without them nobody "
            f"could tell how to compute it ({problems}). Write .keras."
        )
    mean, activation = model.get_layer("mean").mean, _architecture(model).activation
    if not np.allclose(mean, NETWORKS[network].pixel_mean, atol=0.01):
        numbers = ", ".join(f"{value:.2f}" for value in mean)
        raise ValueError(
            f"{path.name}: this format cannot hold the mean of the training images ({numbers}), and without it "
            "the network would see other pixels. Write .keras or .onnx."
        )
    if activation != "softmax":
        raise ValueError(
            f"{path.name}: this format cannot hold what follows the logits, and is read as one with a softmax. "
            f"Received: one that ends in {activation or 'the logits'}. Write .keras or .onnx."
        )


def _require_the_backend(path):
    """Refuses the formats that Keras does not write on this backend."""
    backends = ("tensorflow",) if path.suffix else ("tensorflow", "jax")
    if keras.backend.backend() not in backends:
        raise ValueError(
            f"{path.name}: Keras writes this format on {' and '.join(backends)}. "
            f"This process runs on {keras.backend.backend()}."
        )
