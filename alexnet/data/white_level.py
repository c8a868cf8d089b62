"""Which value is white in an image of more than 8 bits, of floats, or of few values."""

from typing import NamedTuple

from alexnet.data.errors import Refused

OVERSHOOT = 0.1  # of the whole range: an image that was resized or sharpened goes beyond black and white
_GRAY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class Depth(NamedTuple):
    """What a file tells about its values, before they are decoded.

    Attributes:
        bits: Of each value.
        white: The value that is white; None if the file does not say.
        any: Whether values may be negative, or no whole numbers: their number of bits says nothing about white.
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
            # PIL makes 65535 of the file's own maximum. Where it says 65535, it may not mean it.
            args = image.tile[0].args
            maximum = args[1] if isinstance(args, tuple) else 65535 if image.mode == "I" else 255
            return cls(16 if maximum > 255 else 8, None if maximum == 65535 else 65535, image.mode == "F")
        if image.format == "TIFF":
            tags = image.tag_v2
            bits, sample = tags.get(258, (1,))[0], tags.get(339, (1,))[0]
            if bits == 8 and sample == 2:
                raise Refused("holds signed numbers of 8 bits, which are not read")
            stated = tags.get(281)  # MaxSampleValue: what fits, or the brightest there is
            stated = stated[0] if isinstance(stated, tuple) else stated
            white = 2**bits - 1 if 8 < bits < 16 else stated if stated in (2**10 - 1, 2**12 - 1, 2**14 - 1) else None
            return cls(bits, white, sample != 1 or bits > 16, tags.get(262) == 0 and bits > 8)
        return cls()


def white_of(image, depth, white_level):
    """The value of a decoded image that is white; None where PIL knows how to make RGB of it.

    It is never taken from the brightest pixel of one image alone: a dark one would come out bright.
    """
    gray = image.mode in _GRAY
    if image.format == "JPEG" or not (gray or image.mode == "L" or depth.bits == 16):
        return None
    if image.mode in _GRAY[3:]:  # PIL counts in its own order of bytes only
        image = image.convert("I")
    extrema = image.getextrema()
    if not gray and image.mode != "L":  # PIL keeps the upper half of the 16 bits of each channel
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
            raise Refused("holds 0 and 1 of 255 only; white_level: 1 makes 1 white, white_level: 255 leaves it dark")
        if white is None or white >= 255:
            return None
    if white is None:
        if depth.any:
            raise Refused(f"holds numbers from {low:g} to {high:g}; white_level must say which value is white")
        _require_bits(high, white_level)
        white = 65535
    slack = OVERSHOOT * white if image.mode == "F" else 0
    if not (-slack <= low and high <= white + slack):
        raise Refused(f"has values from {low:g} to {high:g}, where 0 is black and {white:g} white")
    return white


def _require_bits(high, white_level):
    if 0 < high < 2**14 and white_level is None:
        raise Refused(
            f"has 16 bits, but no value above {high}; white_level must say which value is white (4095 for 12 bits, "
            "65535 if it is so dark)"
        )
