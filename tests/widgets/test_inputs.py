import inspect

import nibabel as nib
import numpy as np
import pytest
import torch

from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError
from xaitools.widgets import Explorer, MaskEditor, SliceViewer, explore, load_masks
from xaitools.widgets.inputs import opened, opened_maps

AFFINE = np.array([[0, 0, -3.0, 9], [2.0, 0, 0, 5], [0, -1.0, 0, 2], [0, 0, 0, 1]])


@pytest.fixture
def volume(rng):
    return np.float32(rng.random((5, 6, 7)))


@pytest.fixture
def nifti(volume):
    return nib.Nifti1Image(volume, AFFINE)


@pytest.fixture
def path(nifti, tmp_path):
    nib.save(nifti, tmp_path / "brain.nii.gz")
    return tmp_path / "brain.nii.gz"


def sent(viewer):
    return viewer.layers, viewer.grid


@pytest.fixture
def expected(volume):
    return sent(SliceViewer(volume[None, None], {"map": volume[None, None]}, affine=AFFINE))


def test_volumes_come_as_images_paths_and_text_alike(volume, nifti, path, expected):
    for image in (nifti, path, str(path), [path], [nifti]):
        for values in (nifti, path, volume, volume[None], volume[None, None], torch.tensor(volume)):
            assert sent(SliceViewer(image, {"map": values})) == expected


def test_several_volumes_on_one_grid_make_one_viewer(volume, nifti, path):
    both = np.stack([volume, volume])[:, None]
    expected = sent(SliceViewer(both, {"map": both}, affine=AFFINE, masks=both > 0.5))
    maps, masks = {"map": [nifti, path]}, both[:, 0] > 0.5
    assert sent(SliceViewer([path, nifti], maps, masks=masks)) == expected
    moved = nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1]))
    with pytest.raises(ShapeError, match="volume 2 lies on another grid"):
        SliceViewer([path, moved], maps)
    with pytest.raises(ShapeError, match="one kind"):
        SliceViewer([path, volume], maps)


def test_labels_and_masks_can_be_files(volume, nifti, tmp_path):
    labels = np.int16(volume > 0.5)
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "labels.nii")
    viewer = SliceViewer(nifti, {"map": nifti}, labels=tmp_path / "labels.nii", masks=tmp_path / "labels.nii")
    other = SliceViewer(nifti, {"map": nifti}, labels=labels, masks=labels[None, None])
    assert viewer.layers == other.layers


def test_an_editor_takes_volumes_and_keeps_their_affine(volume, path, tmp_path):
    editor = MaskEditor(path, {"map": volume}, masks=volume > 0.5, names=["sub-001"])
    (saved,) = editor.save(tmp_path / "masks")
    np.testing.assert_allclose(nib.load(saved).affine, AFFINE)
    np.testing.assert_array_equal(load_masks(tmp_path / "masks")["sub-001"], volume > 0.5)


def test_maps_of_colour_images_are_added_up_over_channels(rng):
    images, maps = rng.random((2, 3, 5, 8)), rng.normal(size=(2, 3, 5, 8))
    summed = SliceViewer(images, {"map": maps.astype(np.float32).sum(axis=1, keepdims=True)})
    assert SliceViewer(images, {"map": maps}).layers == summed.layers
    with pytest.raises(ShapeError, match=r"map 'map' has shape \(2, 3, 5, 8\); expected .* \(2, 1, 5, 8\)\."):
        SliceViewer(images[:, :1], {"map": maps})


def test_half_precision_maps_are_shown(rng):
    images = torch.rand(1, 1, 5, 8)
    half = images.to(torch.bfloat16)
    assert SliceViewer(images, {"map": half}).layers == SliceViewer(images, {"map": half.float()}).layers


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"images": "brain.png"}, DataFileError, "brain.png.*NIfTI and MetaImage"),
        ({"images": "no/brain.nii"}, DataFileError, "no such file"),
        ({"images": [np.ones((1, 5, 8)), np.ones((1, 5, 7))]}, ShapeError, "several shapes"),
        ({"images": nib.Nifti1Image(np.ones((2, 2, 2, 3)), np.eye(4))}, ShapeError, "one volume"),
        ({"maps": {"a": "text"}}, DataFileError, "The map 'a'"),
        ({"maps": {"a": [np.ones(3), None]}}, (ParameterError, ShapeError), "The map 'a'"),
        ({"masks": np.full((1, 1, 5, 8), np.nan)}, DataError, "mask holds NaN"),
    ],
)
@pytest.mark.parametrize("widget", [SliceViewer, MaskEditor])
def test_what_cannot_be_shown_is_refused_in_our_words(given, error, message, widget):
    with pytest.raises(error, match=message):
        widget(**{"images": np.ones((1, 1, 5, 8)), **given})


def test_what_is_no_array_is_refused_in_our_words():
    for given in ({"a": 1}, None, object(), [{}]):
        with pytest.raises(
            ParameterError, match=r"The images came as .*; expected an array or tensor, a NIfTI"
        ):
            opened(given, "The images")
    with pytest.raises(ParameterError, match=r"The maps came as ndarray; expected \{method name: maps\}"):
        opened_maps(np.ones((1, 1, 5, 8)))


@pytest.mark.parametrize("public", [SliceViewer, MaskEditor, Explorer, explore, load_masks])
def test_signatures_can_be_read(public):
    for parameter in inspect.signature(public).parameters.values():
        annotation = parameter.annotation if parameter.annotation is not parameter.empty else ""
        assert len(inspect.formatannotation(annotation)) < 100, parameter
