"""A file in any format to a `Checkpoint`."""

import codecs
import json
import pickle
import zipfile

import numpy as np

from alexnet.checkpoints.caffe import read_caffe
from alexnet.checkpoints.checkpoint import FORMATS, CheckpointError, as_network, listing, recognize
from alexnet.checkpoints.onnx_graph import read_onnx
from alexnet.presets import LAYERS, PRESETS

# Where torchvision's AlexNet keeps its eight layers.
TORCHVISION = dict(
    zip(LAYERS, [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)], strict=True)
)


def read(path):
    """The checkpoint at `path`, its format recognized from its content.

    Raises:
        CheckpointError: no file, an unknown format, a damaged file, or not the arrays of an AlexNet.
    """
    path, format = recognize(path)
    try:
        return READERS[format](path)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile, h5py, protobuf, pickle and torch each have their own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise CheckpointError(
            f"weights: {path} looks like a {FORMATS[format]} file, but is damaged or was cut off ({reason})."
        ) from None


def _read_keras(path):
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))["config"]
        settings = {layer["config"]["name"]: layer["config"] for layer in config["layers"]}
        with archive.open("model.weights.h5") as file:
            return _read_h5(file, path, "keras", config["name"], settings)


def _read_keras_weights(path):
    return _read_h5(path, path, "keras_weights")


def _read_h5(file, path, format, name="", settings=None):
    import h5py

    with h5py.File(file, "r") as root:
        blobs = {}
        for layer, group in root.get("layers", {}).items():
            for number, values in group.get("vars", {}).items():
                blobs[f"layers/{layer}/vars/{number}"] = values[()]
    # Keras numbers the layers of a class: dense, dense_1, dense_2.
    kernels = sorted((blob for blob in blobs if blobs[blob].ndim > 1), key=_number)
    convolutions = [blob for blob in kernels if blobs[blob].ndim == 4]
    dense = [blob for blob in kernels if blobs[blob].ndim == 2]
    if (len(convolutions), len(dense)) != (5, 3):
        raise listing(
            path,
            format,
            [f"expected 5 kernels of 4 axes and 3 of 2, found {len(convolutions)} and {len(dense)}"],
            blobs,
        )
    names = {layer: (kernel, kernel[:-1] + "1") for layer, kernel in zip(LAYERS, [*convolutions, *dense], strict=True)}
    preset = name.removeprefix("alexnet_")
    preset = preset if preset in PRESETS else None
    return as_network(path, format, blobs, names, preset, channels_first=False, settings=settings)


def _number(blob):
    """Of layers/dense_2/vars/0, the 2; layers/dense/vars/0 comes before it."""
    last = blob.split("/")[1].rpartition("_")[2]
    return int(last) if last.isdigit() else 0


def _read_torch(path):
    import torch

    mapped = zipfile.is_zipfile(path)  # files of PyTorch before 1.6 are no archives
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"weights: {path} holds Python objects beside its arrays, and loading them could run any program. "
            "Save the model's state_dict() instead."
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):  # as training scripts wrap it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise CheckpointError(f"weights: {path}: expected a state dict of PyTorch, found {type(content).__name__}.")
    blobs = {
        ".".join(part for part in name.split(".") if part != "module"): values.numpy()  # DataParallel's prefix
        for name, values in content.items()
        if isinstance(values, torch.Tensor)
    }
    return _state_dict(path, "torch", blobs, None)


def _read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        preset = (file.metadata() or {}).get("preset")
        blobs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    return _state_dict(path, "safetensors", blobs, preset if preset in PRESETS else None)


def _state_dict(path, format, blobs, preset):
    """Arrays under torchvision's names or under ours."""
    ours = not any(name.startswith(("features.", "classifier.")) for name in blobs)
    names = {layer: layer if ours else TORCHVISION[layer] for layer in LAYERS}
    names = {layer: (f"{name}.weight", f"{name}.bias") for layer, name in names.items()}
    return as_network(path, format, blobs, names, preset if ours else "torchvision")


def _read_npy(path):
    """The dictionary of Caffe's `bvlc_alexnet` that circulates: kernels already in the layout of Keras, blue first."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = header(file)[2]
        if not dtype.hasobject:
            raise CheckpointError(f"weights: {path}: expected a dictionary layer -> [kernel, bias], found {dtype}.")
        content = _ArrayUnpickler(file, encoding="latin1").load()
    content = content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
    if not isinstance(content, dict):
        raise CheckpointError(
            f"weights: {path}: expected a dictionary layer -> [kernel, bias], found {type(content).__name__}."
        )
    blobs = {
        f"{layer}[{number}]": values
        for layer, pair in content.items()
        for number, values in enumerate(pair)
        if isinstance(values, np.ndarray)
    }
    names = {layer: (f"{layer}[0]", f"{layer}[1]") for layer in LAYERS}
    return as_network(path, "npy", blobs, names, "caffe", bgr=True, channels_first=False)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays, and refuses to call anything but what an array is made of."""

    def find_class(self, module, name):
        allowed = {
            ("multiarray", "_reconstruct"): _empty_array,
            ("numeric", "_frombuffer"): _array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,
        }
        key = (module.rpartition(".")[2], name)
        if key not in allowed or module.partition(".")[0] not in ("numpy", "_codecs"):
            raise CheckpointError(
                f"weights: the file asks for {module}.{name}, which is no part of an array. It was not loaded."
            )
        return allowed[key]


def _empty_array(kind, shape, dtype):
    """What pickle fills afterwards; nothing else can be asked of it."""
    return np.ndarray.__new__(np.ndarray, (0,), np.dtype("b"))


def _array(values, dtype, shape, order, axes=None):
    array = np.frombuffer(values, dtype).reshape(shape, order=order)
    return array if axes is None else array.transpose(axes)


def _encode(text, encoding):
    return codecs.encode(text, "latin1")


READERS = {
    "keras": _read_keras,
    "keras_weights": _read_keras_weights,
    "torch": _read_torch,
    "safetensors": _read_safetensors,
    "caffe": read_caffe,
    "onnx": read_onnx,
    "npy": _read_npy,
}
