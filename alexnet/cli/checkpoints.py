"""`convert`, `fetch` and `parity`."""

import json
import subprocess

from alexnet.atomic import write_text
from alexnet.cli.common import BAD_USAGE, FAILED, expects_errors, fail, output_path
from alexnet.recipe import BACKENDS, Recipe


def convert(options):
    target = output_path(options.target)
    if options.backend is None and target.suffix in ("", ".tflite"):
        options.backend = "tensorflow"  # which alone writes LiteRT, and SavedModel best
    return _convert_here(options)


@expects_errors
def _convert_here(options):
    from alexnet.evaluation import checkpoint_info
    from alexnet.saving import detect_network, load_checkpoint, save_checkpoint

    model = load_checkpoint(options.source, options.network)
    try:
        save_checkpoint(model, options.target)
    except ValueError as error:
        return fail(error, BAD_USAGE)
    print(f"{options.target}: {detect_network(model) or 'a custom network'}, {model.count_params():,} parameters")
    names, _ = checkpoint_info(options.source, model)
    if names is not None and len(names) != 1000:
        print(
            f"The names of its {len(names)} classes are not in the file; evaluate takes them from the images' folders."
        )
    return 0


def fetch(options):
    from alexnet.units import format_size
    from alexnet.weights.fetching import FetchError, fetch_weights
    from alexnet.weights.published import PUBLISHED_WEIGHTS

    if options.name is None:
        print("Weights that others publish, trained on ImageNet:")
        for name, weights in PUBLISHED_WEIGHTS.items():
            lines = [f"{weights.file}, {format_size(weights.size)}, network {weights.network}", weights.url]
            lines += [f"{algorithm} {digest}" for algorithm, digest in weights.digests.items()]
            print(name, *lines, f"({weights.digests_from})", sep="\n    ")
        return 0
    try:
        path, fetched = fetch_weights(options.name, output_path(options.to), options.force)
    except FetchError as error:
        return fail(error, FAILED if options.name in PUBLISHED_WEIGHTS else BAD_USAGE)
    except OSError as error:
        return fail(f"{options.to} cannot be written ({error.strerror or error}).", FAILED)
    print(f"{path}: {'fetched' if fetched else 'there already'}, and its digests are the published ones")
    return 0


def parity(options):
    for name, values in (("network", options.networks), ("backend", options.backends)):
        for value in values or ():
            Recipe(**{name: value})
    sizes = {"image_size": options.image_size, "resize": options.image_size} if options.image_size else {}
    Recipe(width=options.width, **sizes)
    backends = options.backends or list(BACKENDS)
    if len(set(backends)) < 2:
        options.parser.error("--backends takes two or three different backends")
    if options.output:
        output_path(options.output).parent.mkdir(parents=True, exist_ok=True)
    from alexnet.runtime import BackendError, import_keras

    try:
        import_keras(backends[0])
    except BackendError as error:
        return fail(error, BAD_USAGE)
    from alexnet import parity

    chosen = {name: tuple(getattr(options, name)) for name in ("networks", "backends") if getattr(options, name)}
    try:
        rows = parity.compare(**chosen, width=options.width, image_size=options.image_size)
    except subprocess.CalledProcessError as error:
        return fail(f"{error.cmd[-1].stem} failed; its own message is above", FAILED)
    print("largest relative difference between two backends (of gradients, of the middle one of three images)")
    print(f"{'network':16}{'logits':>10}{'gradients':>12}{'training':>12}")
    for row in rows:
        print(f"{row['network']:16}{row['logits']:10.1e}{row['gradients']:12.1e}{row['training']:12.1e}")
    if options.output:
        from alexnet.training import hardware, versions

        record = {"rows": rows, "width": options.width, "image_size": options.image_size}
        record |= {"versions": versions(), "hardware": hardware()}
        write_text(output_path(options.output), json.dumps(record, indent=2) + "\n")
    return 0
