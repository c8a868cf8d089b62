"""Trains on several devices, for the tests: in one process, or as one of a group of processes.

    python tests/train_distributed.py JOBS.json OUT.json [--devices N] [--processes N] [--kill RANK STEP]

JOBS.json is a list of recipes. One that is named `collectives` is not trained: what its devices exchange is listed. A
processor is divided into N devices. Of a group of processes each writes its own file, OUT.json.0, OUT.json.1 and so on;
one of them may kill itself after a step.
"""

import argparse
import json
import os
import re
import signal
import sys
from pathlib import Path

BACKEND = os.environ["KERAS_BACKEND"]


def divide_processor(devices):
    """Make several devices of the processor, before the backend starts."""
    if BACKEND == "jax":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        (processor,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)


def rank():
    """The number of this process, as text; nothing where there is one only."""
    return os.environ.get({"torch": "RANK", "jax": "KERAS_DISTRIBUTION_PROCESS_ID"}.get(BACKEND, ""), "")


def train(recipe, kill=None):
    """What a run makes: the loss after each step, the history without its times, the sum of each weight."""
    import keras
    import numpy as np

    import alexnet

    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(keras.ops.convert_to_numpy(logs["loss"])))
            if kill == [rank(), str(len(losses))]:
                os.kill(os.getpid(), signal.SIGKILL)

    run = alexnet.train(recipe, [Losses()], verbose=0)
    return {
        "losses": losses,
        "history": [{name: row[name] for name in row if "seconds" not in name} for row in run.history],
        "weights": {v.path: float(np.abs(keras.ops.convert_to_numpy(v)).sum()) for v in run.model.weights},
        "distribution": run.metrics["distribution"],
    }


def collectives(recipe, classes=3):
    """What the devices of JAX exchange in the gradient of a step: pairs of the operation and where it comes from, of
    arrays with more than one number."""
    import jax
    import keras
    import numpy as np

    from alexnet.training import build_model, compile_model
    from alexnet.training.distribution import find_distribution

    distribution = find_distribution(recipe)
    with distribution.scope():
        model = compile_model(build_model(recipe, classes), recipe)
        distribution.start(model)

        def loss(trained, others, images, labels):
            logits, _ = model.stateless_call(trained, others, images, training=True)
            return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))

        trained, others = (
            [v.value for v in some] for some in (model.trainable_variables, model.non_trainable_variables)
        )
        layout = distribution.keras.get_data_layout
        shape = (recipe.batch_size, recipe.image_size, recipe.image_size, 3)
        images = jax.device_put(np.zeros(shape, np.uint8), layout(shape).backend_layout)
        labels = jax.device_put(np.zeros(shape[0], np.int32), layout(shape[:1]).backend_layout)
        gradient = jax.jit(jax.grad(loss), out_shardings=[value.sharding for value in trained])
        text = gradient.lower(trained, others, images, labels).compile().as_text()
    found = re.findall(r'= (\(?\S.*?) (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(.*?op_name="([^"]*)"', text)
    sizes = [
        [np.prod([int(n) for n in dims.split(",") if n]) for dims in re.findall(r"\[([\d,]*)\]", shapes)]
        for shapes, _, _ in found
    ]
    return [(name, origin) for (_, name, origin), size in zip(found, sizes, strict=True) if max(size) > 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=Path)
    parser.add_argument("out")
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--kill", nargs=2)
    options = parser.parse_args()
    if options.processes:
        from alexnet.launching import launch_on_loopback

        command = [sys.executable, __file__, str(options.jobs), options.out]
        command += ["--kill", *options.kill] if options.kill else []
        return launch_on_loopback(command, BACKEND, options.processes, timeout=200, grace=10)
    if options.devices:
        divide_processor(options.devices)
    import alexnet

    alexnet.import_keras()
    alexnet.tune_process()
    recipes = [alexnet.Recipe(**values) for values in json.loads(options.jobs.read_text())]
    found = [collectives(each) if each.name == "collectives" else train(each, options.kill) for each in recipes]
    Path(".".join(filter(None, [options.out, rank()]))).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
