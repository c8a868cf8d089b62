"""`launch`."""

import math
import os
import sys

from alexnet.cli.common import BAD_USAGE, fail, params_file
from alexnet.launching import LaunchError, launch_on_loopback
from alexnet.recipe import BACKENDS, RecipeError, nearest, read_yaml

DISTRIBUTED = ("train",)  # the commands whose processes work together


def launch(options):
    arguments = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    try:
        backend = _check(arguments, options)
        command = [sys.executable, "-m", "alexnet", *arguments]
        return launch_on_loopback(
            command, backend, options.processes, options.port, timeout=options.timeout, grace=options.grace
        )
    except LaunchError as error:
        return fail(error, BAD_USAGE)


def _check(arguments, options):
    """The backend of a command that can be launched."""
    if not arguments:
        raise LaunchError("launch needs a command, as in: launch -n 2 -- train --backend torch")
    if arguments[0] not in DISTRIBUTED:
        raise LaunchError(
            f"{arguments[0]} does not run in several processes; launch starts: {', '.join(DISTRIBUTED)}."
            f"{nearest(arguments[0], DISTRIBUTED)}"
        )
    for name in ("timeout", "grace"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise LaunchError(f"--{name} is a number of seconds above 0. Received: {value:g}")
    if options.port is not None and not 0 < options.port < 65536:
        raise LaunchError(f"--port is from 1 to 65535. Received: {options.port}")
    return _backend(arguments)


def _backend(arguments):
    """Where the command itself would find it: its flag, its params files, the environment."""
    from alexnet.cli.parser import build_parser  # which imports this file

    parsed, rest = build_parser().parse_known_args(arguments)
    if rest:
        parsed.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    files = [read_yaml(params_file(path)).get("backend") for path in reversed(parsed.params)]
    asked = [parsed.backend, *files, os.environ.get("KERAS_BACKEND")]
    backend = next((name for name in asked if name not in (None, "", "None")), None)
    if backend is None:
        raise LaunchError("launch needs to know the backend: give the command --backend, or set KERAS_BACKEND.")
    if backend not in BACKENDS:
        raise RecipeError(
            f"backend: received {backend!r}; allowed: {', '.join(BACKENDS)}.{nearest(str(backend), BACKENDS)}"
        )
    return backend
