"""What several devices cost here, compared with the prediction of `alexnet.scaling`.

    python benchmarks/devices.py

A network of a quarter of the width trains on images of 227 pixels in batches of 32: on one device, on virtual devices
of the processor, and in two processes. Every arrangement has processes of its own, which take turns: in each round each
of them trains an epoch of eight steps while the others wait. The median step is compared with that of one device of the
same backend in the same round. All of them share the cores of this machine, so nothing gets faster: what is predicted
and measured is the overhead.

The model is told what one device does (steps of 32 and of 8 images give the FLOP/s and the cost of an update), and how
fast each engine sums an array over its devices. Results go to `benchmarks/results/devices.json`. It takes some five
minutes on two cores and 12 GB of memory; let nothing else run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "devices.json"
# Backend, value of `distribute`, virtual devices of the processor, processes.
ARRANGEMENTS = {
    "jax": ("jax", "none", 1, 1),
    "jax, 2 devices": ("jax", "data", 2, 1),
    "jax, 4 devices": ("jax", "data", 4, 1),
    "jax, 2 columns": ("jax", "two_columns", 2, 1),
    "jax, 2 processes": ("jax", "data", 1, 2),
    "tensorflow": ("tensorflow", "none", 1, 1),
    "tensorflow, 2 devices": ("tensorflow", "data", 2, 1),
    "torch": ("torch", "none", 1, 1),
    "torch, 2 processes": ("torch", "data", 1, 2),
}
BATCH, SMALL_BATCH, CLASSES, IMAGES = 32, 8, 10, 26  # IMAGES of each class: eight steps an epoch
SETTINGS = {"network": "krizhevsky2012", "width": 0.25, "image_size": 227}
SUMMED = (16, 2**22)  # numbers in the arrays that are summed over the devices: for the latency, and for the bandwidth
SUMS = 20  # how often
LIMIT = 600  # seconds after which everything ends


class Turns:
    """How the program and one arrangement tell each other, by empty files, whose turn it is."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def give(self, turn):
        (self.folder / f"go {turn}").touch()

    def take(self, turn):
        """Wait for a turn; in the arrangement's processes."""
        (self.folder / f"waits for {turn}").touch()
        self._wait(f"go {turn}", time.monotonic() + LIMIT)

    def wait_until_idle(self, turn, process):
        """Wait until the arrangement waits for `turn`; in the program."""
        self._wait(f"waits for {turn}", time.monotonic() + LIMIT, process)

    def _wait(self, name, deadline, process=None):
        while not (self.folder / name).exists():
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                sys.exit(f"{self.folder.name}: no sign of '{name}'")
            time.sleep(0.005)


def train(images, turns, distribute, batch_size, epochs, at_end):
    """Seconds of the steps in each epoch after the first one, which compiles, and what `at_end` returns."""
    import alexnet

    keras = alexnet.import_keras()

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs, self.found = [], None

        def on_epoch_begin(self, epoch, logs=None):
            if turns is not None and self.epochs:
                turns.take(len(self.epochs))
            self.epochs.append([])
            self.last = None

        def on_train_batch_end(self, batch, logs=None):
            float(keras.ops.convert_to_numpy(logs["loss"]))  # the step has ended
            now = time.perf_counter()
            if self.last is not None:
                self.epochs[-1].append(now - self.last)
            self.last = now

        def on_train_end(self, logs=None):
            if turns is not None:
                turns.take("end")
            self.found = at_end()  # while the devices are together

    clock = Clock()
    recipe = alexnet.Recipe(**SETTINGS, data_dir=str(images), run_dir=str(Path(images).parent / "runs"), resize=232)
    name = f"{distribute}-{os.environ['ARRANGEMENT'].replace(', ', '-').replace(' ', '-')}-{batch_size}"
    recipe = recipe.replace(name=name, distribute=distribute, batch_size=batch_size, epochs=1 + epochs)
    alexnet.train(recipe.replace(validation_split=0.01, workers=1), [clock], verbose=0)
    return clock.epochs[1:], clock.found


def sum_seconds(backend, count):
    """Median seconds to sum arrays of `count` numbers, one on each device, so that each device has the sum."""
    if backend == "jax":
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        mesh = Mesh(np.array(jax.devices()), ("device",))
        local = np.ones((jax.local_device_count(), count), np.float32)
        rows = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("device")), local)
        summed = jax.jit(lambda rows: rows.sum(0), out_shardings=NamedSharding(mesh, PartitionSpec()))

        def once():
            summed(rows).block_until_ready()
    elif backend == "torch":
        import torch
        import torch.distributed as dist

        array = torch.zeros(count)

        def once():
            dist.all_reduce(array)
    else:
        import tensorflow as tf

        strategy, array = tf.distribute.get_strategy(), tf.ones(count)

        @tf.function
        def summed():
            return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(array)))

        def once():
            for part in strategy.experimental_local_results(summed()):
                part.numpy()

    times = []
    for _ in range(SUMS + 3):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def work(arrangement, images, folder, rounds):
    """All rounds of an arrangement, in this process and those beside it; the first one writes what it finds."""
    import alexnet

    backend, distribute, devices, _ = ARRANGEMENTS[arrangement]
    os.environ["ARRANGEMENT"] = arrangement
    alexnet.import_keras()
    if devices > 1:
        alexnet.divide_processor(devices)

    def sums():
        return None if distribute == "none" else [sum_seconds(backend, count) for count in SUMMED]

    epochs, found = train(images, Turns(folder), distribute, BATCH, int(rounds), sums)
    found = {"rounds": [statistics.median(seconds) for seconds in epochs], "sum_seconds": found}
    if distribute == "none":
        (seconds,), _ = train(images, None, distribute, SMALL_BATCH, 1, sums)
        found["small_batch_seconds"] = statistics.median(seconds)
    if os.environ.get("RANK", os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0")) == "0":
        from alexnet.training.system_info import hardware, versions

        found |= {"hardware": hardware(), "versions": versions()}
        (Path(folder) / "found.json").write_text(json.dumps(found), encoding="utf-8")


def launch(arrangement, *arguments):
    """The processes of an arrangement, from one process."""
    from alexnet.launching import launch_on_loopback

    backend, _, _, processes = ARRANGEMENTS[arrangement]
    command = [sys.executable, __file__, "--worker", arrangement, *arguments]
    return launch_on_loopback(command, backend, processes, timeout=LIMIT, grace=5)


def measure(rounds, scratch):
    """What each arrangement finds."""
    images, running = Path(scratch) / "images", {}
    write_images(images)
    try:
        for arrangement, (backend, _, _, processes) in ARRANGEMENTS.items():
            turns = Turns(Path(scratch) / arrangement)
            turns.folder.mkdir()
            action = "--launch" if processes > 1 else "--worker"
            command = [sys.executable, __file__, action, arrangement, str(images), str(turns.folder), str(rounds)]
            # A process that waits must not keep a core busy.
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "PASSIVE"}
            process = subprocess.Popen(command, env={**os.environ, **quiet, "KERAS_BACKEND": backend})
            running[arrangement] = turns, process
            turns.wait_until_idle(1, process)  # one starts after the other
            print(f"{arrangement}: ready", flush=True)
        order = list(running.items())
        for turn in [*range(1, rounds + 1), "end"]:
            following = "end" if turn == rounds else None if turn == "end" else turn + 1
            for _, (turns, process) in order:
                turns.give(turn)
                if following is None:
                    process.wait(LIMIT)
                else:
                    turns.wait_until_idle(following, process)
            order.reverse()
    finally:
        for _, process in running.values():
            process.terminate()
    return {
        arrangement: json.loads((turns.folder / "found.json").read_text(encoding="utf-8"))
        for arrangement, (turns, _) in running.items()
    }


def write_images(folder):
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for image in range(IMAGES):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((232, 232)).save(folder / f"class{label}" / f"{image}.jpg")


def predicted(arrangement, found):
    """The model's step of an arrangement, from what was measured of one device and of sums."""
    from alexnet.networks import NETWORKS
    from alexnet.scaling import Hardware, effective_flops, training_step, transfers

    backend, distribute, devices, processes = ARRANGEMENTS[arrangement]
    network, sizes = NETWORKS[SETTINGS["network"]], {"image_size": SETTINGS["image_size"], "width": SETTINGS["width"]}
    sizes["classes"] = CLASSES
    large, small = statistics.median(found[backend]["rounds"]), found[backend]["small_batch_seconds"]
    image = (large - small) / (BATCH - SMALL_BATCH)
    update = max(large - BATCH * image, 0.0)
    one = training_step(network, "data", 1, BATCH, Hardware("", 1.0, memory_bandwidth=1.0), **sizes)
    memory_bandwidth = one.update / update if update else float("inf")
    flops = effective_flops(network, BATCH / large, BATCH, memory_bandwidth, **sizes)
    count, link = devices * processes, {}
    if count > 1:
        latency, seconds = found[arrangement]["sum_seconds"]
        latency = latency / 2 / (count - 1)
        # The devices share it: see `Hardware.shared`.
        sent = 2 * (count - 1) / count * 4 * SUMMED[1] * count
        link = {"link_latency": latency, "link_bandwidth": sent / (seconds - 2 * (count - 1) * latency)}
    machine = Hardware(arrangement, flops, memory_bandwidth, devices_per_host=count, overlap=0.0, shared=True, **link)
    strategy = "data" if distribute == "none" else distribute
    step = training_step(network, strategy, count, BATCH, machine, **sizes)
    exchanged = sum(each.bytes for each in transfers(network, strategy, count, BATCH, **sizes))
    return {
        "seconds": step.seconds,
        "compute": step.compute,
        "update": step.update,
        "exchange": step.exchange,
        "exchanged_bytes": exchanged,
        "flops": flops,
        "memory_bandwidth": memory_bandwidth if update else None,
        **link,
    }


def compare(found):
    """A row for each arrangement: seconds of a step measured and predicted, and both as multiples of one device's."""
    rows = []
    for arrangement, (backend, distribute, devices, processes) in ARRANGEMENTS.items():
        seconds, alone = found[arrangement]["rounds"], found[backend]["rounds"]
        ratios = [one / other for one, other in zip(seconds, alone, strict=True)]
        step = predicted(arrangement, found)
        row = {
            "arrangement": arrangement,
            "backend": backend,
            "distribute": distribute,
            "devices": devices * processes,
            "processes": processes,
            "seconds": seconds,
            "sum_seconds": found[arrangement]["sum_seconds"],
            "against_one_device": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            "predicted": step,
        }
        row["predicted_against_one_device"] = step["seconds"] / statistics.median(alone)
        row["predicted_over_measured"] = row["predicted_against_one_device"] / row["against_one_device"]["median"]
        rows.append(row)
    return rows


def show(rows):
    print(f"{'':24}{'seconds':>9}  {'against one device':22}{'predicted':>10}{'predicted / measured':>22}")
    for row in rows:
        ratio = "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["against_one_device"])
        print(
            f"{row['arrangement']:24}{statistics.median(row['seconds']):9.3f}  {ratio:22}"
            f"{row['predicted_against_one_device']:10.2f}{row['predicted_over_measured']:22.2f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", default=str(RESULTS), help="the file that is written")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--launch", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*options.worker)
    if options.launch:
        return launch(*options.launch)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.rounds, scratch)
    rows = compare(found)
    show(rows)
    record = {
        "command": f"python benchmarks/devices.py --rounds {options.rounds}",
        "settings": {**SETTINGS, "batch_size": BATCH, "classes": CLASSES, "rounds": options.rounds, "summed": SUMMED},
        "hardware": found["torch"]["hardware"],
        "versions": found["torch"]["versions"],
        "rows": rows,
    }
    Path(options.output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
