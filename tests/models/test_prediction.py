from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.models import accuracy, predict, predict_values


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def network(n_outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.9),
        nn.Linear(392, n_outputs),
    )


def test_predict_is_the_softmax_in_evaluation_mode(images: Tensor) -> None:
    model = network().train()
    probabilities = predict(model, images, batch_size=7)
    assert probabilities.dtype == torch.float32
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities, model.eval()(images).softmax(1).detach())
    probabilities.requires_grad_()


def test_arrays_are_taken(images: Tensor) -> None:
    assert torch.equal(predict(network(), np.flip(images.numpy(), -1)), predict(network(), images.flip(-1)))


@pytest.mark.parametrize("ask", [predict, predict_values])
def test_the_model_stays_as_it_is(ask: Callable, images: Tensor) -> None:
    model = network(n_outputs=1).train()
    model[1].eval()  # frozen, as for fine-tuning
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ask(model, images)
    with pytest.raises(RuntimeError):
        ask(model, images[:, :, :4, :4])
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_where_the_model_is_no_copy_is_made(device: object, images: Tensor) -> None:
    model, used = network(), []
    model.register_forward_pre_hook(lambda module, _: used.append(module))
    predict(model, images, device=device)
    assert used == [model]


def test_on_another_device_a_copy_is_used(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model, used = network(), []
    model.register_forward_pre_hook(lambda module, _: used.append(module))
    expected = predict(model, images)
    other = torch.device("cpu:0")  # the processor again, under another name
    monkeypatch.setattr("xaitools.models.prediction.resolve_device", lambda _: other)
    assert torch.equal(predict(model, images, device="other"), expected)
    assert used[0] is model
    assert used[1] is not model


def test_bad_calls_are_named(images: Tensor) -> None:
    with pytest.raises(DataError, match="no images to predict"):
        predict(network(), images[:0])
    with pytest.raises(ShapeError, match=r"outputs of shape \(40, 2, 7, 7\); expected \(40, n_outputs\)"):
        predict(nn.Conv2d(1, 2, 3, stride=2), images)
    with pytest.raises(ParameterError, match="batch_size=0; expected"):
        predict(network(), images, batch_size=0)


def test_accuracy_counts() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert accuracy(probabilities, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="no labels"):
        accuracy(probabilities[:0], torch.tensor([], dtype=torch.int64))
