import numpy as np
import pytest

from xaitools.data.intensity import apply_window
from xaitools.errors import ParameterError


def test_the_window_runs_from_black_to_white():
    hu = np.array([-2000.0, -140.0, 60.0, 160.0, 260.0, 3000.0])
    np.testing.assert_allclose(apply_window(hu, (60, 400)), [0, 0, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("window", [(40, 0), (40, -1), (np.nan, 400)])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(ParameterError, match="window"):
        apply_window(np.zeros(2), window)
