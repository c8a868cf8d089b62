"""Shows what Kaggle's own client would send for a folder, without sending it: its server is replaced.

    python -m venv /tmp/kaggle && /tmp/kaggle/bin/pip install kaggle six    # kaggle 2.2.5 forgets that it needs six
    python -m alexnet kaggle 02_train OUT --user NAME
    /tmp/kaggle/bin/python tests/kaggle_client.py OUT

prints the request as JSON, without the notebook's text, and everything that the client has to say about the folder.
"""

import contextlib
import io
import json
import os
import sys
from types import SimpleNamespace


class Server:
    """Replaces Kaggle's server, and keeps what it is asked to save."""

    def __init__(self):
        self.requests = []
        self.kernels = SimpleNamespace(kernels_api_client=self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def save_kernel(self, request):
        self.requests.append(request)
        lists = dict.fromkeys(["invalidTags", "invalidDatasetSources", "invalidCompetitionSources"], [])
        return SimpleNamespace(error="", versionNumber=1, url="https://", invalidKernelSources=[], **lists)


def push(folder):
    """The request of `kaggle kernels push -p folder` as a dictionary, and what it prints."""
    # The package signs in when it is imported; with these variables it asks no server.
    os.environ.update(KAGGLE_USERNAME="nobody", KAGGLE_KEY="0" * 32)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        from kaggle.api.kaggle_api_extended import KaggleApi

        client, server = KaggleApi(), Server()
        client.build_kaggle_client = lambda: server
        client.kernels_push_cli(folder, None, None)
    (request,) = server.requests
    return {name.lstrip("_"): value for name, value in vars(request).items()}, printed.getvalue()


if __name__ == "__main__":
    request, printed = push(sys.argv[1])
    cells = json.loads(request.pop("text"))["cells"]
    print(json.dumps({"request": request, "cells": len(cells), "printed": printed}, indent=2, default=str))
