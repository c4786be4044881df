import torch

from xaitools.data import Samples
from xaitools.study import sets_table

NAMES = ("sub-1", "sub-2_img-1", "sub-2_img-2")
SUBJECTS = ("sub-1", "sub-2", "sub-2")


def test_classes_are_counted():
    part = Samples(
        torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]), SUBJECTS, NAMES, class_names=("no", "yes")
    )
    table = sets_table({"training": part, "test": part[:1]}, images="slices", subjects="patients")
    assert table.to_dict("index") == {
        "training": {"slices": 3, "patients": 2, "no": 1, "yes": 2},
        "test": {"slices": 1, "patients": 1, "no": 1, "yes": 0},
    }


def test_measurements_are_given_as_a_range():
    labels = torch.tensor([100.4, 300.0, 200.0])
    part = Samples(
        torch.zeros(3, 1, 2, 2), labels, SUBJECTS, NAMES, unit="px", numbers={"size (mm)": labels / 10}
    )
    table = sets_table({"test": part}, quantity="length", ranges=["size (mm)"])
    assert table.to_dict("index") == {
        "test": {"images": 3, "subjects": 2, "length (px)": "100 to 300", "size (mm)": "10 to 30"}
    }
