"""Whether somebody watches, and the bar for them."""

import os
import sys


def is_interactive():
    """A terminal, or a notebook that a person has open (a headless kernel has none of these)."""
    if sys.stdout.isatty() or "JPY_SESSION_NAME" in os.environ or "COLAB_RELEASE_TAG" in os.environ:
        return True
    return os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Interactive"


def progress(steps, total, description, verbose=None):
    """The same steps, with a progress bar on the error stream.

    Args:
        steps: Anything to go through.
        total: How many there are.
        description: What is going on.
        verbose: 1 for the bar, 0 for silence; None for the bar where somebody watches. There is none without rich.
    """
    if verbose is None:
        verbose = sys.stderr.isatty() or is_interactive()
    if not verbose:
        yield from steps
        return
    try:
        from rich.console import Console
        from rich.progress import track as bar
    except ModuleNotFoundError:
        yield from steps
        return
    yield from bar(steps, description, total, console=Console(stderr=True), transient=True)
