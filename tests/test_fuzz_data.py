"""Two hundred random data sets; `python tests/fuzz_data.py --count 10000` makes more."""

import pytest
from fuzz_data import check

pytestmark = pytest.mark.once


def test_random_folders_and_tables(tmp_path):
    found = []
    for seed in range(200):
        (tmp_path / str(seed)).mkdir()
        found.append(check(seed, tmp_path / str(seed)))
    assert found.count("right") > 100, [sentence for sentence in found if sentence != "right"][:5]
