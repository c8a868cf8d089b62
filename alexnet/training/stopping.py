"""How a run ends early: a signal, or too little memory."""

import contextlib
import signal
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from alexnet.data.dataset import ImageDataset

T = TypeVar("T")


class RunError(RuntimeError):
    """A run that cannot start or continue; the message is one sentence."""


class LossError(RunError):
    """A loss or weights that are NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or a notebook's stop button ended the run. A notebook shows it as one line.

    Args:
        number: The signal's.
        between_steps: Whether the run's state was whole at that moment, so that it can be saved.
        message: What was saved and how to go on, for a person.

    Attributes:
        between_steps: As above.
        status: The exit status that shells expect of it: 130, or 143 for SIGTERM.
    """

    def __init__(self, number: int, between_steps: bool, message: str = ""):
        super().__init__(message or f"Interrupted by {signal.Signals(number).name}.")
        self.number = number
        self.between_steps = between_steps
        self.status = 128 + number

    def with_message(self, message: str) -> "Interrupted":
        """The same with another message."""
        return Interrupted(self.number, self.between_steps, message)

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this in place of a traceback.
        return [str(self)]


class Signals:
    """A context in which Ctrl-C and SIGTERM wait for the end of a training step; a second signal does not wait.

    Args:
        distribution: `Distribution`. Several processes stop together, after the same step, and not during validation.

    Attributes:
        waiting: Whether `check` will be called soon, so signals wait for it.
        held: Whether something is being written atomically; signals are ignored.
        received: The signal that waits, or None.
    """

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution
        self.waiting = self.held = False
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:  # a handler that was not set from Python could not be restored
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """To be called between steps, by all processes.

        Raises:
            Interrupted: a signal came, to this process or another one.
        """
        if any(self.distribution.gather(self.received is not None)):
            self.stop()

    def stop(self) -> None:
        """End the run between two steps.

        Raises:
            Interrupted: always.
        """
        raise Interrupted(self.received or signal.SIGTERM, between_steps=True)

    def between(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, with a `check` before each where there is one process."""
        for batch in batches:
            if self.distribution.processes == 1:
                self.check()
            yield batch

    def _receive(self, number, frame):
        if self.held:
            return
        if not self.waiting or self.received is not None:
            raise Interrupted(number, between_steps=False)
        self.received = number


def interruptible(
    images: ImageDataset, signals: Signals, watched: Callable[[Iterable], Iterable] = iter
) -> types.SimpleNamespace:
    """Images for `alexnet.evaluate`, with a `Signals.check` between their batches, which pass through `watched`.

    Their `count` is how many of them this process reads.
    """
    rank, processes = images.share
    return types.SimpleNamespace(
        count=len(range(rank, len(images), processes)),
        class_names=images.class_names,
        steps_per_epoch=images.steps_per_epoch,
        images=lambda: watched(signals.between(images.images())),
    )


_NO_MEMORY = (
    *("RESOURCE_EXHAUSTED", "ResourceExhausted", "OOM when allocating", "OutOfMemory", "out of memory"),
    *("Out of memory", "can't allocate memory", "bad_alloc", "MemoryError"),
)


@contextlib.contextmanager
def reraise_oom(batch_size: int) -> Iterator[None]:
    """Turns each library's out-of-memory error into one that says what to try.

    Raises:
        RunError: instead.
    """
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if not isinstance(error, MemoryError) and not any(sign in text for sign in _NO_MEMORY):
            raise
        advice = f"Try batch_size {batch_size // 2}" if batch_size > 1 else "Try a smaller width or image_size"
        raise RunError(f"Out of memory with batch_size {batch_size}. {advice}.") from error
