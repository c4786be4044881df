import numpy as np
import pytest
import torch

from xaitools.checks import (
    check_choice,
    check_counts,
    check_positive,
    check_within,
    checked_contrast,
    checked_images,
    checked_options,
    checked_target,
)
from xaitools.errors import DataError, MethodError, ParameterError, ShapeError, TargetError


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (1, 3, 4, 5, 6)])
def test_slices_and_volumes_pass_as_they_are(shape) -> None:
    images = torch.rand(shape)
    assert checked_images(images).data_ptr() == images.data_ptr()
    array = np.asfortranarray(np.random.default_rng(0).random(shape))
    assert torch.equal(checked_images(array), torch.from_numpy(array))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([["a"]], DataError, "scans are of type list; expected a tensor or an array"),
        ("scan.png", DataError, "scans are of type str; expected a tensor or an array"),
        ([torch.rand(1, 4, 5), torch.rand(1, 5, 4)], ShapeError, "a list of images of different shapes"),
        (torch.rand(4, 5), ShapeError, r"scans of shape \(4, 5\); expected .*images\[None\]"),
        (torch.rand(0, 1, 4, 5), ShapeError, "at least one image"),
        (torch.rand(1, 0, 4, 5), ShapeError, "at least one image"),
        (torch.zeros(1, 1, 4, 5, dtype=torch.uint8), DataError, r"scans are torch.uint8; .*\.float\(\)"),
        (np.full((2, 1, 4, 5), np.nan), DataError, "number 0 of the batch contains NaN"),
        (torch.full((1, 1, 4, 5), torch.inf), DataError, "number 0 of the batch contains NaN or infinity"),
    ],
)
def test_other_images_are_refused(images, error, message) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        checked_images(images, name="scans")


def test_contrast_is_asked_for_with_the_reason() -> None:
    images = torch.rand(3, 1, 4, 5)
    checked_contrast(images, "noise follows it")
    images[1] = 0.25
    with pytest.raises(DataError, match=r"number 1 of the batch is constant; .* since noise follows it"):
        checked_contrast(images, "noise follows it")


@pytest.mark.parametrize(
    "target",
    [2, np.int64(2), [2, 2], (2, 2), np.array([2, 2], np.uint8), torch.tensor(2), torch.tensor([2, 2])],
)
def test_targets_of_any_whole_type(target) -> None:
    found = checked_target(target, 2)
    assert found.dtype == torch.int64
    assert found.tolist() == [2, 2]


def test_no_target_stays_none() -> None:
    assert checked_target(None, 3) is None


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (1.0, TargetError, "expected whole numbers"),
        (True, TargetError, "of type torch.bool"),
        (torch.tensor([0.0, 1.0]), TargetError, r"convert it with .long\(\)"),
        ("class", TargetError, "target='class'; expected a class"),
        ([0, 1, 2], ShapeError, r"shape \(3,\) for 2 images"),
        (torch.tensor([[0, 1]]), ShapeError, r"shape \(1, 2\) for 2 images"),
    ],
)
def test_other_targets_are_refused(target, error, message) -> None:
    with pytest.raises(error, match=message):
        checked_target(target, 2)


@pytest.mark.parametrize("outside", [-1, 3])
def test_classes_lie_among_the_outputs(outside) -> None:
    check_within(torch.tensor([0, 2]), 3)
    with pytest.raises(TargetError, match=f"target {outside} with a network of 3 outputs; expected 0 to 2"):
        check_within(torch.tensor([0, outside]), 3)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3"])
def test_counts(value) -> None:
    check_counts(steps=1, draws=np.int64(4))
    with pytest.raises(MethodError, match=r"draws=.*; expected a whole number of 1 or more"):
        check_counts(error=MethodError, steps=1, draws=value)


@pytest.mark.parametrize("value", [0, -0.5, float("inf"), float("nan"), "1"])
def test_positive_numbers(value) -> None:
    check_positive(level=0.1, size=np.float32(3))
    with pytest.raises(ParameterError, match=r"level=.*; expected a number above 0"):
        check_positive(level=value)


def test_choices_list_what_is_known() -> None:
    check_choice(mode=("add", ["add", "replace"]))
    with pytest.raises(
        ParameterError, match=r"mode='repalce' is unknown; expected one of add, replace\. Did you"
    ):
        check_choice(mode=("repalce", ["add", "replace"]))


def test_options_list_what_is_taken() -> None:
    checked_options(["low"], ["low", "high"], "deep_taylor")
    with pytest.raises(MethodError, match="deep_taylor takes no option 'lo'; it takes low, high"):
        checked_options(["lo"], ["low", "high"], "deep_taylor")
    with pytest.raises(MethodError, match="gradient takes no option 'lo'; it takes none"):
        checked_options(["lo"], [], "gradient")
