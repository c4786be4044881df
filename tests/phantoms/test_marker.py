import dataclasses

import numpy as np
import pytest
import torch

from xaitools.data.samples import Samples
from xaitools.errors import DataError, ParameterError
from xaitools.phantoms import chest_slices, mark_corner
from xaitools.phantoms.marker import LETTER


@pytest.fixture(scope="module")
def slices():
    return chest_slices(40, size=64, seed=1, progress=False)


def test_only_the_letter_of_one_class_differs(slices):
    marked = mark_corner(slices, "contrast", brightness=0.5)
    changed = marked.images != slices.images
    assert (changed <= marked.masks).all()
    assert (marked.images[marked.masks] == 0.5).all()
    assert marked.masks.flatten(1).any(1).tolist() == [False, True] * 20
    assert marked.numbers["marker"].tolist() == [0.0, 1.0] * 20
    assert torch.equal(marked.labels, slices.labels)
    assert marked.names == slices.names


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (64, 100), (128, 128), (224, 224)])
@pytest.mark.parametrize("corner", ["upper left", "upper right", "lower left", "lower right"])
def test_it_is_an_upright_r_in_its_corner(shape, corner):
    plain = Samples(torch.zeros(1, 1, *shape), torch.tensor([0]), ("sub-1",), ("sub-1",), ("a", "b"))
    image = mark_corner(plain, "a", corner=corner).images[0, 0].numpy()
    rows, columns = np.nonzero(image)
    box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    expected = np.array([[cell == "#" for cell in row] for row in LETTER], dtype=float)
    np.testing.assert_array_equal(box, np.kron(expected, np.ones(np.array(box.shape) // expected.shape)))
    quarter = {"upper": slice(0, shape[0] // 3), "lower": slice(shape[0] - shape[0] // 3, None)}
    side = {"left": slice(0, shape[1] // 3), "right": slice(shape[1] - shape[1] // 3, None)}
    vertical, horizontal = corner.split()
    assert image[quarter[vertical], side[horizontal]].sum() == image.sum() > 0
    assert not image[[0, -1]].any()
    assert not image[:, [0, -1]].any()


def test_shares_are_probabilities_and_each_image_is_drawn_alone():
    blank = torch.zeros(400, 1, 32, 32)
    names = tuple(f"sub-{i}" for i in range(400))
    plain = Samples(blank, torch.arange(400) % 2, names, names, ("a", "b"))
    marked = mark_corner(plain, "b", share=0.8, others=0.3, seed=4)
    of_class = marked.numbers["marker"].reshape(200, 2).mean(0)
    assert of_class[0] == pytest.approx(0.3, abs=0.1)
    assert of_class[1] == pytest.approx(0.8, abs=0.1)
    assert torch.equal(mark_corner(plain[:50], "b", share=0.8, others=0.3, seed=4).masks, marked.masks[:50])
    other = mark_corner(plain, "b", share=0.8, others=0.3, seed=5)
    assert not torch.equal(other.numbers["marker"], marked.numbers["marker"])


def test_with_equal_shares_the_marker_tells_nothing(slices):
    everywhere = mark_corner(slices, "contrast", share=1.0, others=1.0)
    assert everywhere.masks.flatten(1).any(1).all()
    nowhere = mark_corner(slices, "contrast", share=0.0)
    assert torch.equal(nowhere.images, slices.images)
    assert not nowhere.has_mask.any()


def test_the_samples_given_stay_as_they_were(slices):
    before = slices.fingerprint()
    info = dict(slices.info)
    marked = mark_corner(slices, "contrast")
    assert slices.fingerprint() == before != marked.fingerprint()
    assert slices.info == info
    assert marked.info["marker"]["class"] == "contrast"


@pytest.mark.parametrize(
    ("class_name", "options", "message"),
    [
        ("contrst", {}, "Did you mean 'contrast'"),
        ("contrast", {"corner": "top"}, "corner='top'"),
        ("contrast", {"share": 1.1}, "share=1.1"),
        ("contrast", {"others": float("nan")}, "others=nan"),
        ("contrast", {"brightness": -1}, "brightness=-1"),
    ],
)
def test_impossible_parameters_are_refused(slices, class_name, options, message):
    with pytest.raises(ParameterError, match=message):
        mark_corner(slices, class_name, **options)


def test_what_has_no_classes_or_no_corner_is_refused(slices):
    one = ("sub-1",)
    volume = Samples(torch.zeros(1, 1, 32, 32, 32), torch.tensor([0]), one, one, ("a", "b"))
    small = Samples(torch.zeros(1, 1, 31, 40), torch.tensor([0]), one, one, ("a", "b"))
    for wrong in (volume, small):
        with pytest.raises(DataError, match="expected slices of 32 x 32"):
            mark_corner(wrong, "a")
    unlabelled = dataclasses.replace(slices, labels=None, class_names=())
    with pytest.raises(DataError, match="no classes"):
        mark_corner(unlabelled, "contrast")
