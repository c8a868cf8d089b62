"""A run that an earlier session on Kaggle has left: its output, attached to this notebook, is read-only."""

import shutil
from pathlib import Path

from alexnet import mounts
from alexnet.recipe import Recipe
from alexnet.training.stopping import RunError


def fetch_attached(recipe: Recipe, folder: Path, verbose: int | None = None, finished: bool = False) -> None:
    """Copy the run that an earlier session has left unfinished to `folder`, unless a run is there.

    An attached output has the paths of /kaggle/working: the run is where this one would be, `run_dir/name/backend`.

    Args:
        recipe: With `resume` false nothing is copied.
        folder: The run's folder, which nobody else may write to.
        verbose: 0 for silence.
        finished: Whether a finished run is wanted as well.

    Raises:
        RunError: several attached outputs hold one, or it cannot be copied.
    """
    if not (recipe.resume and mounts.on_kaggle() and folder.is_relative_to(mounts.WORKING)):
        return
    if (folder / "params.yaml").is_file():
        return
    places = [place / folder.relative_to(mounts.WORKING) for place in mounts.mounts()]
    places = [place for place in places if _holds_run(place, finished)]
    if len(places) > 1:
        raise RunError(
            f"Several attached outputs hold a run called {recipe.name}: {', '.join(map(str, places))}. "
            "Keep one of them attached, give this run another name, or set resume to false to begin afresh."
        )
    for place in places:
        if verbose != 0:
            print(f"The run of an earlier session, {place}, is copied to {folder}", flush=True)
        _copy(place, folder)


def _holds_run(place, finished):
    wanted = ["checkpoints/step-*.npz", *(["model.keras"] if finished else [])]
    return (place / "params.yaml").is_file() and any(any(place.glob(pattern)) for pattern in wanted)


def _copy(place, folder):
    """The files of a run, without their modes: there they are read-only. Without params.yaml it is no run yet, so that
    comes last."""
    files = [path for path in place.rglob("*") if path.is_file() and "/." not in f"/{path.relative_to(place)}"]
    try:
        for file in sorted(files, key=lambda file: file.name == "params.yaml"):
            target = folder / file.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    except OSError as error:
        raise RunError(
            f"The run of an earlier session, {place}, cannot be copied to {folder} ({error.strerror or error})."
        ) from None
