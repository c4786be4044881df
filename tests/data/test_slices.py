from pathlib import Path

import numpy as np
import pytest

from xaitools.data.grids import Grid
from xaitools.data.slices import CtSlice, resize, slice_at, slice_of_volume, to_image
from xaitools.data.volumes import Volume
from xaitools.errors import DataError


def test_proportions_are_kept_and_the_rest_is_black():
    image = resize(np.ones((40, 40), dtype=np.float32), (1.0, 2.0), 20)[0]
    assert image.shape == (20, 20)
    assert (image[5:15] == 1).all()
    assert (image[:5] == 0).all()
    assert (image[15:] == 0).all()


def test_resizing_does_not_alias():
    stripes = np.tile([0.0, 1.0, 1.0, 0.0], (64, 16)).astype(np.float32)
    assert np.abs(resize(stripes, (1, 1), 16).numpy()[0, :, 1:-1] - 0.5).max() < 0.1


def test_a_pixel_keeps_its_place():
    image = np.zeros((64, 64), dtype=np.float32)
    image[8:16, 40:48] = 1
    small = resize(image, (1, 1), 16)[0].numpy()
    assert small[2:4, 10:12].min() > 0.7
    np.testing.assert_allclose(small.sum(), 4, rtol=0.05)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (-1000.0, "constant"), (40.0, "constant")])
def test_a_slice_without_an_image_is_named(value, message):
    ct_slice = CtSlice(np.full((8, 8), value, dtype=np.float32), (1, 1), lambda array: array)
    with pytest.raises(DataError, match=f"scan.dcm.*{message}"):
        to_image(ct_slice, Path("scan.dcm"), (60, 400), 8)


VOXELS = np.arange(5 * 6 * 7, dtype=np.float32).reshape(
    5, 6, 7
)  # x to the left, y to the back, z to the head
LPS = Grid((5, 6, 7), np.diag([-1.0, -2, 3, 1]))


def test_the_fraction_counts_from_the_feet():
    for fraction, k in ((0, 0), (0.5, 3), (1, 6)):
        shown = slice_of_volume(Volume(VOXELS, LPS), fraction, Path("a.nii"))
        np.testing.assert_array_equal(shown.hu, VOXELS[:, :, k].T)
        assert shown.spacing == (2, 1)


def test_a_volume_is_shown_with_the_front_up_however_it_is_stored():
    for axes in ("RAS", "PSR", "IAL"):
        shown = slice_of_volume(Volume(VOXELS, LPS).turned(axes), 0, Path("a.nii"))
        np.testing.assert_array_equal(shown.hu, VOXELS[:, :, 0].T)


def test_a_single_slice_that_is_not_axial_is_named():
    with pytest.raises(DataError, match=r"a\.nii: a single slice that is not axial"):
        slice_of_volume(Volume(VOXELS[:1], Grid((1, 6, 7), LPS.affine)), 0.5, Path("a.nii"))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSR"])
def test_a_slice_is_found_by_its_place(axes):
    volume = Volume(VOXELS, LPS).turned(axes)
    for k in range(7):
        affine = np.diag([-1.0, -2, 1, 1])
        affine[2, 3] = 3 * k
        place = Grid((5, 6, 1), affine)
        np.testing.assert_array_equal(slice_at(volume, place), VOXELS[:, :, k].T)
        for moved in ([0.5, 0, 0], [0, 0, 1], [0, 0, 30]):
            affine = place.affine.copy()
            affine[:3, 3] += moved
            assert slice_at(volume, Grid((5, 6, 1), affine)) is None
    tilted = np.diag([-1.0, -2, 1, 1])
    tilted[2, 1] = 0.5
    assert slice_at(volume, Grid((5, 6, 1), tilted)) is None
