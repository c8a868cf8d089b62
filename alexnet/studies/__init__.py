"""Notebooks x backends x a grid of parameters, through papermill; and the report on the results."""

from alexnet.studies.runner import BatchError, run_batch

__all__ = ["BatchError", "run_batch"]
