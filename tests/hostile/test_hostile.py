"""Malformed inputs: each loader refuses them in its own words or loads them rightly, in time and in memory."""

import re
import warnings

import pytest

from tests.hostile import dicom, nifti, pictures, places, stored, tables
from tests.hostile.limits import forget_peak, limits
from tests.hostile.small import LOADERS
from xaitools.errors import XaitoolsError

CASES = [case for module in (nifti, dicom, pictures, tables, places, stored) for case in module.cases()]


def test_there_are_many_cases_and_no_name_twice():
    assert len(set(map(str, CASES))) == len(CASES) > 300
    assert {case.loader for case in CASES} >= set(LOADERS) - {"save_maps"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_malformed_input_is_refused_in_our_own_words_or_harmless(case, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    LOADERS[case.loader].write(folder)
    case.damage(folder)
    monkeypatch.chdir(tmp_path)
    forget_peak()
    refusal = ""
    with limits(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(are in color|Masks in doubt).*", UserWarning)
        try:
            LOADERS[case.loader].load(folder)
        except XaitoolsError as error:
            refusal = str(error)
    assert not (tmp_path / "hostile").exists(), "a file has run code"
    assert "MemoryError" not in refusal
    if case.says != "?":
        assert bool(refusal) == bool(case.says), refusal
    if refusal:
        assert re.search(case.says.replace("?", "."), refusal)
        assert str(folder) in refusal or "/dev/zero" in refusal
        assert len(refusal) < 2500
