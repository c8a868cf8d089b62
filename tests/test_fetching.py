"""`fetch`: published weights from a server on this machine, right and wrong."""

import hashlib
import http.server
import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.model import AlexNet
from alexnet.networks import PUBLISHED
from alexnet.weights import CheckpointError, fetching
from alexnet.weights.published import PUBLISHED_WEIGHTS, PublishedWeights

pytestmark = pytest.mark.once

CONTENT = bytes(range(256)) * 5000  # more than one chunk
TAMPERED = CONTENT[:-1] + b"x"


class Server(http.server.BaseHTTPRequestHandler):
    """Answers each path as its name says, and records requests."""

    asked: list = []

    def do_GET(self):
        name = self.path.split("/")[1]
        self.asked.append(name)
        if name == "missing":
            self.send_error(404)
        elif name == "moved":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/right/net.pth")
            self.end_headers()
        else:
            body = {"tampered": TAMPERED, "longer": CONTENT + b"x", "pointer": CONTENT[:134]}.get(name, CONTENT)
            self.send_response(200)
            if name not in ("unsized", "longer", "unsized_short"):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:2000] if name in ("short", "unsized_short") else body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def fetch(server, monkeypatch, tmp_path, capsys):
    """`fetch(how)`: runs the command on a file of that server; returns exit status, output and the file's path."""
    monkeypatch.setattr(fetching, "_HANDLERS", (urllib.request.HTTPHandler, urllib.request.HTTPSHandler))
    monkeypatch.setenv("no_proxy", "*")
    Server.asked = []

    def fetch(how, *flags, port=server.server_port, digests=None):
        digests = digests or {name: hashlib.new(name, CONTENT).hexdigest() for name in ("sha256", "sha1")}
        address = f"http://127.0.0.1:{port}/{how}/net.pth"
        weights = PublishedWeights("paper", address, len(CONTENT), digests, "this test")
        monkeypatch.setitem(PUBLISHED_WEIGHTS, "net", weights)
        folder = tmp_path / "new" / "weights"
        status = main(["fetch", "net", "--to", str(folder), *flags])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and not list(folder.glob(".unfinished-*"))
        return status, (said.out + said.err).replace("\n", " "), folder / "net.pth"

    return fetch


@pytest.mark.parametrize("how", ["right", "unsized"])
def test_the_right_file_is_fetched_once(fetch, how):
    status, said, path = fetch(how)
    assert status == 0 and "fetched" in said and str(path) in said
    assert path.read_bytes() == CONTENT
    status, said, path = fetch(how)
    assert status == 0 and "there already" in said
    assert Server.asked == [how]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("tampered", "is not the published file: its sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"),
        ("pointer", "offers 134 bytes where net.pth has 1,280,000"),
        ("short", "ended after 2,000 of 1,280,000 bytes"),
        ("unsized_short", "ended after 2,000 of 1,280,000 bytes"),
        ("longer", "is longer than 1,280,000 bytes"),
        ("missing", "the server answers 404"),
        ("moved", "redirects to http://127.0.0.1.*, which is not encrypted"),
    ],
)
def test_nothing_else_is_kept(fetch, how, sentence):
    status, said, path = fetch(how)
    assert status == 1 and said.startswith("error: ") and re.search(sentence, said), said
    assert not path.exists() and Server.asked == [how]


@pytest.mark.parametrize("wrong", ["sha256", "sha1"])
def test_every_digest_must_agree(fetch, wrong):
    digests = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("sha256", "sha1")}
    status, said, path = fetch("right", digests={**digests, wrong: hashlib.new(wrong, b"").hexdigest()})
    assert status == 1 and f"its {wrong} is {digests[wrong]}" in said and not path.exists()


def test_offline(fetch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    status, said, path = fetch("right", port=port)
    assert status == 1 and "127.0.0.1 cannot be reached (Connection refused). Is this machine online?" in said
    assert not path.exists()


def test_a_different_file_is_not_overwritten(fetch):
    _, _, path = fetch("missing")
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in (b"mine", TAMPERED):
        path.write_bytes(other)
        status, said, _ = fetch("right")
        assert status == 1 and "is a different file" in said and "--force" in said
        assert path.read_bytes() == other
    status, _, _ = fetch("tampered", "--force")
    assert status == 1 and path.read_bytes() == TAMPERED
    status, said, _ = fetch("right", "--force")
    assert status == 0 and path.read_bytes() == CONTENT
    path.unlink()
    path.mkdir()
    status, said, _ = fetch("right", "--force")
    assert status == 1 and "is a folder" in said and path.is_dir()


def test_a_folder_that_cannot_be_made(fetch):
    _, _, path = fetch("missing")
    path.parent.rmdir()
    path.parent.write_text("a file")
    status, said, _ = fetch("right")
    assert status == 1 and "cannot be written" in said


def test_plain_http_is_never_spoken(server, fetch, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(fetching.FetchError, match="unknown url type: http"):
        fetching._open(PublishedWeights("paper", f"http://127.0.0.1:{server.server_port}/right/net.pth", 1, {}, ""))
    assert not Server.asked


def test_what_is_published():
    """Each has an https address, a full SHA-256 that agrees with the file's name, and a known network."""
    for weights in PUBLISHED_WEIGHTS.values():
        assert weights.url.startswith("https://") and weights.network in PUBLISHED
        assert 2e8 < weights.size < 3e8 and weights.digests_from
        assert "sha256" in weights.digests
        for name, digest in weights.digests.items():
            assert re.fullmatch("[0-9a-f]+", digest) and len(digest) == 2 * hashlib.new(name).digest_size
    torchvision = PUBLISHED_WEIGHTS["torchvision"]
    assert torchvision.file == f"alexnet-owt-{torchvision.digests['sha256'][:8]}.pth"


def test_they_are_listed(capsys):
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    assert main(["fetch"]) == 0
    said = capsys.readouterr().out
    for name, weights in PUBLISHED_WEIGHTS.items():
        assert name in said and weights.url in said and weights.digests["sha256"] in said
        assert f"| `{name}` | `{weights.file}` |" in page
    assert main(["fetch", "torchvisio"]) == 2
    assert "Did you mean torchvision?" in capsys.readouterr().err


def test_nothing_is_fetched_by_itself(monkeypatch):
    monkeypatch.setattr(fetching, "_open", lambda weights: pytest.fail("fetched"))
    with pytest.raises(CheckpointError, match="nothing is downloaded here") as error:
        AlexNet(weights="imagenet")
    for name in PUBLISHED_WEIGHTS:
        assert f"python -m alexnet fetch {name}" in str(error.value)
