"""Notebooks x backends x a grid of parameters, through papermill; and the report on the results."""

from alexnet.studies.errors import BatchError, MirrorError
from alexnet.studies.runner import run_batch

__all__ = ["BatchError", "MirrorError", "run_batch"]
