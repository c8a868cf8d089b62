"""How good a model is, where it fails, and what it sees."""

from alexnet.evaluation.analysis import extract_features, nearest_neighbors, occlusion_sensitivity
from alexnet.evaluation.checkpoints import checkpoint_info
from alexnet.evaluation.metrics import (
    VIEWS,
    EvaluationResult,
    evaluate,
    input_size,
    label_rank,
    predict_probabilities,
)

__all__ = [
    "VIEWS",
    "EvaluationResult",
    "checkpoint_info",
    "evaluate",
    "extract_features",
    "input_size",
    "label_rank",
    "nearest_neighbors",
    "occlusion_sensitivity",
    "predict_probabilities",
]
