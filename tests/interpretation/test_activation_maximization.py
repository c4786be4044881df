"""The image that a unit likes best."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from xaitools.errors import MethodError, ParameterError, TargetError, UnsupportedModelError
from xaitools.interpretation import activation_maximization
from xaitools.interpretation.activation_maximization import _blurred, _variation

PLAIN = {"total_variation": 0.0, "jitter": 0, "blur": 0.0, "bounds": (-np.inf, np.inf), "progress": False}
IMAGES = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def linear(n_outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, n_outputs))


def cnn(n_axes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d), (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d)
    )[n_axes - 2]  # fmt: skip
    return nn.Sequential(
        conv(1, 4, 3, padding=1), norm(4), nn.ReLU(inplace=True), pool(1), nn.Flatten(), nn.Linear(4, 2)
    )


@pytest.mark.parametrize("start", ["noise", "mean"])
def test_closed_form_of_a_linear_network_under_an_l2_penalty(start: str) -> None:
    model, l2 = linear(), 0.7
    found = activation_maximization(
        model, IMAGES, [0, 2], start=start, l2=l2, steps=120, learning_rate=0.3, **PLAIN
    )
    weights = model[1].weight.detach().double().view(3, 1, 6, 6)[[0, 2]]
    spread = (IMAGES.double().flatten(1) @ weights.flatten(1).T).std(0, correction=0).view(2, 1, 1, 1)
    variance = IMAGES.double().var(correction=0)
    # the gradient w / spread - 2 l2 (x - mean) / (36 variance) is 0
    expected = IMAGES.double().mean(0) + weights * 36 * variance / (2 * l2 * spread)
    torch.testing.assert_close(found.images.double(), expected, rtol=0, atol=0.02 * float(expected.std()))


def test_activations_are_those_of_the_network() -> None:
    model = cnn().eval()
    found = activation_maximization(model, IMAGES, 1, steps=20, progress=False)
    with torch.no_grad():
        real, own = model(IMAGES)[:, 1], model(found.images)[0, 1]
    expected = (own - real.mean()) / real.std(correction=0)
    assert found.history.activation.iloc[-1] == pytest.approx(float(expected), abs=1e-4)
    strongest = (real.max() - real.mean()) / real.std(correction=0)
    assert found.strongest == pytest.approx([float(strongest)], abs=1e-4)
    assert found.history.activation.iloc[-1] > found.strongest[0]
    assert found.history.step.tolist() == [0, 8, 16, 20]


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize("layer", [None, "0", "2", "3"])
def test_two_and_three_axes_units_of_any_layer_within_bounds(n_axes: int, layer: str | None) -> None:
    images = torch.rand(4, 1, *[6] * n_axes, generator=torch.Generator().manual_seed(0)) * 0.8
    found = activation_maximization(cnn(n_axes), images, (0, 1), layer=layer, steps=10, progress=False)
    assert found.images.shape == (2, *images.shape[1:])
    assert images.min() <= found.images.min()
    assert found.images.max() <= images.max()
    first, last = (found.history[found.history.step == step].activation.to_numpy() for step in (0, 10))
    assert (
        last >= first
    ).all()  # a channel that is off everywhere, as the first is behind the ReLU, gives no gradient
    assert last[1] > first[1]


def test_units_at_once_are_units_alone_and_the_seed_decides() -> None:
    options = {"steps": 8, "start": "mean", "jitter": 0, "progress": False}
    model = cnn()
    both = activation_maximization(model, IMAGES, [0, 1], **options)
    alone = activation_maximization(model, IMAGES, np.int64(1), **options)
    torch.testing.assert_close(both.images[1], alone.images[0])
    one, same, other = (
        activation_maximization(model, IMAGES, steps=5, seed=seed, progress=False) for seed in (1, 1, 2)
    )
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_regularisers_do_what_they_are_for() -> None:
    model = cnn()
    options = {**PLAIN, "l2": 0.0, "steps": 40, "bounds": None}
    free = activation_maximization(model, IMAGES, **options).images
    smooth = activation_maximization(model, IMAGES, **{**options, "total_variation": 5.0}).images
    blurred = activation_maximization(model, IMAGES, **{**options, "blur": 1.0}).images
    tight = activation_maximization(model, IMAGES, **{**options, "l2": 50.0}).images
    assert _variation(smooth) < 0.8 * _variation(free)
    assert _variation(blurred) < 0.8 * _variation(free)
    assert (tight - IMAGES.mean(0)).norm() < 0.5 * (free - IMAGES.mean(0)).norm()


def test_the_blur_is_a_gaussian() -> None:
    image = np.random.default_rng(0).random((7, 8, 9)).astype(np.float32)
    expected = gaussian_filter(image, 1.3, mode="nearest", radius=4)
    found = _blurred(torch.from_numpy(image)[None, None], 1.3)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model = cnn().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    activation_maximization(model, IMAGES, steps=2, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_progress_is_told_and_may_stop() -> None:
    calls = []
    activation_maximization(cnn(), IMAGES, steps=3, progress=lambda done, total: calls.append((done, total)))
    assert (3, 3) in calls


def test_refusals() -> None:
    model = cnn()
    with pytest.raises(TargetError, match="unit 2 with 2 outputs of Sequential; expected 0 to 1"):
        activation_maximization(model, IMAGES, 2)
    with pytest.raises(TargetError, match="unit 4 with 4 channels of 0"):
        activation_maximization(model, IMAGES, 4, layer="0")
    with pytest.raises(MethodError, match="layer='conv' is unknown"):
        activation_maximization(model, IMAGES, layer="conv")
    with pytest.raises(ParameterError, match="start='black' is unknown; expected one of noise, mean"):
        activation_maximization(model, IMAGES, start="black")
    with pytest.raises(ParameterError, match="bounds="):
        activation_maximization(model, IMAGES, bounds=(1, 0))
    with pytest.raises(ParameterError, match="l2=-1"):
        activation_maximization(model, IMAGES, l2=-1)

    class Detached(nn.Module):
        def forward(self, images):
            return images.detach().flatten(1)

    with pytest.raises(UnsupportedModelError, match="does not depend on the image"):
        activation_maximization(Detached(), IMAGES)
