"""Malformed inputs: each loader refuses them in its own words or loads them rightly, in time and in memory."""

import re
import warnings

import pytest

from tests.hostile import dicom, nifti, pictures, places, stored, tables
from tests.hostile.limits import forget_peak, limits
from tests.hostile.small import LOADERS
from xaitools.errors import XaitoolsError

CASES = {
    f"{kind.__name__.rsplit('.')[-1]}-{case}": case
    for kind in (nifti, dicom, pictures, tables, places, stored)
    for case in kind.cases()
}

PLACE = r"sub-\d{3}|file \d+ of \d+|row \d+|/dev/zero"
"""Where a fault is, if it is not a path: the study's id, or a number."""


def test_there_are_many_cases_of_every_loader():
    assert len(CASES) > 600
    assert {case.loader for case in CASES.values()} == set(LOADERS) - {"save_maps"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
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
        assert re.search(PLACE, refusal) or str(folder) in refusal
        assert len(refusal) < 2500
