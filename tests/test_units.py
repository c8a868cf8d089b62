import pytest

from alexnet.units import format_duration, format_size

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.04, "0.0 s"), (2.44, "2.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (80, "1 min 20 s")),
        *((3599.7, "1 h"), (7500, "2 h 5 min"), (86390, "1 d"), (273600, "3 d 4 h"), (864000, "10 d")),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345, "12 kB"), (999_600, "1.0 MB")),
        *((745e6, "745 MB"), (1.32e9, "1.3 GB"), (2e12, "2.0 TB"), (3e15, "3,000 TB")),
    ],
)
def test_sizes(size, text):
    assert format_size(size) == text
