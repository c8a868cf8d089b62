import sys

import pytest

from alexnet.progress import progress

pytestmark = pytest.mark.once


def test_the_bar_is_shown_to_somebody_only(capsys, monkeypatch):
    assert list(progress(range(3), 3, "Counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert list(progress(iter("abc"), 3, "Counting", verbose=1)) == ["a", "b", "c"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress(range(3), 3, "Counting", verbose=0)) == [0, 1, 2]
    capsys.readouterr()
    monkeypatch.setenv("FORCE_COLOR", "1")
    list(progress(range(3), 3, "Counting"))
    assert "Counting" in capsys.readouterr().err
