import json

import numpy as np
import pytest
import torch

from xaitools.data.samples import Samples, two_classes
from xaitools.data.subjects import study_names
from xaitools.errors import DataError, ParameterError, ShapeError


def make(**changes):
    subjects, names = study_names(["b", "a", "b", "c"])
    fields = {
        "images": torch.linspace(0, 1, 4 * 9).reshape(4, 1, 3, 3),
        "labels": torch.tensor([0, 1, 1, 0]),
        "subjects": subjects,
        "names": names,
        "class_names": ("no contrast", "contrast"),
        "masks": torch.arange(4 * 9).reshape(4, 1, 3, 3) % 2 == 0,
        "info": {"source": "test"},
    }
    return Samples(**(fields | changes))


def test_study_names_follow_sorted_order_and_number_the_images_of_a_subject():
    subjects, names = study_names(["zoe", "adam", "zoe"])
    assert subjects == ("sub-002", "sub-001", "sub-002")
    assert names == ("sub-002_img-1", "sub-001", "sub-002_img-2")


@pytest.mark.parametrize(
    ("index", "order"),
    [
        ([2, 0], [2, 0]),
        (np.array([2, 0]), [2, 0]),
        (torch.tensor([2, 0]), [2, 0]),
        (slice(None, None, -2), [3, 1]),
        ([True, False, True, False], [0, 2]),
        (torch.tensor([True, False, True, False]), [0, 2]),
    ],
)
def test_indexing_keeps_everything_aligned(index, order):
    samples = make()
    chosen = samples[index]
    assert torch.equal(chosen.images, samples.images[order])
    assert torch.equal(chosen.masks, samples.masks[order])
    assert chosen.labels.tolist() == [samples.labels[i] for i in order]
    assert chosen.names == tuple(samples.names[i] for i in order)
    assert chosen.subjects == tuple(samples.subjects[i] for i in order)


def test_fingerprint_is_that_of_the_contents():
    samples = make()
    assert samples.fingerprint() == make(info={}).fingerprint() == samples[:].fingerprint()
    changes = [
        {"images": samples.images * 0.5},
        {"labels": 1 - samples.labels},
        {"masks": ~samples.masks},
        {"masks": None},
    ]
    assert len({make(**change).fingerprint() for change in changes} | {samples.fingerprint()}) == 5


def test_has_mask_tells_the_samples_without_one():
    masks = make().masks.clone()
    masks[1] = False
    assert make(masks=masks).has_mask.tolist() == [True, False, True, True]
    assert not make(masks=None).has_mask.any()


def test_repr_is_one_short_line_and_info_is_json():
    assert repr(make()) == "Samples(4 images 1 x 3 x 3, 3 subjects, 2 'no contrast', 2 'contrast', 4 masks)"
    json.dumps(make().info)


def test_volumes_are_samples_too():
    volumes = make(images=torch.rand(4, 1, 2, 3, 4), masks=torch.ones(4, 1, 2, 3, 4, dtype=torch.bool))
    assert volumes[:1].images.shape == (1, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.full((4, 1, 3, 3), torch.nan)}, DataError, "sub-002_img-1.*nan"),
        ({"images": torch.full((4, 1, 3, 3), 1.5)}, DataError, "1.5"),
        ({"images": torch.zeros(4, 3, 3), "masks": None}, ShapeError, "4, 3, 3"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, DataError, "label 2"),
        ({"labels": torch.tensor([0, 1, -1, 0])}, DataError, "label -1"),
        ({"labels": torch.tensor([0, 1])}, ShapeError, "2 labels for 4 images"),
        ({"masks": torch.ones(4, 1, 3, 4, dtype=torch.bool)}, ShapeError, "3, 4"),
        ({"masks": torch.ones(3, 1, 3, 3, dtype=torch.bool)}, ShapeError, "masks of shape"),
        ({"names": ("sub-002", "sub-001", "sub-002", "sub-003")}, DataError, "'sub-002' appears 2 times"),
    ],
)
def test_bad_samples_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_a_subject_that_is_no_study_id_is_refused_without_showing_it():
    with pytest.raises(DataError, match="not a study id") as caught:
        make(subjects=("Doe^John",) * 4, names=tuple(f"Doe^John_{i}" for i in range(4)))
    assert "Doe" not in str(caught.value)


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="no samples"):
        make()[[]]


def measured(**changes):
    fields = {
        "labels": torch.tensor([1200.0, 1500.5, 900.0, 1000.0]),
        "class_names": (),
        "unit": "px",
        "numbers": {"pixel size (mm)": torch.tensor([0.1, 0.2, 0.3, 0.4])},
    }
    return make(**(fields | changes))


def test_a_regression_has_quantities_with_a_unit_and_no_classes():
    samples = measured()
    assert samples.is_regression
    assert not make().is_regression
    assert "900 to 1500 px" in repr(samples)
    chosen = samples[[2, 0]]
    assert chosen.labels.tolist() == [900.0, 1200.0]
    assert chosen.unit == "px"
    torch.testing.assert_close(chosen.numbers["pixel size (mm)"], torch.tensor([0.3, 0.1]))
    assert samples.fingerprint() != measured(numbers={}).fingerprint()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": torch.tensor([1.0, float("nan"), 2.0, 3.0])}, DataError, "sub-001 has the label nan"),
        ({"class_names": ("a", "b")}, DataError, "no class names for a regression"),
        ({"numbers": {"age": torch.zeros(3)}}, ShapeError, "numbers 'age' of shape"),
    ],
)
def test_wrong_quantities_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        measured(**changes)


def test_two_classes_are_the_negative_and_the_positive_one():
    assert two_classes(make()) == ("no contrast", "contrast")
    assert two_classes(make(class_names=("b", "a"))) == ("b", "a")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            measured(info={"label_column": "Age"}),
            "label_column='Age': a quantity, 900 to 1500 px; expected two classes. classes picks two"
            '.*"old": .*positive',
        ),
        (
            make(class_names=("CN", "AD", "MCI")),
            "^3 classes, 'CN', 'AD', 'MCI'; expected two.*\\{\"control\": \"CN\", \"patient\": .*\\}; the last is the",
        ),
        (make(labels=torch.zeros(4, dtype=torch.int64), class_names=("a",)), "1 classes, 'a'; expected two"),
    ],
)
def test_a_study_of_two_classes_refuses_others(samples, message):
    with pytest.raises(ParameterError, match=message):
        two_classes(samples)
