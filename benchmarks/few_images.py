"""What the features of a different task are worth if images are few: fine-tuned, with layers frozen, and from scratch.

    python benchmarks/few_images.py --images_per_class 20
    python benchmarks/few_images.py --images_per_class 200 --seeds 0

A network learns the eight signs. Then networks learn the ten shapes, from its weights or from scratch, on a few images
of each class and on all. Each seed draws different images, a different new fc8 and a different order. The 500
validation images are the same for all. Finished runs are not repeated. `benchmarks/results/few_images.json` keeps the
rows of other counts.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import alexnet

RESULTS = Path(__file__).parent / "results" / "few_images.json"
ALL = 200  # images of each class in shapes
FEW = {"batch_size": 20, "epochs": 20, "patience": 20}  # a pass over 200 images is only ten steps
VARIANTS = {"from scratch": {}, "fine-tuned": {"freeze": 0}, "fine-tuned, conv1 to conv5 frozen": {"freeze": 5}}


def recipe_of(variant, count, seed, teacher, run_dir):
    """The recipe for one network of the study: small batches for a few images, the default for all of them."""
    name = f"{variant.replace(', ', '-').replace(' ', '-')}-{count}-{seed}"
    recipe = alexnet.Recipe(run_dir=run_dir, name=name, seed=seed, images_per_class=count)
    if count < ALL:
        recipe = recipe.replace(**FEW)
    if variant == "from scratch":
        return recipe
    return recipe.replace(weights=str(teacher), learning_rate=recipe.learning_rate / 2, **VARIANTS[variant])


def study(counts, seeds, run_dir):
    """A row for each count and variant, with the top-1 accuracy of each seed after the last epoch."""
    signs = alexnet.Recipe(run_dir=run_dir, name="signs", data_dir="signs", epochs=23)
    teacher = alexnet.load_or_train(signs, verbose=0)
    told = json.loads((teacher / "metrics.json").read_text(encoding="utf-8"))
    learned = {"teacher": {"backend": told["backend"], "val_top1": told["results"]["val_top1"]}}
    rows = []
    for count in counts:
        for variant in VARIANTS:
            recipes = [recipe_of(variant, count, seed, teacher, run_dir) for seed in seeds]
            found = [alexnet.read_history(alexnet.load_or_train(each, verbose=0))[-1]["val_top1"] for each in recipes]
            rows.append({"images_per_class": count, "training": variant, "seeds": list(seeds), "top1": found} | learned)
            print(describe(rows[-1]), flush=True)
    return rows


def describe(row):
    mean, spread = statistics.mean(row["top1"]), statistics.stdev(row["top1"]) if len(row["top1"]) > 1 else 0.0
    each = ", ".join(f"{top1:.1%}" for top1 in row["top1"])
    return f"{row['images_per_class']:4} a class, {row['training']:34} {mean:.1%} ± {spread:.1%}  ({each})"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="default 0 to 4")
    parser.add_argument("--images_per_class", type=int, nargs="+", default=[20, ALL], help="default 20 and all, 200")
    parser.add_argument("--run_dir", default="runs/few_images", help="where the runs are kept")
    parser.add_argument("--output", default=str(RESULTS), help="the file that is written")
    options = parser.parse_args(arguments)
    keras = alexnet.import_keras()
    from alexnet.training import hardware, versions

    output = Path(options.output)
    kept = json.loads(output.read_text(encoding="utf-8"))["rows"] if output.is_file() else []
    kept = [row for row in kept if row["images_per_class"] not in options.images_per_class]
    command = " ".join(["python", "benchmarks/few_images.py", *(arguments or sys.argv[1:])])
    made = [{**row, "command": command} for row in study(options.images_per_class, options.seeds, options.run_dir)]
    rows = sorted([*kept, *made], key=lambda row: row["images_per_class"])
    record = {"backend": keras.backend.backend(), "hardware": hardware(), "versions": versions(), "rows": rows}
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
