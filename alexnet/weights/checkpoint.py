"""What all formats have in common: the checkpoint, and how its format is recognized."""

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.mounts import MountError, find_mount
from alexnet.networks import NETWORKS, layers_by_names, specs
from alexnet.weights.architecture import Architecture
from alexnet.weights.published import PUBLISHED_WEIGHTS

FORMATS = {
    "keras": "Keras model (.keras)",
    "keras_weights": "Keras weights (.weights.h5, .h5)",
    "torch": "PyTorch state dict (.pth)",
    "safetensors": "safetensors",
    "caffe": "Caffe model (.caffemodel)",
    "onnx": "ONNX",
    "npy": "NumPy dictionary (.npy)",
}


WEIGHTS = (".pth", ".pt", ".bin", ".keras", ".h5", ".safetensors", ".caffemodel", ".onnx", ".npy")

# Where to get the networks that were trained on ImageNet.
URLS = {
    "caffe": (
        "http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
        "https://github.com/onnx/models/raw/main/validated/vision/classification/alexnet/model/bvlcalexnet-12.onnx",
        "https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy",
    ),
    "caffenet": ("http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",),
    "torchvision": ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
}


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or holds a different network. The message says what was expected and found."""


@dataclass
class Checkpoint:
    """The weights of a file.

    Attributes:
        path: The file.
        format: A key of `FORMATS`.
        layers: `{layer: (kernel, bias)}` in order, `conv1` to `fc8` for most networks. Kernels are in Keras's layout,
            for RGB.
        blobs: `{layer: names of both in the file}`.
        network: The network that they belong to; None if the file does not say.
        architecture: The file's own description of its layers, if it has one.
        mean: RGB mean of the images that it was trained on, if the file states it.
        alternatives: Networks that it may hold, if the file leaves it open; `network` is the most likely one.
    """

    path: Path
    format: str
    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    blobs: dict[str, tuple[str, str]]
    network: str | None = None
    architecture: Architecture | None = None
    mean: list[float] | None = None
    alternatives: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        return len(next(reversed(self.layers.values()))[1])

    @property
    def width(self) -> float:
        """The number of filters and hidden units as a share of the full network's, taken from the largest layer."""
        weighted = NETWORKS[self.network].weighted if self.network else layers_by_names(self.layers)
        sizes = [spec.units if isinstance(spec, specs.Dense) else spec.filters for spec in weighted]
        size, name = max((size, spec.name) for size, spec in zip(sizes, weighted, strict=True) if size)
        return self.layers[name][1].shape[-1] / size

    @property
    def first_dense(self):
        """`(name, maps)`: the first dense layer, and the number of maps that it sees."""
        names = list(self.layers)
        first = next(name for name in names if self.layers[name][0].ndim == 2)
        return first, self.layers[names[names.index(first) - 1]][1].shape[-1]

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the images: those that the file states, or the smallest that fit fc6's inputs."""
        if self.architecture is not None and self.architecture.input_size:
            return self.architecture.input_size
        return (self._image_size(),) * 2

    def _image_size(self):
        first, maps = self.first_dense
        side = math.isqrt(self.layers[first][0].shape[0] // maps)
        row = NETWORKS[self.network or "paper"]
        if row.output_side(row.image_size) == side and self.network:
            return row.image_size
        fitting = [each for each in row.input_sides(side) if not row.overhanging(each)]
        return fitting[0] if fitting else row.image_size

    @property
    def activation(self) -> str | None:
        """The function that follows the logits."""
        return "softmax" if self.architecture is None else self.architecture.activation

    def overhang(self, input_size):
        """`Architecture.overhang` by the file, for images of the size that it was made for; None if it is unknown."""
        known = self.architecture is not None and tuple(input_size) == self.architecture.input_size
        return self.architecture.overhang if known else None

    def differences(self, network: str, row: specs.Network | None = None) -> list[str]:
        """Sentences on how the file differs from a network. `row` is the `Network`, if not `NETWORKS[network]`."""
        problems = []
        if self.alternatives and network not in self.alternatives:
            problems.append(f"expected the network {network}, found {' or '.join(self.alternatives)}")
        elif not self.alternatives and self.network not in (None, network):
            problems.append(f"expected the network {network}, found {self.network}")
        if self.architecture is not None:
            problems += self.architecture.differences(network, row)
        return problems

    def candidates(self) -> list[str]:
        """Networks whose kernels have the same shapes, up to a factor of width."""
        if self.alternatives:
            return list(self.alternatives)
        kernels = {name: kernel.shape for name, (kernel, _) in self.layers.items()}
        return [name for name, network in NETWORKS.items() if _fits(network, kernels)]


def _fits(network, kernels):
    """Whether a `Network` of some width has kernels of these shapes, by layer."""
    if list(kernels) != [layer.name for layer in network.weighted]:
        return False
    ratio, below = None, 3
    for layer in network.weighted:
        shape = kernels[layer.name]
        if isinstance(layer, specs.Dense):
            break
        inputs = (
            (layer.kernel, layer.kernel, below // layer.groups)
            if isinstance(layer, specs.Conv)
            else (layer.kernel**2 * below,)
        )
        ratio = ratio or shape[-1] / layer.filters
        if shape[-1 - len(inputs) : -1] != inputs or abs(shape[-1] - ratio * layer.filters) > network.groups:
            return False
        below = shape[-1]
    return True


def recognize(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The format of a file, recognized from its content. The folder of a run means its `model.keras`.

    Returns:
        The path of the file and its format, a key of `FORMATS`.

    Raises:
        CheckpointError: there is no such file, or it is in none of the formats.
    """
    path = _existing(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"weights: {path} cannot be read ({error.strerror}).") from None
    found = _recognize_zip(path) if start.startswith(b"PK") else _recognize_start(start)
    if found is None:
        reason = _stranger(start)
        raise CheckpointError(
            f"weights: {path} is {f'{reason}; it is ' if reason else ''}not in a supported format. "
            f"Expected: {', '.join(FORMATS.values())}. "
            f"Found: {path.stat().st_size:,} bytes that begin with {start[:16]!r}."
        )
    return path, found


def find_weights(path: str | os.PathLike[str]) -> Path:
    """The path of a checkpoint's file, or of its run's folder, from anything that `load_checkpoint` takes.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    file = _existing(path)
    return file.parent if file.name == "model.keras" and (file.parent / "params.yaml").is_file() else file


def _existing(path: str | os.PathLike[str]) -> Path:
    """The path of a file, from any path that a person may have given."""
    try:
        path = Path(path)
        found = path.expanduser()
        if not os.path.exists(found):
            found = find_mount(str(path)) or found
        is_folder, exists = found.is_dir(), found.exists()
    except MountError as error:
        raise CheckpointError(f"weights: {error}") from None
    except (TypeError, ValueError, RuntimeError):  # not a path, a null byte, the home of an unknown user
        raise CheckpointError(f"weights: expected the path of a file. Received: {path!r}") from None
    except OSError as error:
        raise CheckpointError(f"weights: {path} cannot be read ({error.strerror}).") from None
    if is_folder:
        return _in_folder(found)
    if exists:
        return found
    text = str(path)
    if text.lower() in ("imagenet", "imagenet1k_v1", "default", "pretrained", "true"):
        commands = [f"python -m alexnet fetch {name}" for name in PUBLISHED_WEIGHTS]
        places = [f"{network}: {url}" for network, urls in URLS.items() for url in urls]
        raise CheckpointError(
            f"weights: nothing is downloaded here. Received: {text!r}. To fetch networks trained on ImageNet, use\n  "
            + "\n  ".join(commands)
            + "\nThey are published at\n  "
            + "\n  ".join(places)
            + "\nThen give network and path, as in AlexNet('torchvision', "
            "weights='alexnet-owt-7be5be79.pth')."
        )
    if text.startswith(("http:/", "https:/")):
        raise CheckpointError(f"weights: nothing is downloaded here. Fetch the file and give its path: {text}")
    raise CheckpointError(f"weights: there is no file {found}.")


def _in_folder(folder):
    if (folder / "model.keras").is_file():
        return folder / "model.keras"
    if (folder / "saved_model.pb").is_file():
        raise CheckpointError(
            f"weights: {folder} is a TensorFlow SavedModel, a program whose layers cannot be identified. SavedModels "
            "can be written, but not read: give the .keras, .onnx or .safetensors file of the same model."
        )
    inside = sorted(_checkpoints_in(folder))
    if len(inside) > 1:
        shown = ", ".join(map(str, inside[:5])) + (", ..." if len(inside) > 5 else "")
        raise CheckpointError(
            f"weights: {folder} is a folder without a model.keras, and holds {len(inside)} other checkpoints. Give the "
            f"path of one: {shown}."
        )
    if not inside:
        raise CheckpointError(f"weights: {folder} is a folder without a model.keras or any other checkpoint.")
    return inside[0]


def _checkpoints_in(folder, depth=6):
    """Files with the extension of a checkpoint, in a folder and below: a run in another notebook's output is deep."""
    for place, folders, names in os.walk(folder):
        deep = len(Path(place).relative_to(folder).parts) >= depth
        folders[:] = [] if deep else [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if name.lower().endswith(WEIGHTS))


def _recognize_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise CheckpointError(f"weights: {path} is a zip archive that is damaged or was cut off.") from None
    parts = [name.rpartition("/") for name in names]
    files = {last for _, _, last in parts}
    if "config.json" in names and "model.weights.h5" in names:
        return "keras"
    if "constants.pkl" in files or any("code" in folder.split("/") for folder, _, _ in parts):
        what = "a TorchScript archive, a program that would have to be run. Save the model's state_dict() instead"
    elif any(name.endswith("/data.pkl") for name in names):
        return "torch"
    elif any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        what = "a program exported by PyTorch. Save the model's state_dict() instead"
    elif names and all(name.endswith(".npy") for name in names):
        what = "a NumPy archive (.npz), which does not identify a network. Save a state dict or safetensors instead"
    elif inside := [name for name in names if name.endswith(WEIGHTS)]:
        what = f"a zip archive around {inside[0]}. Unpack it and give that file"
    else:
        return None
    raise CheckpointError(f"weights: {path} is {what}.")


def _recognize_start(start):
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras_weights"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"):  # PyTorch's magic number, before version 1.6
        return "torch"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**27:
        return "safetensors"
    if start[4:8] == b"TFL3":
        return None
    if start[:1] == b"\x08":  # protocol buffers: the first field of an ONNX model is its version, a number
        return "onnx"
    if start[:1] in (b"\x0a", b"\x12") and not _is_text(start) or start[:2] == b"\xa2\x06":
        return "caffe"  # the first field of a Caffe network is its name or a layer
    return None


def _is_text(start):
    """Whether a file begins with text."""
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def _stranger(start):
    """What a file is instead of a checkpoint, in words; None if it is unknown."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file that it describes: download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: fetch it with git lfs pull"
    if start[4:8] == b"TFL3":
        return "a LiteRT model (.tflite), which can be written, but not read"
    if start.startswith(b"MATLAB"):
        return "a MATLAB file"
    if (
        start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd"))
        or start[257:262] == b"ustar"
    ):
        return "compressed: unpack it first"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "a Python pickle, which could run any code when loaded"
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return "an image"
    if _is_text(start) and (b"layer" in text or b"input_dim" in text) and b"{" in text:
        return "the description of a Caffe network: give the .caffemodel, which has its weights"
    return None


def from_channels_first(kernel, channels=None):
    """A kernel from the layout of PyTorch, Caffe and ONNX to Keras's: OIHW to HWIO, and (outputs, inputs) transposed.

    Args:
        channels: For the first fully connected layer, the number of maps that it sees: its inputs are ordered channel
            by channel there, and pixel by pixel in Keras.
    """
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if channels is None:
        return kernel.T
    outputs, inputs = kernel.shape
    side = math.isqrt(inputs // channels)
    if side * side * channels != inputs:
        return kernel.T  # a different network, which its shape will show
    return kernel.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0).reshape(inputs, outputs)


def to_channels_first(kernel, channels=None):
    """The reverse of `from_channels_first`."""
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    if channels is None:
        return kernel.T
    inputs, outputs = kernel.shape
    side = math.isqrt(inputs // channels)
    return kernel.reshape(side, side, channels, outputs).transpose(3, 2, 0, 1).reshape(outputs, inputs)


_RANKS = {specs.Conv: (4, 1), specs.LocallyConnected: (4, 3), specs.Dense: (2, 1)}  # of kernels and biases


def as_network(path, format, blobs, names, network=None, bgr=False, channels_first=True, architecture=None):
    """Named arrays as a `Checkpoint`.

    Args:
        blobs: The file's arrays, by their names in the file.
        names: `{layer: (name of the kernel, name of the bias)}` for the layers of a network, in order.
        bgr: Whether conv1 sees blue first. If so, its channels are reversed.
        channels_first: Whether kernels are in the layout of PyTorch, Caffe and ONNX.
        architecture: What the file says about its layers. It decides which network it is.

    Raises:
        CheckpointError: arrays are missing, superfluous or of the wrong rank; all of these are listed.
    """
    problems = []
    for spec in layers_by_names(names):
        layer, ranks = spec.name, _RANKS[type(spec)]
        for name, rank in zip(names[layer], ranks, strict=True):
            if name not in blobs:
                problems.append(f"{name or layer}: expected an array of {rank} axes, found none")
            elif blobs[name].ndim != rank:
                problems.append(f"{name}: expected an array of {rank} axes, found one of shape {blobs[name].shape}")
            elif blobs[name].dtype.kind in "biuSUOc":
                quantized = " (quantized)" if blobs[name].dtype.itemsize == 1 else ""
                problems.append(f"{name}: expected floats, found {blobs[name].dtype}{quantized}")
        if not problems:
            kernel, bias = (blobs[name] for name in names[layer])
            outputs = kernel.shape[0 if channels_first else -1]
            if bias.shape[-1] != outputs:
                problems.append(
                    f"{names[layer][1]}: expected {outputs} values, as the kernel has, found {bias.shape[-1]}"
                )
    known = {name for pair in names.values() for name in pair}
    if others := [name for name in blobs if name not in known]:
        problems.append(f"no layer of AlexNet has {', '.join(others[:8])}{' and others' if len(others) > 8 else ''}")
    if problems:
        raise listing(path, format, problems, blobs)
    layers, below = {}, None
    for layer in names:
        kernel, bias = (np.asarray(blobs[name], "float32") for name in names[layer])
        first_dense = below is not None and kernel.ndim == 2 and layers[below][0].ndim == 4
        if channels_first:
            kernel = from_channels_first(kernel, layers[below][1].shape[-1] if first_dense else None)
        if bgr and below is None:
            kernel = kernel[:, :, ::-1]
        layers[layer], below = (kernel, bias), layer
    checkpoint = Checkpoint(path, format, layers, dict(names), network)
    if architecture is not None:
        checkpoint.architecture = _resolved(checkpoint, architecture)
        checkpoint.network = checkpoint.architecture.detect()
        checkpoint.mean = architecture.mean
    return checkpoint


def _resolved(checkpoint, architecture):
    """The architecture, resolved for the size of its images and checked against the inputs of fc6."""
    first, maps = checkpoint.first_dense
    inputs = checkpoint.layers[first][0].shape[0]
    sizes = [architecture.input_size] if architecture.input_size else [(227, 227), (224, 224), checkpoint.input_size]
    for size in sizes:
        found = architecture.resolve(size)
        if found.maps is None or math.prod(found.maps) * maps == inputs:
            return found
    rows, columns = found.maps
    raise CheckpointError(
        f"weights: {checkpoint.path} ({FORMATS[checkpoint.format]}) contradicts itself: an image of "
        f"{' x '.join(map(str, found.input_size))} pixels ends in {maps} maps of {rows} x {columns}, and "
        f"{first} has {inputs} inputs."
    )


def listing(path, format, problems, blobs):
    """The error that says what was expected, and what the file has."""
    strange = [f"{name} {tuple(array.shape)}" for name, array in list(blobs.items())[:24]]
    more = f" and {len(blobs) - 24} more" if len(blobs) > 24 else ""
    return CheckpointError(
        f"weights: {path} ({FORMATS[format]}) does not hold an AlexNet.\n  "
        + "\n  ".join(problems)
        + f"\n  the file has: {', '.join(strange) or 'no arrays'}{more}"
    )
