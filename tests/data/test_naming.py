"""What messages call files."""

import pickle
from pathlib import Path

import pytest

from xaitools.data.naming import called, numbered
from xaitools.errors import DataError, DataFileError, ShapeError

JANE, JANES = Path("/data/Jane.nii"), Path("/data/Jane.nii.gz")


@pytest.mark.parametrize("kind", [DataError, DataFileError, ShapeError])
def test_errors_call_files_by_their_names_and_keep_the_first(kind) -> None:
    with pytest.raises(kind) as caught, called({JANE: "sub-001", JANES: "sub-002"}):
        raise kind(f"{JANES} and {JANE}: two grids")
    assert str(caught.value) == "sub-002 and sub-001: two grids"
    assert caught.value.file == JANES
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.file) == (str(caught.value), JANES)


def test_the_innermost_name_stands() -> None:
    outer, inner = called({JANE: "file 1"}), called({JANE: "sub-001"})
    with pytest.raises(DataError, match=r"^sub-001: ") as caught, outer, inner:
        raise DataError(f"{JANE}: NaN")
    assert caught.value.file == JANE


def test_other_errors_stay() -> None:
    with pytest.raises(DataError, match=r"^the table: no rows$") as caught, called(numbered([JANE])):
        raise DataError("the table: no rows")
    assert caught.value.file is None


def test_numbers_of_files() -> None:
    assert numbered([JANE, JANES]) == {JANE: "file 1 of 2 (sorted)", JANES: "file 2 of 2 (sorted)"}
