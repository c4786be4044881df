import numpy as np
import pytest
import torch

from xaitools.errors import MethodError, ParameterError
from xaitools.study import check_methods, coarser, coarser_affine, coronal, sagittal

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = [-3, -10, -4]
VOLUME = np.arange(4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5)


def test_a_coronal_slice_has_the_head_up_and_left_on_the_left():
    found = coronal(VOLUME, AFFINE, y=-6.2)  # nearest to the voxel at -6 mm
    expected = np.array([[VOLUME[x, 2, z] for x in range(4)] for z in range(4, -1, -1)])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(coronal(VOLUME, AFFINE), np.flipud(VOLUME[:, 3].T))


def test_a_sagittal_slice_has_the_head_up_and_the_nose_on_the_right():
    found = sagittal(VOLUME, AFFINE, x=0.8)  # nearest to the voxel at 1 mm
    expected = np.array([[VOLUME[2, y, z] for y in range(6)] for z in range(4, -1, -1)])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(sagittal(VOLUME, AFFINE), expected)


def test_many_volumes_are_cut_at_once():
    stack = torch.from_numpy(np.stack([VOLUME, -VOLUME]))
    np.testing.assert_array_equal(coronal(stack, AFFINE, -6.0)[1], -coronal(VOLUME, AFFINE, -6.0))


def test_coarser_voxels_are_means_and_lie_where_they_lay():
    found = coarser(VOLUME, 2)
    assert found.shape == (1, 1, 2, 3, 2)
    assert float(found[0, 0, 1, 2, 0]) == VOLUME[2:4, 4:6, 0:2].mean()
    centre = AFFINE @ [2.5, 4.5, 0.5, 1]
    np.testing.assert_allclose(coarser_affine(AFFINE, 2) @ [1, 2, 0, 1], centre)


def test_one_voxel_a_step_changes_nothing():
    np.testing.assert_array_equal(coarser(VOLUME, 1)[0, 0], VOLUME)
    np.testing.assert_array_equal(coarser_affine(AFFINE, 1), AFFINE)


def test_methods_have_to_fit():
    check_methods(["gradient", "occlusion[4]", "occlusion[4:2]+absolute"], (4, 6, 5))
    with pytest.raises(
        ParameterError, match=r"occlusion\[5:2\]: a window of 5 voxels .* larger than an image of \(4, 6, 5\)"
    ):
        check_methods(["occlusion[5:2]"], (4, 6, 5))
    with pytest.raises(ParameterError, match="methods is empty"):
        check_methods([], (4, 6, 5))
    with pytest.raises(MethodError, match="Unknown method"):
        check_methods(["gradcam"], (4, 6, 5))
