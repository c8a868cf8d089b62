"""Fetches published weights when a person asks for them. Only the command `fetch` imports this file."""

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import alexnet
from alexnet.atomic import atomic_write
from alexnet.progress import progress
from alexnet.recipe import nearest
from alexnet.weights.published import PUBLISHED_WEIGHTS


class FetchError(ValueError):
    """Weights could not be fetched. The message says why. Existing files are unchanged."""


_CHUNK = 1_000_000  # bytes, so that the bar counts megabytes
_SECONDS = 60  # without a byte, before the download is given up
_HANDLERS: tuple[type[urllib.request.BaseHandler], ...] = (urllib.request.HTTPSHandler,)  # no http, ftp or file


def fetch_weights(name: str, folder: Path, force: bool = False) -> tuple[Path, bool]:
    """Fetch published weights into a folder, and check that they are the right ones.

    Args:
        name: A key of `PUBLISHED_WEIGHTS`.
        folder: Where to put the file; created if necessary.
        force: Whether to replace a different file of that name.

    Returns:
        `(path, fetched)`; `fetched` is False if the right file was already there.

    Raises:
        FetchError: the name is unknown, a different file has that name, there is no connection, or the download is not
            the right file. Nothing of it remains.
        OSError: the folder cannot be written.
    """
    if name not in PUBLISHED_WEIGHTS:
        known = ", ".join(PUBLISHED_WEIGHTS)
        raise FetchError(f"no published weights are called {name!r}; known: {known}.{nearest(name, PUBLISHED_WEIGHTS)}")
    weights = PUBLISHED_WEIGHTS[name]
    path = folder / weights.file
    if path.is_dir():
        raise FetchError(f"{path} is a folder.")
    if path.exists():
        if _is_right(path, weights):
            return path, False
        if not force:
            raise FetchError(f"{path} exists and is a different file. Use --force to replace it.")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        _download(weights, unfinished)
    return path, True


def _is_right(path, weights):
    if path.stat().st_size != weights.size:
        return False
    hashes = _hashes(weights)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for each in hashes.values():
                each.update(chunk)
    return _wrong_digest(weights, hashes) is None


def _hashes(weights):
    return {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in weights.digests}


def _wrong_digest(weights, hashes):
    """The name of a digest that differs from the published one; None if all agree."""
    wrong = (name for name, each in hashes.items() if each.hexdigest() != weights.digests[name])
    return next(wrong, None)


def _download(weights, path):
    """Write the file, or raise a `FetchError`."""
    hashes, received = _hashes(weights), 0
    with _open(weights) as response, path.open("wb") as file:
        offered = response.headers.get("Content-Length")
        if offered is not None and offered != str(weights.size):
            raise FetchError(
                f"{_host(weights.url)} offers {offered} bytes where {weights.file} has {weights.size:,}. Nothing was "
                f"kept. {_elsewhere(weights)}"
            )
        chunks = _chunks(response, weights)
        for chunk in progress(chunks, -(-weights.size // _CHUNK), f"{weights.file}, MB"):
            received += len(chunk)
            if received > weights.size:
                break
            file.write(chunk)
            for each in hashes.values():
                each.update(chunk)
    if received != weights.size:
        ended = "is longer than" if received > weights.size else f"ended after {received:,} of"
        raise FetchError(f"the download of {weights.file} {ended} {weights.size:,} bytes. Nothing was kept.")
    if wrong := _wrong_digest(weights, hashes):
        raise FetchError(
            f"{weights.url} is not the published file: its {wrong} is {hashes[wrong].hexdigest()}, expected "
            f"{weights.digests[wrong]}. Nothing was kept. {_elsewhere(weights)}"
        )


class _OnlyToHttps(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only if it leads to https."""

    def redirect_request(self, request, response, code, message, headers, address):
        if urlsplit(address).scheme != "https":
            raise FetchError(f"{request.full_url} redirects to {address}, which is not encrypted (https): refused.")
        return super().redirect_request(request, response, code, message, headers, address)


def _open(weights):
    """The server's response. urllib is enough: one request of a rare command is not worth a dependency."""
    opener = urllib.request.OpenerDirector()
    common = (urllib.request.ProxyHandler, urllib.request.UnknownHandler)
    errors = (urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor)
    for handler in (*common, *errors, _OnlyToHttps, *_HANDLERS):
        opener.add_handler(handler())
    request = urllib.request.Request(weights.url, headers={"User-Agent": f"alexnet/{alexnet.__version__}"})
    try:
        return opener.open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        raise FetchError(
            f"{weights.url}: the server answers {error.code} {error.reason}. {_elsewhere(weights)}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(_unreachable(weights, error)) from None


def _chunks(response, weights):
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:  # an error of the connection: files are written elsewhere
        raise FetchError(f"the download of {weights.file} was interrupted ({error}). Nothing was kept.") from None


def _unreachable(weights, error):
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"{_host(weights.url)}: its certificate is not accepted ({reason.verify_message}). {_elsewhere(weights)}"
    detail = getattr(reason, "strerror", None) or reason
    return f"{_host(weights.url)} cannot be reached ({detail}). Is this machine online? {_elsewhere(weights)}"


def _host(url):
    return urlsplit(url).hostname


def _elsewhere(weights):
    return f"If you get {weights.file} elsewhere, put it into the same folder, and this command will check it."
