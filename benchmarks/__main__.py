"""Our network beside hand-written ones in each framework: `python -m benchmarks`, or `make bench` with `--scaling`."""

import sys
from pathlib import Path

from alexnet.cli.common import BAD_USAGE, FAILED, INTERRUPTED, fail, output_path
from alexnet.cli.parser import Parser
from alexnet.packages import missing
from alexnet.recipe import BACKENDS, Recipe, RecipeError

ROUNDS, QUICK_ROUNDS = 10, 2
RESULTS = Path(__file__).resolve().parent / "results"


def build_parser():
    parser = Parser(
        prog="python -m benchmarks",
        description="Measure training and inference of our network and of the baselines in benchmarks/baselines in "
        "turn, round by round, and print the median and the spread of the ratios. At full size this takes half an "
        "hour, and three quarters with --scaling.",
        epilog="example: python -m benchmarks --backends jax torch --rounds 5",
        allow_abbrev=False,
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"turns of each candidate (default {ROUNDS})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, and nothing written without --output"
    )
    parser.add_argument("--backends", nargs="+", metavar="BACKEND", help="tensorflow, jax, torch; default: all three")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="images in a step (default 32)")
    parser.add_argument("--image_size", type=int, default=227, metavar="N", help="pixels a side (default 227)")
    parser.add_argument("--width", type=float, default=1.0, metavar="VALUE", help="factor of filters (default 1)")
    parser.add_argument(
        "--scaling", action="store_true", help="also measure how the cost grows with batch_size, image_size and width"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", help="write bench.json and pictures there (default benchmarks/results)"
    )
    return parser


def main(arguments=None):
    """Measure, print and write.

    Returns:
        The exit status: 0, 1 for a failed measurement, 2 for bad usage, 130 after Ctrl-C.
    """
    parser = build_parser()
    try:
        return bench(parser, parser.parse_args(arguments))
    except RecipeError as error:
        return fail(error, BAD_USAGE)
    except ModuleNotFoundError as error:
        return fail(missing(error), FAILED)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)


def bench(parser, options):
    for backend in options.backends or ():
        Recipe(backend=backend)
    sizes = {name: getattr(options, name) for name in ("batch_size", "image_size", "width")}
    Recipe(**sizes, resize=max(1, options.image_size))
    rounds = options.rounds if options.rounds is not None else QUICK_ROUNDS if options.quick else ROUNDS
    if rounds < 1:
        parser.error(f"--rounds takes a whole number of 1 or more. Received: {rounds}")
    backends = tuple(dict.fromkeys(options.backends or BACKENDS))
    folder = output_path(options.output) if options.output else None if options.quick else RESULTS

    from benchmarks.harness import suite
    from benchmarks.harness.candidates import BenchmarkError, require_backends
    from benchmarks.harness.report import Report, print_targets, write

    try:
        require_backends(backends)
    except BenchmarkError as error:
        return fail(error, BAD_USAGE)
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        record = suite.run(backends, rounds, **sizes, scaling=options.scaling, report=Report())
        print_targets(record["targets"])
        if folder is not None:
            write(record, folder)
    except (BenchmarkError, OSError) as error:
        return fail(error, FAILED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
