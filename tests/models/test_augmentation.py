import pytest
import torch

from xaitools.models import AUGMENTATIONS, flip_and_shift, sagittal_flip_and_coronal_shift
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
