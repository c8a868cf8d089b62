"""Writes a Keras model in other formats."""

import contextlib
import errno
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.atomic import atomic_write
from alexnet.weights.checkpoint import to_channels_first
from alexnet.weights.reading import TORCHVISION


def write_state_dict(model: Any, path: Path, network: str | None = None) -> None:
    """Write the weights in PyTorch's layout, as `.safetensors` or `.pth`.

    The network `torchvision` gets torchvision's names and can be loaded into its model. Other networks get the names of
    their layers, `conv1.weight` to `fc8.bias`, and expect RGB 0-255 minus their mean.
    """
    names = TORCHVISION if network == "torchvision" else {}
    arrays, maps = {}, None
    for layer in model.layers:
        if type(layer).__name__ == "Flatten":
            maps = layer.input.shape[-1]
        if getattr(layer, "kernel", None) is None:
            continue
        (kernel, bias), name = arrays_of(layer), names.get(layer.name, layer.name)
        if kernel.ndim == 2:
            kernel, maps = to_channels_first(kernel, maps), None
        else:
            kernel = to_channels_first(kernel)
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = np.ascontiguousarray(kernel), bias
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        metadata = {"format": "pt", **({"network": network} if network else {})}
        save_file(arrays, path, metadata)
    else:
        import torch

        with open(path, "wb") as file:  # given a path, PyTorch does not say why it fails
            torch.save({name: torch.from_numpy(values) for name, values in arrays.items()}, file)


def arrays_of(layer):
    """Kernel and bias of a layer, with LoRA's update added to the kernel; an empty list for a layer without them."""
    from keras import ops

    return [
        ops.convert_to_numpy(values)
        for name in ("kernel", "bias")
        if (values := getattr(layer, name, None)) is not None
    ]


class SaveError(OSError):
    """A file could not be written. The message says why."""

    def __str__(self):
        return self.strerror


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_WORDS = (
    "No space left",
    "quota exceeded",
    "File too large",
    *(f"{word} {number}" for word in ("os error", "errno =") for number in FULL),
)


@contextlib.contextmanager
def write_checkpoint(path, ending):
    """`atomic_write` of a checkpoint. Creates the folders around it, and removes them if writing fails.

    Raises:
        SaveError: the system could not write the file.
    """
    new = [parent for parent in path.parents if not parent.exists()]  # the innermost first
    done = False
    try:
        if path.is_dir() and (ending or any(path.iterdir())) and not (path / "saved_model.pb").is_file():
            raise SaveError(errno.EISDIR, f"{path} cannot be written: it is a folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            yield unfinished
        done = True
    except SaveError:
        raise
    except Exception as error:  # h5py, safetensors and TensorFlow all raise their own kinds
        number, reason = _of_the_disk(error)
        if reason is None:
            raise
        raise SaveError(number, f"{path} cannot be written: {reason}.") from None
    finally:
        for parent in () if done else new:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _of_the_disk(error):
    """`(errno, reason)` if the system could not write; `(None, None)` for any other error."""
    chain = error
    while chain is not None:
        if any(word in str(chain) for word in FULL_WORDS) or getattr(chain, "errno", None) in FULL:
            return errno.ENOSPC, "the disk is full"
        chain = chain.__cause__ or chain.__context__
    if isinstance(error, OSError):
        return error.errno, error.strerror or str(error).partition("\n")[0]
    return None, None
