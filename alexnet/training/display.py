"""Progress of a training: a line for each epoch, a bar for the current one, and in notebooks a curve."""

import html
import sys
import time

import keras
from keras import ops

from alexnet.progress import Bar, in_kernel
from alexnet.recipe import Recipe
from alexnet.training.run_dir import Run
from alexnet.training.state import TrainState
from alexnet.units import format_duration

# Title and format by the name in a run's history. A column is as wide as its title.
COLUMNS = {
    "loss": ("   loss", ".4f"),
    "top1": (" top-1", ".1%"),
    "val_loss": ("val loss", ".4f"),
    "val_top1": ("val top-1", ".1%"),
    "val_top5": ("val top-5", ".1%"),
    "learning_rate": ("learning rate", ".2g"),
    "seconds": ("seconds", ".1f"),
}


class EpochLogger(keras.callbacks.Callback):
    """Prints one line for each epoch, and a line of titles above the first."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self._begun = False

    def on_epoch_begin(self, epoch, logs=None):
        if not self._begun:
            print("  ".join(["epoch".rjust(self._width()), *(title for title, _ in COLUMNS.values())]), flush=True)
            self._begun = True

    def on_epoch_end(self, epoch, logs=None):
        *earlier, row = self.run.history
        cells = [f"{epoch + 1}/{self.run.recipe.epochs}".rjust(self._width())]
        cells += [format(row[name], form).rjust(len(title)) for name, (title, form) in COLUMNS.items()]
        if all(row["val_top1"] > other["val_top1"] for other in earlier):
            cells.append("best")  # so far
        print("  ".join(cells), flush=True)

    def _width(self):
        return max(len("epoch"), 2 * len(str(self.run.recipe.epochs)) + 1)


class EpochBar(keras.callbacks.Callback):
    """A bar for the current epoch, and in notebooks a curve of the finished ones. A context manager.

    Nothing is drawn, or asked of the device, more often than `alexnet.progress.INTERVAL` allows.
    """

    def __init__(self, state: TrainState):
        super().__init__()
        self.state = state
        self.run = state.run
        self._bar = Bar(sys.stdout)
        self._curve = None
        self._pace = None  # seconds a step
        self._mark = None  # (time, step) from which the pace is measured

    def __enter__(self):
        self._bar.__enter__()
        if in_kernel():
            from IPython.display import display

            self._curve = display(_curve(self.run.history), raw=True, display_id=True)
        return self

    def __exit__(self, *error):
        self._bar.__exit__(*error)

    def on_epoch_begin(self, epoch, logs=None):
        # The very first step compiles, so it is not counted.
        self._mark = self._pace and (time.monotonic(), self.state.step)
        self._draw()

    def on_train_batch_end(self, batch, logs=None):
        step, now = self.state.step, time.monotonic()
        if self._mark is None:
            self._mark = (now, step)
        elif self._pace is None or now - self._mark[0] > 1:
            self._pace = (now - self._mark[0]) / (step - self._mark[1])
        if self._bar.is_due():
            self._draw(loss=float(ops.convert_to_numpy(logs["loss"])))

    def on_epoch_end(self, epoch, logs=None):
        if self._curve is not None:
            self._curve.update(_curve(self.run.history), raw=True)

    def validating(self, batches):
        """The validation batches, counted on the bar."""
        total = self.run.validation.steps_per_epoch
        for completed, batch in enumerate(batches):
            if self._bar.is_due():
                count = f"validation, batch {completed + 1:,} of {total:,}"
                self._bar.draw(self._title(), completed, total, count)
            yield batch

    def _title(self):
        return f"epoch {self.state.epoch + 1} of {self.run.recipe.epochs}"

    def _draw(self, loss=None):
        step, total = self.state.step, self.run.training.steps_per_epoch
        notes = [] if loss is None else [f"loss {loss:.4f}"]
        if self._pace:
            epoch, whole = self._seconds_left()
            notes.append(f"{self.run.recipe.batch_size / self._pace:,.0f} images/s")
            notes.append(f"about {_estimate(epoch)} left in this epoch, {_estimate(whole)} in all")
        elif loss is None:
            notes.append("the first step takes longer")
        self._bar.draw(self._title(), step, total, f"step {step:,} of {total:,}", ", ".join(notes))

    def _seconds_left(self):
        """Of this epoch and of all, with their validations."""
        state, run = self.state, self.run
        steps = run.training.steps_per_epoch
        if run.history:
            validation = run.history[-1]["seconds"] - run.history[-1]["training_seconds"]
        else:
            validation = run.validation.steps_per_epoch * self._pace / 3  # forward without backward
        epoch = (steps - state.step) * self._pace + validation
        return epoch, epoch + (run.recipe.epochs - state.epoch - 1) * (steps * self._pace + validation)


def _estimate(seconds):
    return f"{seconds:.0f} s" if seconds < 10 else format_duration(seconds)  # no tenths in an estimate


# --- Where a run stands, in words


def position(run: Run, epoch: int, step: int) -> str:
    """`after epoch 1 of 35`, or `in epoch 2 of 35, after step 20 of 31`."""
    epochs, steps = run.recipe.epochs, run.training.steps_per_epoch
    if step:
        return f"in epoch {epoch + 1} of {epochs}, after step {step:,} of {steps:,}"
    return f"after epoch {epoch} of {epochs}" if epoch else "before the first step"


def again(recipe: Recipe) -> str:
    """How to start the training again so that it resumes."""
    how = "run this cell again" if in_kernel() else "run the same command again"
    return how if recipe.resume else f"set resume to true and {how}"


def explain_interruption(state: TrainState) -> str:
    """Where the run was interrupted, what was saved, and how to go on: one line."""
    run, now = state.run, (state.epoch, state.step)
    text = f"Interrupted {position(run, *now)}."
    if state.saved is None:
        return f"{text} Nothing was saved."
    saved = "The run is saved" if state.saved == now else f"The run is saved as it was {position(run, *state.saved)}"
    return f"{text} {saved}, in {run.folder / 'checkpoints'}: {again(run.recipe)} to resume."


# --- The curve, as SVG: drawn in no time, and sharp at any size

_WIDTH, _HEIGHT = 300, 130


def _curve(history):
    """Loss and top-1 error of the epochs so far, as a notebook shows them; nothing before there are two."""
    if len(history) < 2:
        return {"text/html": "", "text/plain": ""}
    losses = [[row[f"{part}loss"] for row in history] for part in ("val_", "")]
    errors = [[100 * (1 - row[f"{part}top1"]) for row in history] for part in ("val_", "")]
    text = (
        f"After {len(history)} epochs: loss {losses[1][-1]:.3f}, in validation {losses[0][-1]:.3f}; "
        f"top-1 error {errors[1][-1]:.1f} %, in validation {errors[0][-1]:.1f} %"
    )
    panels = _panel(0, "loss", losses, "{:.3g}") + _panel(_WIDTH + 40, "top-1 error", errors, "{:.0f} %")
    page = (
        f'<svg role="img" aria-label="{html.escape(text)}" viewBox="-46 -22 {2 * _WIDTH + 96} {_HEIGHT + 44}" '
        'style="width: 100%; max-width: 740px; font: 12px sans-serif" fill="currentColor">'
        f"{panels}</svg>"
    )
    return {"text/html": page, "text/plain": text}


def _panel(left, title, series, form):
    """One of the two pictures; validation is a solid line, training a dashed one."""
    most = max(map(max, series)) or 1.0
    looks = ('stroke="#0072b2" stroke-width="2.2"', 'stroke="currentColor" stroke-dasharray="5 3" opacity="0.7"')
    names = ("validation", "training")
    count = len(series[0])
    parts = [
        f'<g transform="translate({left})"><text y="-8" font-weight="bold">{title}</text>',
        f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="currentColor" opacity="0.4"/>',
        f'<text x="-5" y="9" text-anchor="end">{form.format(most)}</text>',
        f'<text x="-5" y="{_HEIGHT}" text-anchor="end">0</text>',
        f'<text y="{_HEIGHT + 16}">1</text>',
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">epoch {count}</text>',
    ]
    for number, (values, look, name) in enumerate(zip(series, looks, names, strict=True)):
        points = " ".join(
            f"{_WIDTH * i / (count - 1):.1f},{_HEIGHT * (1 - value / most):.1f}" for i, value in enumerate(values)
        )
        x = _WIDTH - 170 + 92 * number
        parts.append(f'<polyline points="{points}" fill="none" {look}/>')
        parts.append(f'<line x1="{x}" x2="{x + 22}" y1="-12" y2="-12" {look}/><text x="{x + 26}" y="-8">{name}</text>')
    return "".join(parts) + "</g>"
