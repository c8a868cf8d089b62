"""Weights that others publish: their addresses and digests. `fetching.py` fetches them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights that others publish.

    Attributes:
        network: The network that it holds.
        url: Its https address.
        size: Its size in bytes.
        digests: Hexadecimal digests, by algorithm of `hashlib`. A file is the right one if all of them agree.
        digests_from: Where the digests are published.
    """

    network: str
    url: str
    size: int
    digests: Mapping[str, str]
    digests_from: str

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


PUBLISHED_WEIGHTS = {
    "torchvision": PublishedWeights(
        "torchvision",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        244_408_911,
        {"sha256": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"},
        "the file's name has the first 8 digits, which torch.hub checks; the others are those of the file they name",
    ),
    "caffe": PublishedWeights(
        "caffe",
        "https://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
        243_862_414,
        {
            "sha256": "4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0",
            "sha1": "9116a64c0fbe4459d18f4bb6b56d647b63920377",
        },
        "SHA-256: alexnet/model.yml in OpenVINO's Open Model Zoo; SHA-1: models/bvlc_alexnet/readme.md in BVLC/caffe",
    ),
    "caffe-onnx": PublishedWeights(
        "caffe",
        "https://github.com/onnx/models/raw/main/validated/vision/classification/alexnet/model/bvlcalexnet-12.onnx",
        243_863_787,
        {"sha256": "6b0da9510f27f234ee96a85dc3809dd210150fdefad87f6850f9788513216945"},
        "bvlcalexnet-12.onnx in onnx/models, as its Git LFS pointer",
    ),
    "caffenet": PublishedWeights(
        "caffenet",
        "https://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
        243_862_418,
        {
            "sha256": "472d4a06035497b180636d8a82667129960371375bd10fcb6df5c6c7631f25e0",
            "sha1": "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        },
        "SHA-256: caffenet/model.yml in OpenVINO's Open Model Zoo; SHA-1: models/bvlc_reference_caffenet/readme.md in "
        "BVLC/caffe",
    ),
}
