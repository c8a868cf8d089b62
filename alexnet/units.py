"""Seconds and bytes as people read them."""


def format_duration(seconds: float) -> str:
    """A time in one or two units: `2.4 s`, `48 s`, `1 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds) / 60, round(seconds / 60) / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return _two_units(minutes, "min", 60, "s")
    return _two_units(hours, "h", 60, "min") if hours < 24 else _two_units(round(hours) / 24, "d", 24, "h")


def _two_units(value, larger, size, smaller):
    whole, rest = divmod(round(value * size), size)
    return f"{whole} {larger} {rest} {smaller}" if rest else f"{whole} {larger}"


def format_size(size: float) -> str:
    """Bytes in powers of 1000: `512 bytes`, `12 kB`, `745 MB`, `1.3 GB`."""
    if size < 999.5:
        return f"{size:.0f} bytes"
    units = ["TB", "GB", "MB", "kB"]
    while units and size >= 999.5:
        size, unit = size / 1000, units.pop()
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:,.0f} {unit}"
