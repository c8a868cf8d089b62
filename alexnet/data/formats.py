"""Formats of image files: which are read, how each is recognized, and Pillow's reader for it."""

import importlib
import importlib.util
import io
import re

from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from alexnet._compat import pillow_reads_avif
from alexnet.data.errors import Refused

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # the first bytes of such files


_AVIF, _HEIF = pillow_reads_avif(), importlib.util.find_spec("pillow_heif") is not None
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM") + ("AVIF",) * _AVIF + ("HEIC",) * _HEIF
# Extensions of files that count as images; the content decides how each is read.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
EXTENSIONS += (".ppm", ".pgm", ".pbm", ".pnm") + (".avif",) * _AVIF + (".heic", ".heif") * _HEIF
# Formats of images that are passed over, and why.
NOT_READ = {
    **dict.fromkeys((".heic", ".heif"), "needs pillow-heif (pip install pillow-heif)"),
    ".avif": "needs a Pillow that reads AVIF (11.3 or newer)",
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG 2000 is not read (convert it)"),
    **dict.fromkeys((".jxl", ".tga", ".psd", ".svg", ".ico", ".exr", ".hdr"), "this format is not read (convert it)"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "raw photographs are not read"),
    **dict.fromkeys((".dcm", ".dicom", ".nii", ".mha", ".svs", ".ndpi"), "medical formats are not read (convert them)"),
}
NOT_READ = {ending: reason for ending, reason in NOT_READ.items() if ending not in EXTENSIONS}


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Does not look for the resolution in EXIF, because Pillow warns if EXIF is damaged."""

    def _read_dpi_from_exif(self):
        pass


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Has no size limit of its own and does not rotate the image: for that Pillow would rewrite EXIF, and fail if it
    is damaged."""

    def load_prepare(self):
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self):
        self._size = self.im.size


def open_image(content):
    """A PIL image that is not decoded yet.

    `Image.open` would check it against `Image.MAX_IMAGE_PIXELS`, which is a setting of the calling program.
    """
    found = format_of(content[:64])
    if found == "JPEG":
        return _Jpeg(io.BytesIO(content))
    if found == "TIFF":
        return _Tiff(io.BytesIO(content))
    if found == "HEIC":
        if not _HEIF:
            raise Refused(f"is HEIC, which {NOT_READ['.heic']}")
        return importlib.import_module("pillow_heif").HeifImageFile(io.BytesIO(content))
    if found == "AVIF" and not _AVIF:
        raise Refused(f"is AVIF, which {NOT_READ['.avif']}")
    if found is None:
        raise Refused(f"is not an image ({', '.join(FORMATS)} are read)")
    name = {"PNG": "Png", "BMP": "Bmp", "GIF": "Gif", "WEBP": "WebP", "PPM": "Ppm", "AVIF": "Avif"}[found]
    plugin = importlib.import_module(f"PIL.{name}ImagePlugin")
    return getattr(plugin, f"{name}ImageFile")(io.BytesIO(content))


def format_of(head):
    """The format of a file by its first bytes; None if it is not one of those that are read."""
    if head.startswith(JPEG):
        return "JPEG"
    if head.startswith(PNG):
        return "PNG"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if re.match(rb"P[1-6fF][\s#]", head):
        return "PPM"
    if head[4:8] == b"ftyp":  # videos begin with it, too
        brands = {head[place : place + 4] for place in range(8, min(len(head), int.from_bytes(head[:4])), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIC"
    return None
