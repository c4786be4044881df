import numpy as np
import pytest

from xaitools.data.intensity import apply_window, hu_doubt
from xaitools.errors import ParameterError


def test_the_window_runs_from_black_to_white():
    hu = np.array([-2000.0, -140.0, 60.0, 160.0, 260.0, 3000.0])
    np.testing.assert_allclose(apply_window(hu, (60, 400)), [0, 0, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("window", [(40, 0), (40, -1), (np.nan, 400)])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(ParameterError, match="window"):
        apply_window(np.zeros(2), window)


HU = np.concatenate([np.full(50, -1000.0), np.full(20, -850), np.full(60, 40), np.full(10, 700)])
NOT_HU = {
    "scaled to 0..1": ((HU + 1000) / 1700, "0 to 1, next to nothing below -200 HU"),
    "shifted by 1024": (HU + 1024, "24 to 1724, next to nothing below"),
    "shifted, with padding outside the circle": (np.append(HU + 1024, [-2000] * 30), "next to nothing below"),
    "scaled to mean 0 and deviation 1": ((HU - HU.mean()) / HU.std(), "next to nothing below"),
    "shifted twice": (HU - 1024, "-984 to -324, next to nothing between"),
    "padding alone": (np.full(9, -3024.0), "nothing lies at -1024 HU or above"),
}


@pytest.mark.parametrize("case", NOT_HU)
def test_values_that_cannot_be_hounsfield_units(case):
    values, doubt = NOT_HU[case]
    assert doubt in hu_doubt(values)


def test_air_and_tissue_are_hounsfield_units_also_with_padding_and_holes():
    assert hu_doubt(HU) == ""
    assert hu_doubt(np.append(HU, [-2000, -3024, np.nan])) == ""
