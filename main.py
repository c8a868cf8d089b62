"""Train AlexNet on a folder of images: `python main.py --data_dir DIR`.

The same as `python -m alexnet train --params params/brief.yaml --data_dir DIR`; with `--params`, those of that file.
"""

import sys

from alexnet.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    chosen = any(argument == "--params" or argument.startswith("--params=") for argument in arguments)
    sys.exit(main(["train", *([] if chosen else ["--params", "params/brief.yaml"]), *arguments]))
