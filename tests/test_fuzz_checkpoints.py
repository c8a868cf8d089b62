"""Sixty randomly changed checkpoints; `python tests/fuzz_checkpoints.py --count 10000` makes more."""

import keras
import pytest
from fuzz_checkpoints import CASES, check

BACKEND = keras.backend.backend()


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="reading is the same on each; PyTorch compiles nothing")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_random_changes(tmp_path):
    found = []
    for seed in range(60):
        (tmp_path / str(seed)).mkdir()
        found.append(check(seed, tmp_path / str(seed)))
    for kind in CASES:
        assert {(kind, "right"), (kind, "refused")} <= set(found), found
