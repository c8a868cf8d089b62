"""Every picture and table of the notebooks and reports. A picture is returned as a matplotlib figure."""

from alexnet.plotting.diagram import network, two_devices
from alexnet.plotting.ideas import activations, dropout, normalized_map, pooling
from alexnet.plotting.images import confusion, gallery, neighbors, occlusion, predictions
from alexnet.plotting.networks import filters, normalization, shares
from alexnet.plotting.speed import batch_times, benchmark, device_scaling, layer_times, scaling
from alexnet.plotting.tables import table
from alexnet.plotting.training import comparison, curves

__all__ = [
    "activations",
    "batch_times",
    "benchmark",
    "comparison",
    "confusion",
    "curves",
    "device_scaling",
    "dropout",
    "filters",
    "gallery",
    "layer_times",
    "neighbors",
    "network",
    "normalization",
    "normalized_map",
    "occlusion",
    "pooling",
    "predictions",
    "scaling",
    "shares",
    "table",
    "two_devices",
]
