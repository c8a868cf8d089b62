"""From image files to RGB pixels: the shorter side is resized, and the central square is cut out."""

import contextlib
import functools
import logging
import math
import re
import struct
import threading
import warnings
import zlib
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from alexnet._compat import trim_memory
from alexnet.data.errors import ImageError, Refused
from alexnet.data.formats import JPEG, PNG, open_image
from alexnet.data.white_level import Depth, white_of
from alexnet.packages import install, optional

logger = logging.getLogger(__name__)

# More pixels than any photograph has: a header that claims more is damaged, or made to fill the memory.
MAX_PIXELS = 300_000_000
# An image with more than `_LARGE` pixels is large. All threads together decode at most `_ROOM` pixels of large images
# at a time, about four bytes each.
_LARGE, _ROOM = 16_000_000, 100_000_000
_ORIENTATION = 0x0112  # EXIF's tag


# --- Decoding


def load_image(
    path: str | PathLike, size: int, max_pixels: int = MAX_PIXELS, white_level: float | None = None
) -> np.ndarray:
    """The central square of an image file, `(size, size, 3)` uint8 RGB. The arguments are those of `decode_image`.

    Raises:
        ImageError: the file is missing, damaged or not an image.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from None
    return decode_image(content, size, str(path), max_pixels, white_level)


def decode_image(
    content: bytes, size: int, name: str, max_pixels: int = MAX_PIXELS, white_level: float | None = None
) -> np.ndarray:
    """The central square of an image file's content, `(size, size, 3)` uint8 RGB (section 2 of the paper).

    The shorter side becomes `size`. EXIF orientation is applied. Of an animation the first frame is read, of a TIFF
    the first page. Transparent areas are shown on white.

    Args:
        content: The file's bytes.
        size: Side of the square in pixels.
        name: The image's name, for messages.
        max_pixels: An image with more pixels is refused before it is decoded.
        white_level: The value that means white in gray images of more than 8 bits, of floats, or of only a few values:
            4095 for 12 bits stored in 16, for example. None for 65535 in images of 16 bits that use their range.

    Raises:
        ImageError: the content is damaged, too large or not an image, or its white is not known.
    """
    if not content:
        raise ImageError(name, "is empty")
    try:
        pixels = None
        if content.startswith(JPEG):
            pixels = _decode_jpeg(content, size, max_pixels)
        return _decode(content, size, max_pixels, white_level) if pixels is None else pixels
    except Refused as refused:
        raise ImageError(name, str(refused)) from None
    except Image.DecompressionBombError:  # Pillow's readers of WebP and GIF check this themselves
        raise ImageError(name, "is larger than PIL.Image.MAX_IMAGE_PIXELS allows") from None
    except MemoryError:
        raise
    except Exception as error:  # on damaged files PIL raises many kinds, struct.error and TypeError among them
        raise ImageError(name, f"cannot be decoded: {error}") from None


def image_size(content: bytes, name: str) -> tuple[int, int]:
    """`(width, height)` of an image as it is displayed, from its file's header: no pixel is decoded.

    Raises:
        ImageError: the content is not an image, or its header is damaged.
    """
    try:
        header = _jpeg_header(content) if content.startswith(JPEG) else None
        if header is not None:
            width, height, orientation = header.width, header.height, header.orientation
        else:
            orientation = _png_pixels(content)[1] if content.startswith(PNG) else None
            with open_image(content) as image:
                (width, height), orientation = image.size, orientation or _told_orientation(image)
                if image.format == "TIFF":  # some versions of PIL rotate it themselves, others do not
                    width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    except Refused as refused:
        raise ImageError(name, str(refused)) from None
    except Exception as error:  # as in decode_image
        raise ImageError(name, f"cannot be read: {error}") from None
    return (height, width) if orientation >= 5 else (width, height)


def _require(width, height, max_pixels):
    if width * height > max_pixels:
        raise Refused(
            f"claims to have {width:,} x {height:,} pixels, so it is damaged or an attack (decompression bomb); "
            f"max_megapixels allows {max_pixels / 1e6:g}"
        )


class _Gate:
    """Lets large images be decoded one after the other, so that many threads need no more memory than one."""

    def __init__(self, room):
        self.room = self.free = room
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, pixels):
        if pixels <= _LARGE:
            yield
            return
        pixels = min(pixels, self.room)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            trim_memory()  # glibc does not offer memory that one thread freed to the others
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


_gate = _Gate(_ROOM)


class _Header(NamedTuple):
    width: int
    height: int
    components: int
    progressive: bool
    orientation: int


def _jpeg_header(content):
    """The `_Header` from the segments before a JPEG's pixels; None if they are malformed, and PIL should try."""
    place, frame, orientation = 2, None, None
    try:
        while content[place] == 0xFF:
            marker = content[place + 1]
            if marker == 0xDA:
                break
            if marker == 0xFF:  # a fill byte
                place += 1
                continue
            length = (content[place + 2] << 8) + content[place + 3]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width, components = struct.unpack_from(">HHB", content, place + 5)
                frame = width, height, components, marker in (0xC2, 0xC6, 0xCA)
            elif marker == 0xE1 and orientation is None:
                orientation = _orientation(content[place + 4 : place + 2 + length])
            place += 2 + length
    except (IndexError, struct.error):
        return None
    return _Header(*frame, orientation or 1) if frame else None


def _orientation(metadata):
    """EXIF's or XMP's orientation, 1 to 8; None if it cannot be read. PIL is not asked: the rest may be damaged."""
    start = 6 if metadata.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(metadata[start : start + 2])
    if order is None:
        found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', metadata)
        return int(found[1]) if found else None
    try:
        place = start + struct.unpack_from(order + "I", metadata, start + 4)[0]
        entries = struct.unpack_from(order + "H", metadata, place)[0]
        for entry in range(entries):
            tag, kind = struct.unpack_from(order + "HH", metadata, place + 2 + 12 * entry)
            if tag == _ORIENTATION:
                code = {1: "B", 3: "H", 4: "I"}[kind]
                value = struct.unpack_from(order + code, metadata, place + 10 + 12 * entry)[0]
                return value if 1 <= value <= 8 else None
    except (struct.error, KeyError):
        pass
    return None


def _decode_jpeg(content, size, max_pixels):
    """`decode_image` for a gray or RGB JPEG, in two thirds of PIL's time; None if PIL has to decode it."""
    header = _jpeg_header(content)
    if header is None:
        return None
    _require(header.width, header.height, max_pixels)
    if header.components not in (1, 3):
        return None
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        return _decode_jpeg_with_pil(content, size, header)
    # A progressive JPEG stays in memory whole until its last pass; any other needs only a few rows at a time.
    with _gate.hold(header.width * header.height if header.progressive else 0):
        try:
            # From at least twice `size`, decoding to a half or less saves time and loses no detail that would remain.
            pixels = simplejpeg.decode_jpeg(content, min_height=size, min_width=size, min_factor=2)
        except ValueError:
            return None  # truncated or damaged; PIL refuses the truncated ones, and can read some of the damaged ones
    return resize_array(pixels, size, header.orientation)


@functools.cache
def _simplejpeg():
    """The package, or None. Without it JPEGs take half as long again, so one line says that it is missing."""
    module = optional("simplejpeg")
    if module is None:
        logger.info(f"JPEGs are decoded by Pillow, which takes longer than simplejpeg. {install('simplejpeg')}")
    return module


def _decode_jpeg_with_pil(content, size, header):
    """`_decode_jpeg` without simplejpeg: PIL decodes to the size that simplejpeg would choose."""
    quarter, three_eighths = (
        all(-(-side * eighths // 8) >= size for side in (header.width, header.height)) for eighths in (2, 3)
    )
    try:
        with open_image(content) as image:
            if quarter or not three_eighths:  # PIL decodes to a half, a quarter or an eighth
                image.draft(None, (size, size))
            with _gate.hold(image.width * image.height):
                image.load()
                rgb = image.convert("RGB")
                if three_eighths and not quarter:
                    smaller = [-(-side * 3 // 8) for side in rgb.size]
                    rgb = rgb.resize(smaller, Image.Resampling.BOX)
                return resize_array(np.asarray(rgb), size, header.orientation)
    except MemoryError:
        raise
    except Exception:
        return None  # `_decode` says what is wrong with it


def _decode(content, size, max_pixels, white_level):
    """`decode_image` by PIL."""
    try:
        return _decode_with_pil(content, size, max_pixels, white_level)
    except Warning:  # about metadata, in a program that turns warnings into errors; the image is still good
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode_with_pil(content, size, max_pixels, white_level)


_quiet = threading.Lock()


def _decode_with_pil(content, size, max_pixels, white_level):
    orientation = None
    if content.startswith(JPEG):
        header = _jpeg_header(content)
        orientation = header.orientation if header else 1
    elif content.startswith(PNG):
        content, orientation = _png_pixels(content)
    with open_image(content) as image:
        _require(*image.size, max_pixels)
        image.draft(None, (size, size))
        if orientation is None:
            orientation = _told_orientation(image)
        depth = Depth.of(image, content)
        with _gate.hold(image.width * image.height):
            image.load()
            pixels = resize_image(image, size, orientation, white_of(image, depth, white_level), depth.inverted)
            image.close()  # frees the memory before the gate lets the next large image in
            return pixels


def _png_pixels(content):
    """`(content, orientation)` of a PNG, with only the chunks that its pixels need: PIL refuses images with a damaged
    text chunk."""
    view, kept, place, orientation = memoryview(content), [content[:8]], 8, None
    while place + 8 <= len(content):
        kind = content[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(view[place : place + 4])
        if kind[0] & 32 == 0 or kind == b"tRNS":  # a "critical" chunk in PNG's terms
            kept.append(view[place:end])
        elif kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt") and orientation is None:
            orientation = _png_orientation(content[place + 8 : end - 4])
        if kind == b"IEND":
            break
        place = end
    return b"".join(kept), orientation or 1


def _png_orientation(chunk):
    keyword, _, text = chunk.partition(b"\0")
    if keyword == b"Raw profile type exif":  # ImageMagick's, in hexadecimal digits
        with contextlib.suppress(zlib.error, ValueError):
            text = zlib.decompressobj().decompress(text[1:], 2**20) if text.startswith(b"\0") else text
            return _orientation(bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii", "replace")))
        return None
    return _orientation(chunk) if chunk[:4] in (b"Exif", b"II*\0", b"MM\0*") or keyword.startswith(b"XML:") else None


def _told_orientation(image):
    """The orientation of an opened TIFF, WebP, AVIF or HEIC; 1 if it cannot be read."""
    with contextlib.suppress(Exception):  # on damaged tags PIL raises many kinds
        if image.format == "TIFF":
            return min(8, max(1, int(image.tag_v2.get(_ORIENTATION, 1))))
        return _orientation(image.info.get("exif", b"")) or _orientation(image.info.get("xmp", b"")) or 1
    return 1


# --- Squares


# How each EXIF orientation is undone: are rows reversed, are columns reversed, are rows and columns then swapped?
_TURNS = {
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def _place(width, height, orientation):
    """`(left, top, side)` of the central square: to the pixel the same square as in the rotated image."""
    rows, columns, _ = _TURNS.get(orientation, (False,) * 3)
    side = min(width, height)
    return (width - side + columns) // 2, (height - side + rows) // 2, side


def _turned(pixels, orientation):
    """A square `(size, size, 3)` with EXIF's orientation undone."""
    if orientation not in _TURNS:
        return pixels
    rows, columns, swapped = _TURNS[orientation]
    pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if swapped else pixels)


def resize_array(pixels: np.ndarray, size: int, orientation: int = 1) -> np.ndarray:
    """The central square of an array `(height, width, 3)` uint8 whose shorter side is first resized to `size`."""
    cv2 = optional("cv2")
    if cv2 is None:
        return resize_image(Image.fromarray(pixels), size, orientation)
    left, top, shorter = _place(pixels.shape[1], pixels.shape[0], orientation)
    pixels = pixels[top : top + shorter, left : left + shorter]
    ratio = shorter / size
    if ratio >= 2:
        return _turned(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), orientation)
    if ratio > 1:  # blur first, to avoid aliasing, as PIL's filter does
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * math.sqrt(ratio**2 - 1))
    return _turned(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR), orientation)


def to_rgb(image: Image.Image, white: float | None = None, inverted: bool = False) -> Image.Image:
    """A PIL image in RGB. Gray, CMYK, 16-bit and palette images are converted; transparent areas become white.

    Args:
        image: A PIL image.
        white: The value that means white in an image of one channel; None for 65535 in 16 bits, and PIL's otherwise.
        inverted: Whether 0 is white instead, and `white` black.
    """
    if image.mode == "RGB":
        return image
    if white is not None or image.mode.startswith("I"):  # PIL would clip instead of scaling
        values = np.asarray(image, np.float32)
        if not np.isfinite(values).all():
            raise Refused("holds values that are not finite numbers")
        levels = np.rint(np.clip(values / (white or 65535.0) * 255, 0, 255)).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            levels[values == clear] = 0 if inverted else 255
        image = Image.fromarray(255 - levels if inverted else levels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize_image(
    image: Image.Image, size: int, orientation: int = 1, white: float | None = None, inverted: bool = False
) -> np.ndarray:
    """The central square of a PIL image whose shorter side is first resized to `size`, as an array.

    `orientation` is EXIF's; `white` and `inverted` are those of `to_rgb`.
    """
    left, top, shorter = _place(*image.size, orientation)
    if image.mode != "RGB":
        if image.width * image.height <= _LARGE:
            image = to_rgb(image, white, inverted)
        else:
            image, left, top, shorter = _in_bands(image, size, left, top, shorter, white, inverted)
    box = (left, top, left + shorter, top + shorter)
    # Cropping while resizing gives the same pixels, and does not resize what is thrown away.
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return _turned(np.asarray(resized), orientation)


def _in_bands(image, size, left, top, shorter, white, inverted):
    """The square of a large image, converted to RGB and reduced a few rows at a time: a copy of the whole would be too
    large."""
    factor = max(1, int(shorter / size / 2.0))  # the reduction with which `resize` would begin
    rows = max(1, _LARGE // 4 // shorter // factor) * factor
    found = Image.new("RGB", (-(-shorter // factor),) * 2)
    for first in range(0, shorter, rows):
        last = min(first + rows, shorter)
        box = (left, top + first, left + shorter, top + last)
        # At the same size this only crops. `crop` itself would check the part against Image.MAX_IMAGE_PIXELS.
        band = image.resize((shorter, last - first), Image.Resampling.NEAREST, box=box)
        found.paste(to_rgb(band, white, inverted).reduce(factor), (0, first // factor))
    return found, 0, 0, shorter / factor
