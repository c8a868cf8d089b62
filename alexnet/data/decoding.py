"""Image files to squares of RGB pixels."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What counts as an image by its name; the content decides how it is read.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")


class ImageError(RuntimeError):
    """An image that cannot be used.

    Attributes:
        name: Of the image.
        reason: Why, in a few words that go on the sentence "<name> ...".
    """

    def __init__(self, name, reason):
        super().__init__(f"{name} {reason}")
        self.name = str(name)
        self.reason = reason


def read_square(path, size):
    """The central square of an image file, `(size, size, 3)` uint8 RGB; as `decode_square`.

    Raises:
        ImageError: no file, no image, or a damaged one.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from None
    return decode_square(content, size, path)


def decode_square(content, size, name):
    """The central square of an image file's content, `(size, size, 3)` uint8 RGB (section 2 of the paper).

    The shorter side becomes `size`. EXIF orientation is honoured; the first frame of an animation is taken;
    what is transparent lies on white.

    Raises:
        ImageError: no image, or a damaged one.
    """
    if not content:
        raise ImageError(name, "is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return square(to_rgb(ImageOps.exif_transpose(image)), size)
    except UnidentifiedImageError:
        raise ImageError(name, f"is not an image ({', '.join(FORMATS)} are read)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(name, "claims to be so large that it could be an attack (decompression bomb)") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageError(name, f"cannot be decoded: {error}") from None


def to_rgb(image):
    """A PIL image in RGB: grey, CMYK, 16-bit and palette images converted, transparency laid on white."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL would clip instead of scaling
        values = np.asarray(image, np.float32)
        image = Image.fromarray((values / max(values.max(), 65535.0) * 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def square(image, size):
    """The central square of a PIL image whose shorter side is first resized to `size`, as an array."""
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    # Cutting the square out while resizing gives the same pixels and saves resizing what is thrown away.
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
