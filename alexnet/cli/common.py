"""What the commands share: exit statuses, errors, paths."""

import functools
import os
import sys
from pathlib import Path

from alexnet.mounts import MountError, find_mount
from alexnet.recipe import PROJECT, Recipe, is_url

FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130


def fail(error, status):
    """Print what went wrong; returns the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return status


def params_file(path):
    """A params file relative to the current directory, or else to the project's folder."""
    path = os.path.expanduser(path)
    return path if Path(path).exists() or not (PROJECT / path).exists() else PROJECT / path


def value_of(name, text):
    """A flag's text, which Recipe converts; paths start at the current directory."""
    from alexnet.data.readers import NAMED

    if is_url(text):  # which is no path of this machine, and each name says what it takes
        return text
    if name in ("data_dir", "weights") and not os.path.exists(text) and _is_attached(text):
        return text
    if name in ("data_dir", "run_dir", "weights") and text not in (*NAMED, "", "None", "null"):
        return str(output_path(text))
    return text


def _is_attached(text):
    """Whether a notebook on Kaggle has something of this name attached; a name of several is refused later."""
    try:
        return find_mount(text) is not None
    except MountError:
        return True


def output_path(text):
    """A path as in the shell: `~` is the home folder, a relative one starts at the current directory."""
    return Path(os.path.expanduser(text)).absolute()


def expects_errors(command):
    """A command that starts on its `--backend`, and whose expected errors become a message and an exit status."""

    @functools.wraps(command)
    def run(options):
        from alexnet.runtime import BackendError, import_keras, tune_process

        try:
            import_keras(Recipe(backend=options.backend).backend)
            from alexnet.data import DataError, ImageError
            from alexnet.weights import CheckpointError
        except BackendError as error:
            return fail(error, BAD_USAGE)
        tune_process()
        try:
            return command(options)
        except (BackendError, CheckpointError, DataError) as error:
            return fail(error, BAD_USAGE)
        except (ImageError, OSError) as error:
            return fail(error, FAILED)

    return run
