"""Every picture and table of the notebooks and reports. A picture is returned as a matplotlib figure."""

from alexnet.plotting.images import confusion, gallery, neighbors, occlusion, predictions
from alexnet.plotting.networks import filters, network, normalization, shares
from alexnet.plotting.speed import batch_times, benchmark, layer_times, scaling
from alexnet.plotting.tables import table
from alexnet.plotting.training import comparison, curves

__all__ = [
    "batch_times",
    "benchmark",
    "comparison",
    "confusion",
    "curves",
    "filters",
    "gallery",
    "layer_times",
    "neighbors",
    "network",
    "normalization",
    "occlusion",
    "predictions",
    "scaling",
    "shares",
    "table",
]
