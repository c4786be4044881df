import logging

import numpy as np
import pytest
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from scipy import ndimage

from xaitools.data.brain import load_brains
from xaitools.data.grids import Grid, mni_grid
from xaitools.data.mni import LEAST_LIKENESS, check_signal, likeness, warn_if_unregistered
from xaitools.data.resampling import resample
from xaitools.errors import DataFileError
from xaitools.phantoms import synthetic_brains


def template(load, grid):
    image = load(resolution=1)
    voxels = resample(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine), grid)
    return np.clip(voxels / voxels.max(), 0, 1)


GRID = mni_grid(4)


@pytest.fixture(scope="module")
def head():
    return template(load_mni152_template, GRID)


def shifted(voxels, mm, axis=1):
    return ndimage.shift(voxels, [mm / 4 if number == axis else 0 for number in range(3)], order=1)


def test_signal_in_half_of_the_brain_is_enough(head, tmp_path):
    check_signal(head, GRID, tmp_path)
    check_signal(shifted(head, 40), GRID, tmp_path)
    check_signal(head * (np.arange(head.shape[0]) <= 24)[:, None, None], GRID, tmp_path)
    for bad in (
        shifted(head, 300),
        shifted(head, 100),
        head * (np.arange(head.shape[0]) < 20)[:, None, None],
    ):
        with pytest.raises(
            DataFileError,
            match=r"a\.nii: signal in \d+% of the brain.*not in MNI space, or displaced: register it.*"
            r"space='centered'",
        ):
            check_signal(bad, GRID, tmp_path / "a.nii")


def test_a_few_very_bright_voxels_hide_no_signal(head, tmp_path):
    bright = head / 20
    bright[20:22, 2:4, 2:4] = 1
    check_signal(bright, GRID, tmp_path)


@pytest.mark.parametrize("spacing", [2, 3, 5, 8])
def test_every_contrast_in_mni_space_is_like_its_template(spacing):
    grid = mni_grid(spacing)
    head, grey, white = (
        template(load, grid)
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    for voxels in (grey, white, 0.2 + 0.1 * grey - 0.2 * white):
        assert likeness(voxels, grid) > 0.97
    assert likeness(head, grid) > 0.93
    assert likeness(head / 3, grid) == pytest.approx(likeness(head, grid))


def test_likeness_is_a_multiple_correlation(head):
    """By scikit-learn, on the averages of the cubes of one voxel that an 8 mm grid has."""
    from nilearn.datasets import load_mni152_brain_mask
    from sklearn.linear_model import LinearRegression

    grid = mni_grid(8)
    noisy = template(load_mni152_template, grid)
    noisy = np.clip(noisy + np.random.default_rng(0).normal(0, 0.1, grid.shape), 0, 1).astype(np.float32)
    brain = template(load_mni152_brain_mask, grid) > 0.5
    tissues = np.stack(
        [template(load, grid)[brain] for load in (load_mni152_gm_template, load_mni152_wm_template)], axis=1
    )
    squared = LinearRegression().fit(tissues, noisy[brain]).score(tissues, noisy[brain])
    assert likeness(noisy, grid) == pytest.approx(np.sqrt(squared), rel=1e-3)


def test_a_displaced_or_turned_head_is_unlike_the_template(head):
    assert likeness(shifted(head, 24), GRID) < LEAST_LIKENESS
    assert likeness(shifted(head, 24, axis=2), GRID) < LEAST_LIKENESS
    turned = ndimage.rotate(head, 30, axes=(1, 2), reshape=False, order=1)
    assert likeness(turned, GRID) < LEAST_LIKENESS
    assert likeness(np.ones_like(head), GRID) == 0
    small = GRID.resized((4, 4, 4))
    assert np.isnan(likeness(resample(head, GRID, small), small))


@pytest.mark.parametrize("modality", ["T1w", "grey-matter"])
@pytest.mark.parametrize("shape", [None, (20, 24, 20)])
def test_synthetic_brains_are_in_mni_space(modality, shape, tmp_path):
    brains = synthetic_brains(
        4, spacing=6, modality=modality, atrophy=0.6, shape=shape, seed=0, progress=False
    )
    grid = Grid(brains.shape, brains.affine)
    for position in range(4):
        voxels = brains.images[position, 0].numpy()
        check_signal(voxels, grid, tmp_path)
        assert likeness(voxels, grid) > 0.8


def test_one_warning_for_more_than_a_tenth(caplog):
    names = [f"sub-{number:03d}" for number in range(1, 21)]
    with caplog.at_level(logging.WARNING):
        warn_if_unregistered([0.2, 0.3] + [0.9] * 17 + [float("nan")], names)
        assert not caplog.records
        warn_if_unregistered([0.2, 0.3, 0.9, 0.9, 0.4, 0.1] + [0.9] * 14, names)
    assert len(caplog.records) == 1
    assert "4 of 20 volumes (sub-001, sub-002, sub-005, ...) do not look like brains in MNI" in caplog.text


def test_real_heads_as_they_came_from_the_scanner(real_data, caplog, tmp_path):
    def load(**arguments):
        return load_brains(
            real_data / "ixi",
            label_column="Sex",
            spacing=5,
            n_subjects=16,
            progress=False,
            cache_dir=tmp_path,
            **arguments,
        )

    for brain_mask in ("none", "dseg"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            volumes = load(space="mni", brain_mask=brain_mask)
        assert len(caplog.records) == 1
        assert "of 16 volumes (sub-001, sub-002, sub-003, ...) do not look like" in caplog.text
        assert max(item.measured() for item in volumes.images.items) < 0.5
    caplog.clear()
    load(space="mni")
    assert len(caplog.records) == 1
    load(space="centered")
    assert len(caplog.records) == 1
