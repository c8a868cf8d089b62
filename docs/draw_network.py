"""Draw docs/network.png, the picture at the head of README.md.

python docs/draw_network.py
"""

from pathlib import Path

import alexnet

if __name__ == "__main__":
    alexnet.import_keras()
    from alexnet import plotting

    figure = plotting.network(alexnet.AlexNet())
    figure.savefig(Path(__file__).with_name("network.png"), dpi=160)
