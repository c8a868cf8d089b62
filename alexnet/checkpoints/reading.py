"""A file in any format to a `Checkpoint`."""

import json
import pickle
import zipfile

import numpy as np

from alexnet.checkpoints.caffe import read_caffe
from alexnet.checkpoints.checkpoint import FORMATS, CheckpointError, as_network, listing, recognize
from alexnet.checkpoints.onnx_graph import read_onnx
from alexnet.presets import LAYERS, PRESETS

WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put into names
LARGEST = 2**32  # bytes of one array: ten times the whole network
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
    except (CheckpointError, ImportError, MemoryError):
        raise
    except Exception as error:  # zipfile, h5py, protobuf, pickle and torch each have their own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise CheckpointError(
            f"weights: {path} looks like a {FORMATS[format]} file, but is damaged or was cut off ({reason})."
        ) from None


def _read_keras(path):
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > 2**24:
            raise CheckpointError(f"weights: {path}: its config.json is too large.")
        config = json.loads(archive.read("config.json"))["config"]
        settings = {layer["config"]["name"]: layer["config"] for layer in config["layers"]}
        with archive.open("model.weights.h5") as file:
            checkpoint = _read_h5(file, path, "keras", config["name"], settings)
    checkpoint.mean = settings.get("mean", {}).get("mean")
    return checkpoint


def _read_keras_weights(path):
    return _read_h5(path, path, "keras_weights")


def _read_h5(file, path, format, name="", settings=None):
    import h5py

    with h5py.File(file, "r") as root:
        blobs = {}
        for layer, group in root.get("layers", {}).items():
            for number in group.get("vars", {}):
                blobs[f"layers/{layer}/vars/{number}"] = _dataset(group["vars"], number, path)
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
    for kernel in dense:
        scale = blobs.get(kernel[:-1] + "2")  # there after `model.quantize("int8")`, one for each unit
        if blobs[kernel].dtype == np.int8 and scale is not None and scale.shape == blobs[kernel].shape[1:]:
            blobs[kernel] = blobs[kernel] / scale
    names = {layer: (kernel, kernel[:-1] + "1") for layer, kernel in zip(LAYERS, [*convolutions, *dense], strict=True)}
    preset = name.removeprefix("alexnet_")
    preset = preset if preset in PRESETS else None
    return as_network(path, format, blobs, names, preset, channels_first=False, settings=settings)


def _dataset(group, name, path):
    """An array of the file itself, of a size that a network may have."""
    import h5py

    values = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(values, h5py.Dataset) or values.external or values.is_virtual or values.nbytes > LARGEST:
        raise CheckpointError(
            f"weights: {path}: {group.name}/{name} is no array, lies in another file or is too large."
        )
    return values[()]


def _number(blob):
    """Of layers/dense_2/vars/0, the 2; layers/dense/vars/0 comes before it."""
    last = blob.split("/")[1].rpartition("_")[2]
    return int(last) if last.isdigit() else 0


def _read_torch(path):
    import torch

    mapped = zipfile.is_zipfile(path)  # files of PyTorch before 1.6 are no archives
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # it is damaged
            raise
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
        ".".join(part for part in name.split(".") if part not in WRAPPERS): values.detach().float().numpy()
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
    content = content.value()[0] if isinstance(content, _Array) else content
    if not isinstance(content, dict):
        raise CheckpointError(
            f"weights: {path}: expected a dictionary layer -> [kernel, bias], found {type(content).__name__}."
        )
    blobs = {}
    for layer, pair in content.items():
        for number, values in enumerate(pair.value() if isinstance(pair, _Array) else pair):
            if isinstance(values, _Array):
                blobs[f"{layer}[{number}]"] = np.asarray(values.value(), np.float32)
    names = {layer: (f"{layer}[0]", f"{layer}[1]") for layer in LAYERS}
    return as_network(path, "npy", blobs, names, "caffe", bgr=True, channels_first=False)


class _Dtype:
    """A pickled dtype: little or big-endian floats, or objects. It stands for NumPy's, which would believe anything."""

    def __init__(self, code, *_):
        if code not in ("f2", "f4", "f8", "O", "O8", "|O"):
            raise CheckpointError(f"weights: the file holds an array of {code!r}. Expected: floats.")
        self.code, self.order = code, "<"

    def __setstate__(self, state):
        self.order = ">" if state[1] == ">" else "<"


class _Array:
    """A pickled array before it is one."""

    def __init__(self, *_):
        self.shape, self.dtype, self.fortran, self.data = (), None, False, b""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def value(self):
        """Floats as an array, objects as a list."""
        if self.dtype.code.strip("|").startswith("O"):
            return [item.value() if isinstance(item, _Array) else item for item in self.data]
        data = self.data.encode("latin1") if isinstance(self.data, str) else bytes(self.data)
        array = np.frombuffer(data, self.dtype.order + self.dtype.code)
        return array.reshape(self.shape, order="F" if self.fortran else "C")


def _from_buffer(data, dtype, shape, order, *_):
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text, encoding):
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled arrays into `_Array`, and knows no other name."""

    NAMES = {
        ("multiarray", "_reconstruct"): _Array,
        ("numeric", "_frombuffer"): _from_buffer,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module, name):
        key = (module.rpartition(".")[2], name)
        if key not in self.NAMES or module.partition(".")[0] not in ("numpy", "_codecs"):
            raise CheckpointError(
                f"weights: the file asks for {module}.{name}, which is no part of an array. It was not loaded."
            )
        return self.NAMES[key]


READERS = {
    "keras": _read_keras,
    "keras_weights": _read_keras_weights,
    "torch": _read_torch,
    "safetensors": _read_safetensors,
    "caffe": read_caffe,
    "onnx": read_onnx,
    "npy": _read_npy,
}
