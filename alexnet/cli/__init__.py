"""The command line: `python -m alexnet COMMAND`; `main.py` is the first of the commands, `train`."""

import contextlib
import logging
import sys

from alexnet.cli.common import BAD_USAGE, FAILED, INTERRUPTED, fail
from alexnet.cli.parser import build_parser
from alexnet.locking import LockedError
from alexnet.packages import missing
from alexnet.recipe import RecipeError


def main(arguments=None):
    """Run a command.

    Returns:
        The exit status: 0, 1 for a failed run, 2 for bad usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text
    with _log_to_screen():
        return _run(arguments)


@contextlib.contextmanager
def _log_to_screen():
    """Prints the package's log messages on the error stream, however other libraries have set up logging."""
    logger, handler = logging.getLogger("alexnet"), _ErrorStream()
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[0]
        logger.setLevel(before[1])


class _ErrorStream(logging.Handler):
    """Writes to what `sys.stderr` is at that moment: while a progress bar is shown, to the lines above it."""

    def emit(self, record):
        print(self.format(record), file=sys.stderr, flush=True)


def _run(arguments):
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.command(options)
    except RecipeError as error:
        return fail(error, BAD_USAGE)
    except LockedError as error:
        return fail(error, FAILED)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("alexnet"):
            raise
        return fail(missing(error), FAILED)
    except KeyboardInterrupt as error:
        print(str(error) or "Interrupted.", file=sys.stderr)
        return getattr(error, "status", INTERRUPTED)
