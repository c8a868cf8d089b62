"""From a file in any format to a `Checkpoint`."""

import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable

import numpy as np

from alexnet.networks import LAYERS, NETWORKS, names_by_counts
from alexnet.networks.alexnets import CAFFE
from alexnet.packages import explain_missing
from alexnet.weights.caffe import read_caffe
from alexnet.weights.checkpoint import FORMATS, Checkpoint, CheckpointError, as_network, listing, recognize
from alexnet.weights.keras_config import from_config
from alexnet.weights.onnx_reading import read_onnx

WRAPPERS = ("module", "_orig_mod")  # the parts that DataParallel and torch.compile add to names
NESTED = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params")
LARGEST = 2**32  # the most bytes of one array: more than ten times the whole network
# The names of the eight layers in torchvision's AlexNet.
TORCHVISION = dict(
    zip(LAYERS, [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)], strict=True)
)


@explain_missing()
def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint at `path`, whose format is recognized from its content.

    Raises:
        CheckpointError: the file is missing or damaged, its format is unknown, or its arrays are not an AlexNet's.
    """
    path, format = recognize(path)
    try:
        return READERS[format](path)
    except (CheckpointError, ImportError, MemoryError):
        raise
    except Exception as error:  # zipfile, h5py, protobuf, pickle and torch all raise their own kinds
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise CheckpointError(
            f"weights: {path} looks like a {FORMATS[format]} file, but is damaged or was cut off ({reason})."
        ) from None


def _read_keras(path):
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > 2**24:
            raise CheckpointError(f"weights: {path}: its config.json is too large.")
        config = json.loads(archive.read("config.json"))["config"]
        with archive.open("model.weights.h5") as file:
            return _read_h5(file, path, "keras", config)


def _read_keras_weights(path):
    return _read_h5(path, path, "keras_weights")


def _read_h5(file, path, format, config=None):
    import h5py

    with h5py.File(file, "r") as root:
        if "layer_names" in root.attrs or "model_weights" in root:
            return _legacy_h5(root, path, format)
        groups = {}  # by layer, its arrays
        for layer, group in root.get("layers", {}).items():
            if "layers" in group:
                raise CheckpointError(
                    f"weights: {path} ({FORMATS[format]}) holds a network inside a network, {layer}. Save the inner "
                    "one."
                )
            variables = group.get("vars", {})
            groups[layer] = {f"layers/{layer}/vars/{n}": _dataset(variables, n, path) for n in variables}
    names = list(groups)
    if config is None:
        names.sort(key=_number)  # Keras numbers the layers of a class: dense, dense_1, dense_2
    else:
        names = [name for name in _names_in_h5(config) if name in groups]
    return _from_groups(path, format, [groups[name] for name in names], config)


def _from_groups(path, format, groups, config):
    """A `Checkpoint` of arrays layer by layer. The numbers of convolutional, locally connected and dense layers must be
    those of a network."""
    blobs = {name: values for group in groups for name, values in group.items()}
    kinds = {"conv": [], "local": [], "dense": []}
    for group in groups:
        ranks = [values.ndim for values in group.values()][:2]
        if ranks and ranks[0] in (2, 4):
            kinds["dense" if ranks[0] == 2 else "local" if ranks[1:] == [3] else "conv"].append(group)
    layers = names_by_counts(*map(len, kinds.values()))
    if layers is None:
        found = f"{len(kinds['conv']) + len(kinds['local'])} and {len(kinds['dense'])}"
        raise listing(path, format, [f"expected 5 kernels of 4 axes and 3 of 2, found {found}"], blobs)
    names = {}
    for layer, group in zip(sum(layers, []), sum(kinds.values(), []), strict=True):
        kernel, bias, *others = [*group, ""] if len(group) == 1 else group
        names[layer] = kernel, bias
        if blobs[kernel].dtype == np.int8:
            blobs[kernel] = _dequantized(path, format, group, layer, names, blobs)
        for name in others:  # they belong to quantization
            del blobs[name]
    architecture = None if config is None else from_config(config)
    checkpoint = as_network(path, format, blobs, names, channels_first=False, architecture=architecture)
    return checkpoint


def _dequantized(path, format, group, layer, names, blobs):
    """The floats of a kernel that `model.quantize("int8")` has converted, with one scale for each unit."""
    kernel, bias = names[layer]
    values, units = group[kernel], len(blobs[bias])
    scale = next((found for found in list(group.values())[2:] if found.shape == (units,)), None)
    below = [*names][-2] if len(names) > 1 else None
    whole = True
    if below is not None and values.ndim == 2:
        inputs, maps = len(values), blobs[names[below][1]].shape[-1]
        whole = _is_square(inputs, maps) if blobs[names[below][0]].ndim == 4 else inputs == maps
    if scale is None or not whole:
        raise CheckpointError(
            f"weights: {path} ({FORMATS[format]}) holds {kernel} quantized to int4 or in groups, which only "
            "load_checkpoint reads, from a .keras file."
        )
    return values / scale


def _is_square(inputs, maps):
    return math.isqrt(inputs // maps) ** 2 * maps == inputs


def _names_in_h5(config):
    """Keras's names for a model's layers in its file of weights: the class, with a number from the second one on."""
    counts = {}
    for layer in config["layers"]:
        name = re.sub(r"\W+", "", layer["class_name"])
        name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
        name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
        number = counts[name] = counts.get(name, -1) + 1
        yield f"{name}_{number}" if number else name


def _legacy_h5(root, path, format):
    """Read HDF5 as Keras wrote it before `.keras`: a group for each layer, and perhaps the model's configuration."""
    config = root.attrs.get("model_config")
    if config is not None:
        config = json.loads(config)["config"]
        config = config if isinstance(config, dict) else {"layers": config}
    weights = root.get("model_weights", root)
    groups = []
    for layer in weights.attrs["layer_names"]:
        group = weights[_text(layer)]
        groups.append({_text(name): _dataset(group, _text(name), path) for name in group.attrs["weight_names"]})
    groups = [{name: values for name, values in group.items() if "seed_generator" not in name} for group in groups]
    return _from_groups(path, format, groups, config)


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)


def _dataset(group, name, path):
    """An array that is stored in the file itself, and not too large for a network."""
    import h5py

    values = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(values, h5py.Dataset) or values.external or values.is_virtual or values.nbytes > LARGEST:
        raise CheckpointError(
            f"weights: {path}: {group.name}/{name} is not an array, is in a different file, or is too large."
        )
    return values[()]


def _number(layer):
    """The number in a layer's name: 2 for dense_2, 0 for dense."""
    last = layer.rpartition("_")[2]
    return int(last) if last.isdigit() else 0


def _read_torch(path):
    import torch

    mapped = zipfile.is_zipfile(path)  # files of PyTorch before 1.6 are not archives
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # it is damaged
            raise
        raise CheckpointError(
            f"weights: {path} holds Python objects beside its arrays, and loading them could run any code. "
            "Save the model's state_dict() instead."
        ) from None
    content = _state_dict_in(path, content)
    blobs = {}
    for name, values in content.items():
        if isinstance(values, torch.Tensor):
            if values.is_quantized:
                raise CheckpointError(f"weights: {path} holds {name} quantized. Save the network before quantizing it.")
            if values.layout != torch.strided or values.is_meta:
                raise CheckpointError(f"weights: {path} holds {name} without values, or as a sparse tensor.")
            values = values.detach()
            blobs[name] = (values.float() if values.is_floating_point() else values).numpy()
    return _state_dict(path, "torch", blobs, None)


def _state_dict_in(path, content):
    """The arrays, which a training script may have nested in other dictionaries."""
    import torch

    if not isinstance(content, dict):
        kind = type(content).__name__
        raise CheckpointError(f"weights: {path}: expected a state dict of PyTorch, found {kind}.")
    for _ in range(4):
        if any(isinstance(values, torch.Tensor) and values.ndim > 1 for values in content.values()):
            break
        inner = {key: value for key, value in content.items() if isinstance(value, dict) and key != "optimizer"}
        known = [key for key in NESTED if key in inner]
        key = known[0] if known else next(iter(inner)) if len(inner) == 1 else None
        if key is None:
            break
        content = inner[key]
    return content


def _read_safetensors(path):
    from safetensors import safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            blobs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is not a dictionary
    except (AttributeError, TypeError):  # NumPy has no float8
        with safe_open(path, "pt") as file:
            blobs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        blobs = {
            name: (values.float() if values.is_floating_point() else values).numpy() for name, values in blobs.items()
        }
    network = metadata.get("network", metadata.get("preset"))  # "preset" in older files
    return _state_dict(path, "safetensors", blobs, network if network in NETWORKS else None)


def _state_dict(path, format, blobs, network):
    """A `Checkpoint` of arrays with torchvision's names or with ours, after any prefix."""
    blobs = {
        ".".join(part for part in name.split(".") if part not in WRAPPERS): values for name, values in blobs.items()
    }
    first_layers = {row.weighted[0].name for row in NETWORKS.values()}
    found = {}  # {prefix: whether the names after it are ours}
    for name in blobs:
        for first, ours in (("features.0.weight", False), *((f"{each}.weight", True) for each in first_layers)):
            if name == first or name.endswith(f".{first}"):
                found[name.removesuffix(first)] = ours
    if len(found) > 1:
        places = ", ".join(repr(prefix) for prefix in found)
        raise CheckpointError(
            f"weights: {path} ({FORMATS[format]}) holds several networks, whose names begin with {places}. Save one."
        )
    prefix, ours = next(iter(found.items()), ("", True))
    if not found:
        ours = not any(name.startswith(("features.", "classifier.")) for name in blobs)
    blobs = {name.removeprefix(prefix): values for name, values in blobs.items() if name.startswith(prefix)}
    layers = _layers_of(blobs, network) if ours else LAYERS
    names = {layer: layer if ours else TORCHVISION[layer] for layer in layers}
    names = {layer: (f"{name}.weight", f"{name}.bias") for layer, name in names.items()}
    return as_network(path, format, blobs, names, network if ours else "torchvision")


def _layers_of(blobs, network):
    """The layers of the network that a file states, or whose names it has; otherwise the eight of most networks."""
    rows = [NETWORKS[network]] if network else NETWORKS.values()
    known = {name.rpartition(".")[0] for name in blobs}
    names = [[layer.name for layer in row.weighted] for row in rows]
    return names[0] if network else next((each for each in names if set(each) == known), LAYERS)


def _read_npy(path):
    """Read the dictionary `bvlc_alexnet.npy` that circulates: kernels are in Keras's layout, and blue comes first."""
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
        if isinstance(pair, dict):  # as later converters write it
            pair = [pair[key] for key in ("weights", "biases") if key in pair]
        for number, values in enumerate(pair.value() if isinstance(pair, _Array) else pair):
            if isinstance(values, _Array):
                blobs[f"{layer}[{number}]"] = np.asarray(values.value(), np.float32)
    names = {layer: (f"{layer}[0]", f"{layer}[1]") for layer in LAYERS}
    checkpoint = as_network(path, "npy", blobs, names, "caffe", bgr=True, channels_first=False)
    checkpoint.mean = CAFFE.pixel_mean
    checkpoint.alternatives = ("caffe", "caffenet")
    if "caffenet" in path.name.lower():
        checkpoint.network = None
    return checkpoint


class _Dtype:
    """A pickled dtype: little or big-endian floats, or objects. It replaces NumPy's, which would accept anything."""

    def __init__(self, code, *_):
        if code not in ("f2", "f4", "f8", "O", "O8", "|O"):
            raise CheckpointError(f"weights: the file holds an array of {code!r}. Expected: floats.")
        self.code, self.order = code, "<"

    def __setstate__(self, state):
        self.order = ">" if state[1] == ">" else "<"


class _Array:
    """A pickled array that is not converted yet."""

    def __init__(self, *_):
        self.shape, self.dtype, self.fortran, self.data = (), None, False, b""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def value(self):
        """The content: floats as an array, objects as a list."""
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
    """Reads pickled arrays into `_Array`, and refuses every other name."""

    NAMES: dict[tuple[str, str], Callable] = {
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
                f"weights: the file asks for {module}.{name}, which is not part of an array. It was not loaded."
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
