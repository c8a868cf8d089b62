"""What every format has in common: a checkpoint, and how its format is recognized."""

import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alexnet.presets import LAYERS, PRESETS, Convolution

FORMATS = {
    "keras": "Keras model (.keras)",
    "keras_weights": "Keras weights (.weights.h5)",
    "torch": "PyTorch state dict (.pth)",
    "safetensors": "safetensors",
    "caffe": "Caffe model (.caffemodel)",
    "onnx": "ONNX",
    "npy": "NumPy dictionary (.npy)",
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that holds another network; what was expected and what was found."""


@dataclass
class Checkpoint:
    """The weights of a file.

    Attributes:
        path: The file.
        format: A key of `FORMATS`.
        layers: By layer name, `conv1` to `fc8`, the kernel in Keras's layout for RGB, and the bias.
        blobs: By layer name, what the file calls the two.
        preset: The network that they belong to, as far as the file tells.
        settings: By layer name, the arguments that the file's own layers had; Keras models only.
        mean: RGB mean of the images that it was trained on, where the file is one of ours and tells.
    """

    path: Path
    format: str
    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    blobs: dict[str, tuple[str, str]]
    preset: str | None = None
    settings: dict[str, dict] = field(default_factory=dict)
    mean: list[float] | None = None

    @property
    def classes(self):
        return len(self.layers["fc8"][1])

    @property
    def width(self):
        """Share of the hidden units that the published networks have, 4096."""
        return len(self.layers["fc7"][1]) / 4096

    @property
    def image_size(self):
        """Pixels a side of the smallest input that ends in as many maps as fc6 has inputs."""
        inputs, maps = self.layers["fc6"][0].shape[0], len(self.layers["conv5"][1])
        side = math.isqrt(inputs // maps)
        if self.preset and side == 6:
            return PRESETS[self.preset].image_size
        return 32 * side + 35  # three poolings of 3 by 2 and a convolution of 11 by 4, backwards

    def candidates(self):
        """Presets whose kernels have the shapes of these, up to a factor in width."""
        kernels = {name: kernel.shape for name, (kernel, _) in self.layers.items()}
        return [name for name, preset in PRESETS.items() if _fits(preset, kernels)]


def _fits(preset, kernels):
    filters = [layer.filters for layer in preset.layers.values() if isinstance(layer, Convolution)]
    ratio = kernels["conv1"][-1] / filters[0]
    below = 3
    for name, layer in preset.layers.items():
        if isinstance(layer, Convolution):
            expected = (layer.kernel, layer.kernel, below // layer.columns)
            if kernels[name][:3] != expected or abs(kernels[name][3] - ratio * layer.filters) > preset.columns:
                return False
            below = kernels[name][3]
    return True


def recognize(path):
    """The format of a file, a key of `FORMATS`, from its content; the folder of a run stands for its `model.keras`.

    Returns:
        The path of the file and its format.

    Raises:
        CheckpointError: there is no such file, or it is in none of the formats.
    """
    path = Path(path).expanduser()
    if path.is_dir() and (path / "model.keras").is_file():
        path = path / "model.keras"
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise CheckpointError(f"weights: there is no file {path}.") from None
    except IsADirectoryError:
        raise CheckpointError(f"weights: {path} is a folder without a model.keras.") from None
    except OSError as error:
        raise CheckpointError(f"weights: {path} cannot be read ({error.strerror}).") from None
    found = _recognize_zip(path) if start.startswith(b"PK") else _recognize_start(start)
    if found is None:
        raise CheckpointError(
            f"weights: {path} is in no format that is known here. Expected: {', '.join(FORMATS.values())}. "
            f"Found: {path.stat().st_size:,} bytes that begin with {start!r}."
        )
    return path, found


def _recognize_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise CheckpointError(f"weights: {path} is a zip archive that is damaged or was cut off.") from None
    if "config.json" in names and "model.weights.h5" in names:
        return "keras"
    return "torch" if any(name.endswith("/data.pkl") for name in names) else None


def _recognize_start(start):
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras_weights"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"):  # PyTorch's magic number, before version 1.6
        return "torch"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**27:
        return "safetensors"
    if start[:1] == b"\x08":  # protocol buffers: the first field of an ONNX model is a number, its version
        return "onnx"
    if start[:1] in (b"\x0a", b"\x12") or start[:2] == b"\xa2\x06":  # of a Caffe network a name or a layer
        return "caffe"
    return None


def from_channels_first(kernel, channels=None):
    """A kernel of PyTorch's, Caffe's or ONNX's layout in Keras's: OIHW to HWIO, and (outputs, inputs) transposed.

    Args:
        channels: Of the first fully connected layer, the number of maps that it sees: its inputs lie channel by
            channel there and pixel by pixel here.
    """
    if kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if channels is None:
        return kernel.T
    outputs, inputs = kernel.shape
    side = math.isqrt(inputs // channels)
    if side * side * channels != inputs:
        return kernel.T  # of another network; its shape will say so
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


def as_network(path, format, blobs, names, preset=None, bgr=False, channels_first=True, settings=None):
    """Named arrays as a `Checkpoint`.

    Args:
        blobs: The file's arrays by the names that it gives them.
        names: By layer name, the names of kernel and bias in the file.
        bgr: Whether conv1 sees blue first; it is turned round.
        channels_first: Whether kernels lie as PyTorch, Caffe and ONNX have them.

    Raises:
        CheckpointError: arrays are missing or have a rank that no layer has; all of them are listed.
    """
    problems = []
    for layer in LAYERS:
        ranks = (4 if layer.startswith("conv") else 2, 1)
        for name, rank in zip(names[layer], ranks, strict=True):
            if name not in blobs:
                problems.append(f"{name}: expected an array of {rank} axes, found none")
            elif blobs[name].ndim != rank:
                problems.append(f"{name}: expected an array of {rank} axes, found one of shape {blobs[name].shape}")
    if problems:
        raise listing(path, format, problems, blobs)
    layers = {}
    for layer in LAYERS:
        kernel, bias = (np.asarray(blobs[name]) for name in names[layer])
        if channels_first:
            maps = len(layers["conv5"][1]) if layer == "fc6" else None
            kernel = from_channels_first(kernel, maps)
        if bgr and layer == "conv1":
            kernel = kernel[:, :, ::-1]
        layers[layer] = (kernel, bias)
    return Checkpoint(path, format, layers, dict(names), preset, settings or {})


def listing(path, format, problems, blobs):
    """The error that says what was expected, and what the file has."""
    strange = [f"{name} {tuple(array.shape)}" for name, array in list(blobs.items())[:24]]
    more = f" and {len(blobs) - 24} more" if len(blobs) > 24 else ""
    return CheckpointError(
        f"weights: {path} ({FORMATS[format]}) does not hold an AlexNet.\n  "
        + "\n  ".join(problems)
        + f"\n  the file has: {', '.join(strange) or 'no arrays'}{more}"
    )
