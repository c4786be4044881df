import subprocess
import sys

import nibabel
import numpy as np
import pytest

from xaitools.data.grids import Grid, centered_grid, mni_grid
from xaitools.errors import ParameterError, ShapeError


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [(1, (181, 217, 181)), (2, (91, 109, 91)), (3, (61, 73, 61)), (4, (46, 55, 46)), (8, (23, 28, 23))],
)
def test_mni_grids_are_the_usual_ones_and_symmetric(spacing, shape):
    grid = mni_grid(spacing)
    assert grid.shape == shape
    assert grid.affine[0, 3] == -(grid.affine @ [shape[0] - 1, 0, 0, 1])[0]
    assert grid.affine[1:3, 3].tolist() == [-126, -72]
    np.testing.assert_allclose(grid.spacing, spacing)


@pytest.mark.parametrize("spacing", [0, -1, float("nan")])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(ParameterError, match="spacing"):
        mni_grid(spacing)


def test_a_centered_grid_has_its_middle_at_0():
    grid = centered_grid((5, 6, 7), 2)
    np.testing.assert_allclose(grid.affine @ [2, 2.5, 3, 1], [0, 0, 0, 1])


@pytest.mark.parametrize("spacing", [1.0, 3.0, 5.0])
def test_a_respaced_grid_fills_the_same_box(spacing):
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [2, 2, 3], [5, 6, 7]
    grid = Grid((30, 30, 20), affine)
    new = grid.respaced(spacing)
    assert new.shape == (60 / spacing,) * 3
    corners = [np.array([-0.5, -0.5, -0.5, 1]), np.array([*(np.array(grid.shape) - 0.5), 1])]
    for corner, same in zip(corners, [corners[0], np.array([*(np.array(new.shape) - 0.5), 1])], strict=True):
        np.testing.assert_allclose(grid.affine @ corner, new.affine @ same, atol=1e-9)


AFFINE = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("row", "column", "change", "same"),
    [
        (0, 3, 0.009, True),  # mm, of all voxels
        (2, 3, 0.011, False),
        (0, 0, 0.00009, True),  # mm a voxel, 90 voxels away
        (0, 0, 0.00012, False),
        (1, 0, 0.00009, True),
        (1, 0, 0.00012, False),
    ],
)
def test_grids_are_the_same_if_their_corners_are_within_a_hundredth_of_a_millimetre(
    row, column, change, same
):
    moved = AFFINE.copy()
    moved[row, column] += change
    first, second = Grid((91, 109, 91), AFFINE), Grid((91, 109, 91), moved)
    assert first.same_as(second) == second.same_as(first) == same


def test_a_grid_that_is_turned_about_its_diagonal_is_another():
    """The first and the last voxel stay where they are."""
    turned = AFFINE.copy()
    turned[0, :2] += [0.01, -0.01]
    grid = Grid((91, 91, 91), AFFINE)
    np.testing.assert_allclose(turned @ [90, 90, 90, 1], AFFINE @ [90, 90, 90, 1])
    assert not grid.same_as(Grid((91, 91, 91), turned))
    assert not grid.same_as(Grid((91, 91, 92), AFFINE))


def test_grids_survive_the_float32_of_a_header():
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * 0.9375, [117.123456789, -98.7654321, 133.33333333]
    assert Grid((256, 256, 180), affine).same_as(Grid((256, 256, 180), affine.astype(np.float32)))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR", "ILA"])
def test_a_turned_grid_has_its_voxels_at_the_same_places(axes):
    stored = np.array([[0, 0, 2.0, -90], [-3, 0, 0, 120], [0, 4, 0, -100], [0, 0, 0, 1]])
    grid = Grid((5, 6, 7), stored)
    turned = grid.turned(axes)
    assert "".join(nibabel.aff2axcodes(turned.affine)) == axes
    ends = [
        (one.affine @ [*(np.array(one.shape) - 1) * corner, 1])[:3]
        for one in (grid, turned)
        for corner in (0, 1)
    ]
    np.testing.assert_allclose(np.sort(ends[:2], axis=0), np.sort(ends[2:], axis=0))


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_affines_that_cannot_be_are_refused(affine):
    with pytest.raises(ShapeError, match="expected an invertible 4 x 4 matrix"):
        Grid((2, 2, 2), affine)
    with pytest.raises(ShapeError, match="expected three axes"):
        Grid((2, 2), np.eye(4))


def test_the_grids_module_loads_no_torch():
    check = "import sys, xaitools.data.grids; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
