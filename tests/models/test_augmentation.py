import numpy as np
import pytest
import torch
from scipy import ndimage

from xaitools.errors import ShapeError
from xaitools.models import (
    AUGMENTATIONS,
    flip_and_shift,
    rotation,
    rotation_and_scaling,
    sagittal_flip_and_coronal_shift,
)
from xaitools.models.augmentation import sagittal_flip


def changed(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return flip_and_shift(images, torch.Generator().manual_seed(seed))


def test_matches_a_loop_over_flips_and_shifts() -> None:
    images = torch.rand(12, 2, 32, 48)
    outcomes = {}
    for flip in (False, True):
        for down in range(-2, 3):
            for right in range(-3, 4):
                rows = [min(max(row + down, 0), 31) for row in range(32)]
                columns = [min(max(column + right, 0), 47) for column in range(48)]
                moved = images[:, :, rows][:, :, :, columns]
                if flip:
                    moved = images.flip(-1)[:, :, rows][:, :, :, columns]
                outcomes[flip, down, right] = moved
    found = []
    for index, image in enumerate(changed(images)):
        found.append([key for key, moved in outcomes.items() if torch.equal(moved[index], image)])
    assert all(found)
    assert len({keys[0] for keys in found}) > 6
    assert {keys[0][0] for keys in found} == {False, True}


def test_volumes_seeds_and_the_input_untouched() -> None:
    volumes = torch.rand(4, 1, 16, 17, 18)
    before = volumes.clone()
    assert changed(volumes).shape == volumes.shape
    assert torch.equal(changed(volumes), changed(volumes))
    assert not torch.equal(changed(volumes, seed=1), changed(volumes))
    assert torch.equal(volumes, before)


def test_brains_are_mirrored_left_to_right_and_shifted_front_to_back():
    brains = torch.rand(60, 2, 5, 7, 3)
    moved = sagittal_flip_and_coronal_shift(brains, torch.Generator().manual_seed(0))
    found = set()
    for before, after in zip(brains, moved, strict=True):
        for mirrored in (False, True):
            for shift in range(-2, 3):
                expected = before.flip(1) if mirrored else before
                expected = expected[:, :, (torch.arange(7) + shift).clamp(0, 6)]
                if torch.equal(expected, after):
                    found.add((mirrored, shift))
                    break
            else:
                continue
            break
        else:
            pytest.fail("a brain was changed in another way")
    assert found == {(mirrored, shift) for mirrored in (False, True) for shift in range(-2, 3)}


def test_brains_of_coarse_voxels_are_mirrored_only():
    brains = torch.rand(20, 2, 5, 7, 3)
    before = brains.clone()
    moved = AUGMENTATIONS["sagittal_flip"](brains, torch.Generator().manual_seed(0))
    same = [torch.equal(own, brain) for own, brain in zip(moved, brains, strict=True)]
    mirrored = [torch.equal(own, brain.flip(1)) for own, brain in zip(moved, brains, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)
    assert torch.equal(brains, before)
    assert torch.equal(sagittal_flip(brains, torch.Generator().manual_seed(0)), moved)


def turned(volume: np.ndarray, angles: np.ndarray, factor: float) -> np.ndarray:
    """The volume turned and resized about its middle, 0 beyond, by scipy in float64."""
    (ax, ay, az) = angles
    about_x = [[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]]
    about_y = [[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]]
    about_z = [[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]]
    pull = np.array(about_x) @ about_y @ about_z / factor
    middle = (np.array(volume.shape) - 1) / 2
    # an extra border, as grid_sample fades to 0 within the last voxel and scipy does not
    return ndimage.affine_transform(
        np.pad(volume, 1), pull, middle + 1 - pull @ middle, output_shape=volume.shape, order=1
    )


@pytest.mark.parametrize("name", ["rotation", "rotation_and_scaling"])
def test_heads_are_turned_and_resized_as_scipy_does(name):
    volumes = torch.rand(3, 2, 9, 12, 7)
    before = volumes.clone()
    found = AUGMENTATIONS[name](volumes, torch.Generator().manual_seed(3))
    draws = torch.Generator().manual_seed(3)
    angles = np.radians(15) * (2 * torch.rand(3, 3, generator=draws).numpy() - 1)
    factors = 0.85 + 0.3 * torch.rand(3, generator=draws).numpy() if "scaling" in name else np.ones(3)
    for i in range(3):
        for channel in range(2):
            expected = turned(volumes[i, channel].double().numpy(), angles[i], factors[i])
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=1e-5)
    assert torch.equal(volumes, before)
    assert torch.equal(found, AUGMENTATIONS[name](volumes, torch.Generator().manual_seed(3)))
    assert not torch.equal(found, AUGMENTATIONS[name](volumes, torch.Generator().manual_seed(4)))


def test_a_larger_factor_makes_a_larger_head():
    ball = (
        (torch.cartesian_prod(*3 * [torch.arange(-12.0, 13)]).norm(dim=1) < 8)
        .float()
        .reshape(1, 1, 25, 25, 25)
    )
    many = rotation_and_scaling(ball.repeat(40, 1, 1, 1, 1), torch.Generator().manual_seed(0))
    sizes = many.sum((1, 2, 3, 4)) / ball.sum()
    draws = torch.Generator().manual_seed(0)
    torch.rand(40, 3, generator=draws)
    expected = (0.85 + 0.3 * torch.rand(40, generator=draws)) ** 3
    torch.testing.assert_close(sizes, expected, rtol=0.03, atol=0)


def test_slices_are_not_turned():
    with pytest.raises(ShapeError, match=r"expected volumes.*choose the augmentation flip_and_shift"):
        rotation(torch.rand(2, 1, 8, 8), torch.Generator())
