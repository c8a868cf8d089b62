"""Image files to squares of RGB pixels."""

import io
import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What counts as an image by its name; the content decides how it is read.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
# More pixels than any photograph has: such a header is damaged, or made to fill the memory.
MOST_PIXELS = Image.MAX_IMAGE_PIXELS
_ORIENTATION = 0x0112  # EXIF's tag

# What is wrong with a file is an ImageError, or can be put up with; PIL would say it on the error stream as well.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            # Nearly all photographs. Other modes and turned ones take PIL's way.
            if image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION, 1) == 1:
                pixels = _decode_jpeg(content, size)
                if pixels is not None:
                    return pixels
            image.draft(None, (size, size))
            return square(to_rgb(ImageOps.exif_transpose(image)), size)
    except UnidentifiedImageError:
        raise ImageError(name, f"is not an image ({', '.join(FORMATS)} are read)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(name, "claims to be so large that it could be an attack (decompression bomb)") from None
    except MemoryError:
        raise
    except Exception as error:  # PIL raises whatever a damaged file leads it to, struct.error and TypeError among them
        raise ImageError(name, f"cannot be decoded: {error}") from None


def _decode_jpeg(content, size):
    """As `decode_square` for a grey or RGB JPEG, in two thirds of PIL's time; None if PIL has to look at it."""
    import simplejpeg  # here and not above, like grain and cv2: they take a while to import

    try:
        # Where at least twice `size` is there, decoding to a half or less saves time and blurs nothing that stays.
        pixels = simplejpeg.decode_jpeg(content, min_height=size, min_width=size, min_factor=2)
    except ValueError:
        return None  # cut off or damaged; PIL refuses the first, and knows how to put up with some of the second
    return array_square(pixels, size)


def array_square(pixels, size):
    """The central square of an array `(height, width, 3)` uint8 whose shorter side is first resized to `size`."""
    import cv2

    height, width = pixels.shape[:2]
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    pixels = pixels[top : top + shorter, left : left + shorter]
    ratio = shorter / size
    if ratio >= 2:
        return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    if ratio > 1:  # details too fine for the smaller image would become false patterns; PIL's filter drops them as well
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * math.sqrt(ratio**2 - 1))
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


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
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    box = (left, top, left + shorter, top + shorter)
    # Cutting the square out while resizing gives the same pixels and saves resizing what is thrown away.
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
