import pytest

from xaitools.data.missing import is_missing_id, without_missing
from xaitools.errors import DataError


@pytest.mark.parametrize(
    ("cells", "missing"),
    [
        ("CN AD n/a NA Unknown . -", "n/a NA Unknown ."),
        ("24 60 -1 -4 -4.0 -9999", "-1 -4 -4.0 -9999"),
        ("24 60 999 99 9999.0", "999 9999.0"),
        ("0 0.5 1 -1", "-1"),
        ("0 1 -4", "-4"),
        ("CN AD -1 999", "-1 999"),
        ("-2.5 -1 0.3 -9999", "-9999"),
        ("-1 1", ""),
        ("500 999 1500", ""),
        ("0 1 2", ""),
        ("-5 -4 3", ""),
        ("-4 999", "-4 999"),
        ("0 999", "999"),
    ],
)
def test_codes_are_missing_where_they_can_be_no_value(cells, missing):
    cells, missing = cells.split(), missing.split()
    found, counts = without_missing(cells, "table")
    assert found == ["" if cell in missing else cell for cell in cells]
    assert counts == {cell: 1 for cell in missing if cell[-1].isdecimal()}


@pytest.mark.parametrize("cells", ["-1 0 1", "-1 0", "300 800 999", "-3.2 1.1 -4"])
def test_what_may_be_a_code_or_a_value_is_refused_until_it_is_said(cells):
    cells = cells.split()
    code = next(cell for cell in cells if cell in ("-1", "-4", "999"))
    with pytest.raises(
        DataError, match=rf"table: '{code}' beside .* may be a value .*missing=\['{code}'\].*missing="
    ):
        without_missing(cells, "table")
    assert without_missing(cells, "table", codes=[]) == (cells, {})
    found, counts = without_missing(cells, "table", codes=[code])
    assert (found, counts) == (["" if cell == code else cell for cell in cells], {code: 1})


def test_codes_that_are_said_are_the_only_ones():
    assert without_missing(["-4", "7", "n/a", "88"], "table", codes=["88"]) == (
        ["-4", "7", "", ""],
        {"88": 1},
    )


@pytest.mark.parametrize("codes", [[-4], ["-4.0"], [" -4"], ["-4", "UNKNOWN"]])
def test_codes_are_compared_as_numbers(codes):
    cells = ["-4", "-4.00", "-40", "CN"]
    assert without_missing(cells, "table", codes=codes) == (["", "", "-40", "CN"], {"-4": 1, "-4.00": 1})


@pytest.mark.parametrize(
    ("cell", "missing"), [("", 1), (" n/a", 1), ("-4", 1), ("999", 0), ("-5", 0), ("0", 0)]
)
def test_cells_that_name_nobody(cell, missing):
    assert is_missing_id(cell) == bool(missing)
