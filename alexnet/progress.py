"""Whether a person is watching, and a progress bar for them: on a terminal or in a notebook."""

import html
import os
import sys
import time

from alexnet.units import format_duration

INTERVAL = 0.25  # seconds between two drawings of a bar, at least


def in_kernel():
    """Whether this code runs in a notebook's kernel, with or without a person watching."""
    return getattr(_shell(), "kernel", None) is not None


def is_interactive():
    """A terminal, or a notebook that a person has open (papermill and nbclient set none of these variables)."""
    if not in_kernel():
        return sys.stdout.isatty()
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return os.environ["KAGGLE_KERNEL_RUN_TYPE"] == "Interactive"
    opened_by_vs_code = "__vsc_ipynb_file__" in getattr(_shell(), "user_ns", {})
    return "JPY_SESSION_NAME" in os.environ or "COLAB_RELEASE_TAG" in os.environ or opened_by_vs_code


def _shell():
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


class Bar:
    """A bar that is redrawn in place, four times a second at most. A context manager; nothing of the bar remains.

    Args:
        stream: The terminal's, `sys.stdout` or `sys.stderr`. In a notebook the bar is an output of the cell.

    Attributes:
        visible: Whether there is anything to draw on: a notebook's kernel, or a terminal and rich.
    """

    def __init__(self, stream):
        self._screen = _NotebookScreen() if in_kernel() else _terminal_screen(stream)
        self._drawn = -INTERVAL
        self.visible = self._screen is not None

    def __enter__(self):
        if self.visible:
            self._screen.open()
        return self

    def __exit__(self, *_):
        if self.visible:
            self._screen.close()

    def is_due(self):
        """Whether the last drawing was long enough ago for a new one."""
        return self.visible and time.monotonic() - self._drawn >= INTERVAL

    def draw(self, title, completed, total, count, note=""):
        """Draw the bar.

        Args:
            title: Stands before it.
            completed, total: How far it reaches; a total of None if that is unknown.
            count: Stands after it.
            note: A second line.
        """
        if self.visible:
            self._drawn = time.monotonic()
            self._screen.draw(title, completed, total, count, note)


def _terminal_screen(stream):
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    console = Console(file=stream, force_jupyter=False)
    return _TerminalScreen(console) if console.is_terminal and not console.is_dumb_terminal else None


class _TerminalScreen:
    """The last lines of a terminal. What is printed meanwhile goes above them."""

    def __init__(self, console):
        from rich.live import Live

        self._live = Live(console=console, transient=True, auto_refresh=False)  # a thread would compete with training

    def open(self):
        self._live.start()

    def close(self):
        self._live.stop()

    def draw(self, title, completed, total, count, note):
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 1))
        row.add_row(Text(title), ProgressBar(total, completed, width=30, pulse=total is None), Text(count))
        lines = [row, Text(note, overflow="ellipsis", no_wrap=True)] if note else [row]
        self._live.update(Group(*lines), refresh=True)


class _NotebookScreen:
    """An output of the running cell, which is replaced."""

    def open(self):
        from IPython.display import display

        self._handle = display(_bundle("", ""), raw=True, display_id=True)

    def close(self):
        self._handle.update(_bundle("", ""), raw=True)

    def draw(self, title, completed, total, count, note):
        extent = "" if total is None else f' value="{completed}" max="{total}"'
        text = html.escape(f"{title}: {count}")
        page = (
            f"<div>{html.escape(title)} <progress{extent} aria-label='{text}' style='width: 20em; max-width: 40%'>"
            f"</progress> {html.escape(count)}<br><small>{html.escape(note)}</small></div>"
        )
        self._handle.update(_bundle(page, f"{title}: {count}  {note}".rstrip()), raw=True)


def _bundle(page, text):
    return {"text/html": page, "text/plain": text}


def progress(steps, total, description, verbose=None):
    """The same steps, with a progress bar: on the terminal's error stream, or in the notebook.

    Args:
        steps: Any iterable.
        total: How many there are, or None.
        description: The text before the bar.
        verbose: 1 for the bar, 0 for silence; None for the bar where a person is watching.
    """
    if verbose is None:
        verbose = is_interactive() if in_kernel() else sys.stderr.isatty()
    if not verbose:
        yield from steps
        return
    began = time.monotonic()
    with Bar(sys.stderr) as bar:
        for completed, step in enumerate(steps):
            if bar.is_due():
                bar.draw(description, completed, total, *_count(completed, total, time.monotonic() - began))
            yield step


def _count(completed, total, seconds):
    if total is None:
        return f"{completed:,}", ""
    left = f"{format_duration(seconds / completed * (total - completed))} left" if completed else ""
    return f"{completed:,} of {total:,}", left
