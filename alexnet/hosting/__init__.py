"""Notebooks for machines where nothing is installed: Kaggle and Colab.

`notebook.py` makes one self-contained, with the package in a cell; `kaggle.py` makes the folder that
`kaggle kernels push` sends.
"""

from alexnet.hosting.kaggle import KernelOptions, write_kernel
from alexnet.hosting.notebook import HostingError, repository, self_contained

__all__ = ["HostingError", "KernelOptions", "repository", "self_contained", "write_kernel"]
