"""Reads checkpoints of AlexNet in many formats as arrays by layer name, and writes them.

Nothing in a file is executed: pickles are read by loaders that accept only arrays.
"""

from alexnet.weights.checkpoint import FORMATS, Checkpoint, CheckpointError, find_weights, recognize
from alexnet.weights.keras_config import from_config
from alexnet.weights.onnx_writing import write_onnx
from alexnet.weights.reading import read_checkpoint
from alexnet.weights.writing import write_checkpoint, write_state_dict

__all__ = [
    "FORMATS",
    "Checkpoint",
    "CheckpointError",
    "find_weights",
    "from_config",
    "read_checkpoint",
    "recognize",
    "write_checkpoint",
    "write_onnx",
    "write_state_dict",
]
