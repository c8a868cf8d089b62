"""A training run that reports its progress to its parent, and saves slowly.

Usage: python child.py RECIPE.json
Prints `step N` after each step, `half` when half of a state is written, `whole` when only its renaming is left.
"""

import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import alexnet

PAUSE = 0.3  # seconds, in which the parent may kill it


def say(*words):
    print(*words, flush=True)


def main():
    alexnet.import_keras()
    from alexnet.training import callbacks, train

    real_savez, real_fsync, real_step = np.savez, os.fsync, callbacks.StepMonitor.on_train_batch_end

    def savez(file, **arrays):
        content = io.BytesIO()
        real_savez(content, **arrays)
        half = content.tell() // 2
        file.write(content.getvalue()[:half])
        file.flush()
        say("half")
        time.sleep(PAUSE)
        file.write(content.getvalue()[half:])

    def fsync(descriptor):
        real_fsync(descriptor)
        say("whole")
        time.sleep(PAUSE)

    def step(self, batch, logs=None):
        real_step(self, batch, logs)
        say("step", self.state.global_step)

    if "--slow" in sys.argv:
        np.savez, os.fsync = savez, fsync
    callbacks.StepMonitor.on_train_batch_end = step
    train(alexnet.Recipe(**json.loads(Path(sys.argv[1]).read_text())), verbose=0)


if __name__ == "__main__":
    main()
