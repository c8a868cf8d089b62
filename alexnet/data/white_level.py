"""Which value means white in an image of more than 8 bits, of floats, or of only a few values."""

from typing import NamedTuple

from alexnet.data.errors import Refused

OVERSHOOT = 0.1  # of the range: an image that was resized or sharpened goes a little beyond black and white
_GRAY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class Depth(NamedTuple):
    """What a file says about its values before they are decoded.

    Attributes:
        bits: Bits of each value.
        white: The value that means white; None if the file does not say.
        any: Whether values may be negative or fractions: then their number of bits says nothing about white.
        inverted: Whether 0 is white instead.
    """

    bits: int = 8
    white: float | None = None
    any: bool = False
    inverted: bool = False

    @classmethod
    def of(cls, image, content):
        if image.format == "PNG":
            return cls(content[24])
        if image.format == "PPM" and image.mode != "1":
            # PIL scales the file's own maximum to 65535. A file that says 65535 may not mean it.
            args = image.tile[0].args
            maximum = args[1] if isinstance(args, tuple) else 65535 if image.mode == "I" else 255
            return cls(16 if maximum > 255 else 8, None if maximum == 65535 else 65535, image.mode == "F")
        if image.format == "TIFF":
            tags = image.tag_v2
            bits, sample = tags.get(258, (1,))[0], tags.get(339, (1,))[0]
            if bits == 8 and sample == 2:
                raise Refused("holds signed numbers of 8 bits, which are not read")
            stated = tags.get(281)  # MaxSampleValue: the largest possible value, or the largest one that occurs
            stated = stated[0] if isinstance(stated, tuple) else stated
            white = 2**bits - 1 if 8 < bits < 16 else stated if stated in (2**10 - 1, 2**12 - 1, 2**14 - 1) else None
            return cls(bits, white, sample != 1 or bits > 16, tags.get(262) == 0 and bits > 8)
        return cls()


def white_of(image, depth, white_level):
    """The value that means white in a decoded image; None where PIL knows how to convert it to RGB.

    It is never taken from an image's brightest pixel: a dark image would come out bright.
    """
    gray = image.mode in _GRAY
    if image.format == "JPEG" or not (gray or image.mode == "L" or depth.bits == 16):
        return None
    if image.mode in _GRAY[3:]:  # PIL finds extrema in the native byte order only
        image = image.convert("I")
    extrema = image.getextrema()
    if not gray and image.mode != "L":  # PIL keeps only the upper 8 of the 16 bits of each channel
        if depth.white is None and image.mode != "CMYK":
            colors = extrema[:-1] if image.mode[-1] in "Aa" else extrema
            _require_bits(max(high for _, high in colors) << 8, white_level)
            if white_level not in (None, 65535):
                raise Refused(f"has several channels of 16 bits, which are read with 65535 as white, not {white_level}")
        return None
    low, high = extrema
    white = depth.white if gray and depth.white else white_level
    if not gray:
        if white is None and high == 1:
            raise Refused("holds only 0 and 1 of 255; white_level: 1 makes 1 white, white_level: 255 leaves it dark")
        if white is None or white >= 255:
            return None
    if white is None:
        if depth.any:
            raise Refused(f"holds numbers from {low:g} to {high:g}; set white_level to the value that is white")
        _require_bits(high, white_level)
        white = 65535
    slack = OVERSHOOT * white if image.mode == "F" else 0
    if not (-slack <= low and high <= white + slack):
        raise Refused(f"has values from {low:g} to {high:g}, where 0 is black and {white:g} white")
    return white


def _require_bits(high, white_level):
    if 0 < high < 2**14 and white_level is None:
        raise Refused(
            f"has 16 bits, but no value above {high}; set white_level to the value that is white (4095 for 12 bits, "
            "65535 if the image is really that dark)"
        )
