"""Image files to squares of RGB pixels."""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What counts as an image by its name; the content decides how it is read.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")


class ImageError(RuntimeError):
    """An image file that cannot be decoded. The message names it."""


def read_square(path, size):
    """The central square of an image file, `(size, size, 3)` uint8 RGB (section 2 of the paper).

    The shorter side becomes `size`. EXIF orientation is honoured; the first frame of an animation is taken;
    what is transparent lies on white.

    Raises:
        ImageError: no image, or a damaged one.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return square(to_rgb(ImageOps.exif_transpose(image)), size)
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image ({', '.join(FORMATS)} are read)") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be decoded: {error}") from None


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
