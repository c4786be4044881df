import pytest
import torch

from xaitools.errors import ParameterError
from xaitools.models import AUGMENTATIONS, TrainingSettings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[(name, 0, "1 or more") for name in ("max_epochs", "patience", "batch_size", "copies")],
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("seed", -1, "0 or more"),
        ("weight_decay", -0.1, "0 or more"),
        ("weight_decay", float("nan"), "0 or more"),
        ("optimizer", "sgd", "one of adamw, adam"),
        ("precision", "half", "one of float32, bf16"),
        ("loss", "mae", "one of auto, cross_entropy, mean_absolute_error"),
        ("augment", "flip", "one of flip_and_shift, sagittal_flip, sagittal_flip_and_coronal_shift"),
    ],
)
def test_bad_options_are_named(name: str, value: object, expected: str) -> None:
    own = {name: value}
    with pytest.raises(ParameterError, match=f"^{name}={value!r}.*; expected .*{expected}"):
        TrainingSettings(**own)


def test_augmentation_by_name_by_function_or_none() -> None:
    images = torch.rand(6, 1, 8, 8, 8)

    def changed(augment: object) -> torch.Tensor:
        return TrainingSettings(augment=augment).augmented(images, torch.Generator().manual_seed(1))

    expected = AUGMENTATIONS["sagittal_flip"](images, torch.Generator().manual_seed(1))
    assert torch.equal(changed("sagittal_flip"), expected)
    assert torch.equal(changed(lambda batch, _: batch + 1), images + 1)
    assert changed("") is images


def test_two_trainings_differ_by_their_settings_but_for_the_number_of_epochs() -> None:
    own = TrainingSettings().identity
    assert own == TrainingSettings(max_epochs=3).identity
    assert own == TrainingSettings(augment=AUGMENTATIONS["flip_and_shift"]).identity
    changes = [
        {"seed": 1},
        {"patience": 3},
        {"stop_at": 0.1},
        {"augment": ""},
        {"copies": 2},
        {"loss": "huber"},
    ]
    assert all(TrainingSettings(**change).identity != own for change in changes)
