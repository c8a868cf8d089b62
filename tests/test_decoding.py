"""Image files of every kind: formats, metadata, what is white, size, and what happens without optional libraries."""

import importlib.util
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from alexnet.data import ImageError, decoding, formats
from alexnet.packages import optional

pytestmark = pytest.mark.once
RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(size=(90, 72)):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(content, size=72, **options):
    return decoding.decode_image(content, size, "x", **options)


def refused(content, message, **options):
    with pytest.raises(ImageError, match=message):
        decode(content, **options)


# --- Formats


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [("TIFF", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "jpeg"}),
     ("TIFF", "CMYK", {}), ("TIFF", "P", {}), ("TIFF", "RGBA", {}), ("TIFF", "YCbCr", {"compression": "jpeg"}),
     ("PPM", "RGB", {}), ("WEBP", "RGB", {"lossless": True}), ("JPEG", "CMYK", {"quality": 95}),
     ("AVIF", "RGB", {"quality": 95})],
)  # fmt: skip
def test_formats(kind, mode, options):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    found = decode(encoded(halves().convert(mode), kind, **options))
    assert found.shape == (72, 72, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found[36, 5], RED, atol=14)
    np.testing.assert_allclose(found[36, 66], BLUE, atol=14)


def test_endings_are_read_or_have_a_reason():
    for ending in (".jpe", ".jfif", ".tif", ".tiff", ".ppm", ".pgm"):
        assert ending in formats.EXTENSIONS
    assert ".avif" in (formats.EXTENSIONS if features.check("avif") else formats.NOT_READ)
    heif = importlib.util.find_spec("pillow_heif") is not None
    assert ".heic" in (formats.EXTENSIONS if heif else formats.NOT_READ)
    assert not set(formats.EXTENSIONS) & set(formats.NOT_READ)


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="it is installed")
def test_heic_names_what_it_needs():
    refused(struct.pack(">I4s4sI4s", 24, b"ftyp", b"heic", 0, b"mif1") + bytes(99), "pip install pillow-heif")
    refused(struct.pack(">I4s4sI4s", 24, b"ftyp", b"isom", 0, b"mp42") + bytes(99), "is not an image")


def test_the_first_page_counts():
    pages = [Image.new("RGB", (80, 80), color) for color in (RED, BLUE)]
    content = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(decode(content)[0, 0], RED)


def test_one_bit_and_plain_grays():
    np.testing.assert_array_equal(decode(b"P1 80 80 " + b"0 1 " * 3200)[0, :2, 0] // 128 * 255, [255, 0][:2])
    np.testing.assert_array_equal(decode(b"P5 80 80 3 " + bytes([3]) * 6400), 255)  # its own maximum is white
    np.testing.assert_array_equal(decode(encoded(Image.new("1", (80, 80), 1), "PNG")), 255)


# --- Metadata


def exif(orientation, *others, order="<"):
    """An EXIF block; `others` are `(tag, type, count, four bytes)`."""
    rows = [(0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)), *others]
    body = struct.pack(order + "H", len(rows)) + b"".join(struct.pack(order + "HHI", *row[:3]) + row[3] for row in rows)
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return b"Exif\0\0" + start + body + bytes(4)


BROKEN = ((0x011A, 5, 1, b"\xff\xff\xff\xff"), (0x013B, 2, 9999, b"\1\2\3\4"), (0x8769, 4, 1, b"\xff\0\0\xff"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("others", [(), BROKEN])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation, others, order):
    """Rotated as Pillow rotates intact images, to the pixel, in both ways; damage elsewhere does not matter."""
    upright = Image.fromarray(np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 50, np.ones((41, 35), np.uint8)))
    intact = encoded(upright.convert("RGB"), "PNG", exif=exif(orientation))
    from PIL import ImageOps

    expected = decoding.resize_image(ImageOps.exif_transpose(Image.open(io.BytesIO(intact))), 64).astype(int)
    blob = exif(orientation, *others, order=order)
    for kind, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 98, "subsampling": 0}),
    ):
        found = decode(encoded(upright.convert("RGB"), kind, exif=blob, **options), 64)
        assert np.abs(found - expected).mean() < (3 if kind == "JPEG" else 1e-9), kind


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_turned_tiffs(orientation, compression):
    from PIL import ImageOps

    tags = {0x0112: orientation}
    content = encoded(halves((90, 60)), "TIFF", tiffinfo=tags, compression=compression)
    plain = Image.Exif()
    plain[0x0112] = orientation
    other = Image.open(io.BytesIO(encoded(halves((90, 60)), "PNG", exif=plain)))
    np.testing.assert_array_equal(decode(content, 50), decoding.resize_image(ImageOps.exif_transpose(other), 50))


@pytest.mark.parametrize(
    "blob", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"b'Exif\\x00'", b"Exif\0\0garbage" * 9]
)
def test_metadata_that_nobody_can_read_costs_nothing(blob):
    for kind in ("JPEG", "PNG", "WEBP"):
        np.testing.assert_allclose(decode(encoded(halves(), kind, exif=blob))[36, 5], RED, atol=14)


def test_damaged_chunks_of_a_png_cost_nothing():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "x" * 3_000_000, zip=True)  # more than Pillow's limit of text
    content = bytearray(encoded(halves(), "PNG", pnginfo=info, exif=exif(3)))
    content[content.index(b"eXIf") + 30] ^= 255  # its checksum is wrong now
    np.testing.assert_array_equal(decode(bytes(content))[36, 5], BLUE)


def test_cmyk_jpegs_are_turned_too():
    np.testing.assert_allclose(decode(encoded(halves().convert("CMYK"), "JPEG", exif=exif(3)))[36, 5], BLUE, atol=14)


# --- What is white


def gray(values, kind="PNG", **options):
    return encoded(Image.fromarray(np.asarray(values)), kind, **options)


def ramp(top, dtype=np.uint16):
    return np.linspace(0, top, 80).astype(dtype)[None].repeat(80, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind):
    np.testing.assert_allclose(decode(gray(ramp(65535), kind), 80)[0, :, 0], np.linspace(0, 255, 80), atol=1)
    refused(gray(ramp(4095), kind), "no value above 4095; set white_level")
    found = decode(gray(ramp(4095), kind), 80, white_level=4095)[0, :, 0]
    np.testing.assert_allclose(found, np.linspace(0, 255, 80), atol=1)
    # A dark image of the same set stays dark.
    assert decode(gray(ramp(400), kind), 80, white_level=4095).max() == 25
    assert decode(gray(ramp(4095), kind), 80, white_level=65535).max() == 16
    refused(gray(ramp(5000), kind), "values from 0 to 5000", white_level=4095)
    np.testing.assert_array_equal(decode(gray(ramp(0), kind)), 0)


def test_a_file_that_says_what_is_white():
    twelve = struct.pack(">6400H", *[2048] * 6400)
    np.testing.assert_array_equal(decode(b"P5 80 80 4095 " + twelve), 128)
    refused(b"P5 80 80 65535 " + twelve, "no value above 2048")
    np.testing.assert_array_equal(decode(gray(np.full((80, 80), 2048, np.uint16), "TIFF", tiffinfo={281: 4095})), 128)
    inverted = gray(ramp(65535), "TIFF", tiffinfo={262: 0})
    if Image.open(io.BytesIO(inverted)).tag_v2[262] == 0:
        assert decode(inverted, 80)[0, 0, 0] == 255


def test_floats_and_signed_numbers():
    refused(gray(ramp(1, np.float32), "TIFF"), "numbers from 0 to 1; set white_level")
    np.testing.assert_allclose(
        decode(gray(ramp(1.04, np.float32), "TIFF"), 80, white_level=1)[0, ::79, 0], [0, 255], atol=1
    )
    refused(gray(ramp(3, np.float32), "TIFF"), "from 0 to 3", white_level=1)
    refused(gray(ramp(1, np.float32) * np.nan, "TIFF"), "holds|nan", white_level=1)
    refused(gray(ramp(300, np.int32), "TIFF"), "set white_level")
    refused(gray(ramp(300, np.int32) - 9, "TIFF"), "from -9 to 291", white_level=300)


def test_masks_of_zero_and_one():
    mask = (np.arange(6400).reshape(80, 80) % 80 > 40).astype(np.uint8)
    refused(gray(mask), "holds only 0 and 1 of 255")
    assert decode(gray(mask), white_level=1).max() == 255
    assert decode(gray(mask), white_level=255).max() == 1
    np.testing.assert_array_equal(decode(gray(mask * 255)), decode(gray(mask), white_level=1))


def test_color_of_sixteen_bits():
    def png(value):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        rows = zlib.compress((b"\0" + struct.pack(">H", value) * 80 * 3) * 80)
        header = struct.pack(">IIBBBBB", 80, 80, 16, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    np.testing.assert_array_equal(decode(png(200 * 257)), 200)
    refused(png(4000), "set white_level")
    refused(png(4000), "read with 65535 as white, not 4095", white_level=4095)


# --- Size


def test_more_pixels_than_allowed():
    for kind in ("JPEG", "PNG", "TIFF"):
        content = encoded(Image.new("RGB", (100, 90)), kind)
        refused(content, "100 x 90 pixels.*max_megapixels allows 0.008", max_pixels=8000)
        assert decode(content, max_pixels=9000).shape == (72, 72, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "I;16"])
def test_large_images_in_bands_are_the_same(mode, monkeypatch):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((700, 611), Image.Resampling.BICUBIC)
    image = (
        Image.fromarray(np.asarray(coarse.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else coarse.convert(mode)
    )
    whole = decoding.resize_image(image, 64, 6)
    monkeypatch.setattr(decoding, "_LARGE", 100_000)
    # Pillow begins to reduce at a position that differs by a pixel or two.
    apart = np.abs(decoding.resize_image(image, 64, 6) - whole.astype(int))
    assert apart.max() <= 4 and apart.mean() < 1


def test_large_images_wait_for_each_other(monkeypatch):
    gate, running, most = decoding._Gate(decoding._LARGE * 3), [], []

    def work():
        with gate.hold(decoding._LARGE * 2):
            running.append(1)
            most.append(len(running))
            threading.Event().wait(0.01)
            running.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert max(most) == 1 and len(most) == 5 and gate.free == gate.room


LARGE = """
import contextlib, io, re, threading
import cv2
with contextlib.suppress(ImportError): import simplejpeg
from PIL import Image
from alexnet.data import decoding
stream = io.BytesIO()
Image.new('RGB', (5000, 4000), (9, 9, 9)).save(stream, 'PNG', compress_level=1)  # 80 MB when decoded
peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
decoding._gate = decoding._Gate(20_000_000)
decoding.decode_image(stream.getvalue(), 72, 'x')
before = peak()
threads = [threading.Thread(target=decoding.decode_image, args=(stream.getvalue(), 72, 'x')) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its own peak is known on Linux only")
def test_four_threads_need_the_memory_of_one():
    """(`ru_maxrss` would be the parent's.)"""
    found = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 40_000


# --- The program around us


FOREIGN = """
import contextlib, io, logging, warnings
import cv2, numpy  # these have filters of their own
with contextlib.suppress(ImportError): import simplejpeg
logging.disable()  # what is said where it is missing
from PIL import Image
Image.MAX_IMAGE_PIXELS = 1000
before = list(warnings.filters)
from alexnet.data import decoding
for kind in ('JPEG', 'PNG', 'TIFF', 'BMP'):
    stream = io.BytesIO()
    Image.new('RGB', (40, 60), (9, 9, 9)).save(stream, kind)
    assert decoding.decode_image(stream.getvalue(), 36, 'x').max() == 9
assert before == warnings.filters and Image.MAX_IMAGE_PIXELS == 1000
try: Image.open(io.BytesIO(stream.getvalue()))
except Image.DecompressionBombError: print('theirs')
"""


def test_pillows_limit_and_warnings_stay_the_users():
    found = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, timeout=120)
    assert (found.stdout, found.stderr) == ("theirs\n", "")


def test_a_warning_of_metadata_is_no_error_even_where_warnings_are(tmp_path):
    content = bytearray(encoded(halves(), "TIFF", tiffinfo={305: "a program of some length"}))
    place = content.index(struct.pack("<HHI", 305, 2, 25))
    content[place + 4 : place + 8] = struct.pack("<I", 10**6)  # longer than the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(bytes(content))[36, 5], RED)


WITHOUT = """
import sys, io, os, tempfile
for name in sys.argv[1].split(','): sys.modules[name] = None
import numpy as np
from PIL import Image
import alexnet
from alexnet.data import decoding, augmentation, packing
from alexnet.data.readers import packed
image = Image.new('RGB', (300, 200), (200, 30, 40)); stream = io.BytesIO(); image.save(stream, 'JPEG', quality=95)
found = decoding.decode_image(stream.getvalue(), 72, 'x')
assert found.shape == (72, 72, 3) and np.abs(found.astype(int) - (200, 30, 40)).max() < 4
batch = np.empty((2, 60, 60, 3), np.uint8)
squares = [np.arange(72 * 72 * 3, dtype=np.uint8).reshape(72, 72, 3)] * 2
augmentation.crop_and_flip(squares, np.array([[0, 5], [2, 3]]), np.array([True, False]), batch)
assert (batch[0] == squares[0][:60, 5:65][:, ::-1]).all() and (batch[1] == squares[1][2:62, 3:63]).all()
assert packing._encode(found, 'jpeg')[:2] == b'\\xff\\xd8'
for call in (lambda: packing.PackWriter(tempfile.mkdtemp(), {}, None), lambda: packed.load_packed(tempfile.mkdtemp())):
    try: call()
    except Exception as error: print(type(error).__name__, error)
"""


def without_simplejpeg(monkeypatch):
    monkeypatch.setattr(decoding, "optional", lambda name: None if name == "simplejpeg" else optional(name))
    decoding._simplejpeg.cache_clear()


@pytest.mark.parametrize("size", [256, 190, 150, 72])  # decoded whole, to three eighths twice, and to a quarter
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pillow_decodes_the_same_pixels(monkeypatch, caplog, size, mode):
    """Without simplejpeg, as on Kaggle and Colab: the same pixels, and one line that says so."""
    pytest.importorskip("simplejpeg")
    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as photograph:
        stream = io.BytesIO()
        photograph.convert(mode).save(stream, "JPEG", quality=90, progressive=size == 150)
    expected = decoding.decode_image(stream.getvalue(), size, "x").astype(int)
    without_simplejpeg(monkeypatch)
    with caplog.at_level("INFO", "alexnet"):
        found = [decoding.decode_image(stream.getvalue(), size, "x") for _ in range(2)]
    assert len(caplog.records) == 1 and "pip install simplejpeg" in caplog.text
    assert abs(found[0] - expected).mean() < (2 if size in (190, 150) else 0.1)
    decoding._simplejpeg.cache_clear()


def test_pillow_refuses_what_is_damaged(monkeypatch):
    without_simplejpeg(monkeypatch)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(encoded(halves(), "JPEG")[:500])
    decoding._simplejpeg.cache_clear()


def test_without_optional_libraries():
    command = [sys.executable, "-c", WITHOUT, "simplejpeg,cv2,array_record"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    line = "DataError Packed images need array_record, which is not installed. Install it with: pip install "
    line += "array-record, or its extra: pip install 'alexnet-keras[pack]'"
    assert found.stdout.splitlines() == [line, line]
