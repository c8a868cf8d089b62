"""Write the tables of docs/scaling.md and draw docs/scaling.png, from `alexnet.scaling` and the measurements.

python docs/write_scaling.py
python docs/write_scaling.py --check    writes nothing; the exit status is 1 if a table would change
"""

import json
import sys
from pathlib import Path

from alexnet.networks import NETWORKS
from alexnet.scaling import (
    HARDWARE,
    STRATEGIES,
    TENSORFLOW2017,
    TENSORFLOW2017_RATES,
    Step,
    learning_rate,
    pays_up_to,
    predict,
    training_step,
    transfers,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.png"
RECORD = ROOT / "benchmarks" / "results" / "devices.json"
END = "<!-- end -->"
NETWORK = NETWORKS["krizhevsky2012"]
NAMES = dict(zip(STRATEGIES, ("`data`", "`two_columns`", "one weird trick"), strict=True))
# By the name of its table: the title of its picture, the hardware, and the batch of all GPUs together.
CASES = {
    "gtx580": ("GTX 580, 128 images each", "gtx580", None),
    "h100": ("H100, 128 images each", "h100", None),
    "h100-1024": ("H100, 1,024 images in all", "h100", 1024),
}
# Images/s that two cores prepare (docs/measurements.md, "Reading images"), and the cores of a DGX H100.
READ, CORES = {"JPEGs": 1050, "a packed set of JPEGs": 2314, "a packed set of pixels": 9783}, 112


def table(head, rows):
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rounded(value):
    """In three digits."""
    return f"{float(f'{value:.3g}'):,.0f}"


def steps_of(case) -> dict[str, list[Step]]:
    """The predicted steps of a case by strategy."""
    _, hardware, batch_size = CASES[case]
    steps = predict(NETWORK, HARDWARE[hardware], batch_size)
    return {strategy: [step for step in steps if step.strategy == strategy] for strategy in STRATEGIES}


def predictions(case):
    steps = steps_of(case)
    rows = [
        [str(same[0].devices), *(f"{rounded(step.images_per_second)} ({step.efficiency:.0%})" for step in same)]
        for same in zip(*steps.values(), strict=True)
    ]
    rows.append(["pays up to", *(str(pays_up_to(own)) for own in steps.values())])
    return table(["GPUs", *NAMES.values()], rows)


def exchanged():
    """Megabytes that a GPU sends in a step of 128 images on each of two."""
    rows = []
    for strategy in STRATEGIES:
        found = transfers(NETWORK, strategy, 2, 256)
        kinds = {"weights": 0.0, "activations": 0.0}
        for each in found:
            kinds["weights" if each.what == "gradients of weights" else "activations"] += each.passes * each.bytes / 2
        rows.append([NAMES[strategy], *(f"{size / 1e6:,.0f} MB" for size in kinds.values())])
    return table(["two GPUs, 128 images each", "gradients of weights", "activations and their gradients"], rows)


def hardware():
    rows = [
        [
            machine.title,
            f"{machine.flops / 1e12:.2g} TFLOP/s",
            f"{machine.link_bandwidth / 1e9:.3g} GB/s",
            f"{machine.network_bandwidth / 1e9:.3g} GB/s",
        ]
        for machine in HARDWARE.values()
    ]
    return table(["", "a GPU in training", "a GPU's link in its machine", "a machine's network"], rows)


def checks():
    """What others have published, beside what the model says."""
    paper, p100 = HARDWARE["gtx580"], HARDWARE["p100"]
    two = training_step(NETWORK, "two_columns", 2, 128, paper)
    one = training_step(NETWORKS["net145_half"], "data", 1, 128, paper)
    rows = [
        ["time of the paper's two-GPU network, as a share of its one-GPU network's"]
        + ['"slightly less"', f"{two.seconds / one.seconds:.2f}"]
    ]
    for count in (2, 4):
        step = training_step(TENSORFLOW2017, "data", count, 512 * count, p100)
        rows.append(
            [f"TensorFlow of 2017 on {count} P100s, images/s"]
            + [f"{TENSORFLOW2017_RATES[count]:,}", f"{step.images_per_second:,.0f}"]
        )
    small, large = (training_step(TENSORFLOW2017, "data", 8, count, p100).images_per_second for count in (512, 4096))
    rows.append(["eight P100s: batches of 4,096 against 512, images/s", "3 times", f"{large / small:.1f} times"])
    return table(["", "published", "the model"], rows)


def measured():
    rows = []
    for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]:
        if row["devices"] > 1:
            ratio = "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["against_one_device"])
            rows.append(
                [row["arrangement"], ratio, f"{row['predicted_against_one_device']:.2f}"]
                + [f"{row['predicted_over_measured']:.2f}"]
            )
    return table(["time of a step, one device = 1", "measured", "predicted", "predicted / measured"], rows)


def images():
    rate = training_step(NETWORK, "data", 1, 128, HARDWARE["h100"]).images_per_second
    rows = [[kind, f"{CORES / 2 * each:,.0f}", f"{CORES / 2 * each / rate:.1f}"] for kind, each in READ.items()]
    return table([f"{CORES} cores read", "images/s", "H100s that this keeps busy"], rows)


def rates():
    rows = [[f"{size:,}", f"{learning_rate(size):.3g}", f"{learning_rate(size, 'sqrt'):.3g}"] for size in (128, 256)]
    rows += [[f"{size:,}", f"{learning_rate(size):.3g}", f"{learning_rate(size, 'sqrt'):.3g}"] for size in (512, 1024)]
    return table(["batch", "linear rule", "square root"], rows)


def blocks():
    """The tables by their names in the page."""
    found = {"exchanged": exchanged(), "hardware": hardware(), "checks": checks(), "measured": measured()}
    found |= {"images": images(), "rates": rates()}
    return found | {case: predictions(case) for case in CASES}


def page(text):
    """The page with its tables, which are between comments, rewritten."""
    for name, block in blocks().items():
        begin = f"<!-- {name}: written by docs/write_scaling.py -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"docs/scaling.md has no place for {name}.")
        text = f"{before}{begin}\n\n{block}\n{END}{rest.partition(END)[2]}"
    return text


def draw():
    from alexnet import plotting
    from alexnet.plotting.style import png

    panels = {title: predict(NETWORK, HARDWARE[name], size) for title, name, size in CASES.values()}
    PICTURE.write_bytes(png(plotting.device_scaling(panels)))


def main(check):
    text = PAGE.read_text(encoding="utf-8")
    written = page(text)
    if check:
        return int(written != text)
    PAGE.write_text(written, encoding="utf-8", newline="\n")
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
