"""The autoencoder: what it learns, that it is no better than it says, and how a classifier starts from it."""

import pytest
import torch
from torch import nn

from xaitools.data import Samples
from xaitools.errors import DataError, ParameterError, UnsupportedModelError, WeightsError
from xaitools.models import Autoencoder, Pretrained, build_network, fit, pretrain_autoencoder
from xaitools.models.autoencoder import mean_image_error
from xaitools.models.head_cnn import head_cnn_small


def blobs(n, seed=0, size=22):
    """Volumes of one ball each, in the middle, of random brightness."""
    brightness = torch.rand(n, 1, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    place = torch.stack(torch.meshgrid(*3 * [torch.arange(float(size))], indexing="ij"))
    return brightness * torch.exp(-((place - 11) ** 2).sum(0) / 100)


SETTINGS = {
    "max_epochs": 12,
    "patience": 12,
    "batch_size": 2,
    "learning_rate": 5e-3,
    "device": "cpu",
    "progress": False,
}


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrain_autoencoder("head_cnn_small", blobs(8), blobs(4, 1), **SETTINGS)


def test_it_learns_more_than_the_mean_image(pretrained):
    assert pretrained.error < 0.8 * pretrained.mean_image_error
    assert pretrained.explained == pytest.approx(1 - pretrained.error / pretrained.mean_image_error)
    assert pretrained.error == pytest.approx(min(pretrained.history.val_loss), rel=1e-4)
    mean = blobs(8).double().mean(0)
    assert pretrained.mean_image_error == pytest.approx(float((blobs(4, 1).double() - mean).square().mean()))


def test_the_next_call_takes_it_from_the_cache(pretrained):
    again = pretrain_autoencoder("head_cnn_small", blobs(8), blobs(4, 1), **SETTINGS)
    assert again.cached
    assert not pretrained.cached
    assert again.history == pretrained.history
    assert again.error == pytest.approx(pretrained.error)
    assert all(torch.equal(again.encoder[name], value) for name, value in pretrained.encoder.items())


def test_an_untrained_one_is_no_better_than_the_mean_image_and_says_so():
    settings = {**SETTINGS, "max_epochs": 1, "learning_rate": 1e-12}
    found = pretrain_autoencoder("head_cnn_small", blobs(4), blobs(4, 1), **settings)
    assert found.explained == pytest.approx(0, abs=1e-3)


def test_reconstructions_have_the_size_of_the_images_and_the_code_is_smaller():
    for size in ((22, 23, 25), (24, 31, 22)):
        images = torch.rand(2, 1, *size)
        model = Autoencoder(head_cnn_small().features, images.mean(0)).eval()
        with torch.no_grad():
            back = model.reconstruct(images)
            assert back.shape == images.shape
            torch.testing.assert_close(model(images)[:, 0], (back - images).square().mean((1, 2, 3, 4)))
            pooled = nn.functional.max_pool3d(model.features(images), 2)
        assert pooled[0].numel() < images[0].numel() / 4


def test_a_classifier_starts_from_its_encoder(pretrained):
    images = blobs(8)
    names = tuple(f"sub-{i:03d}" for i in range(8))
    samples = Samples(images.clamp(0, 1), torch.arange(8) % 2, names, names, ("a", "b"))
    settings = {"max_epochs": 1, "learning_rate": 1e-12, "augment": "", "device": "cpu", "progress": False}
    net, _, cached = fit("head_cnn_small", samples, samples, start=pretrained.encoder, **settings)
    fresh, _, fresh_cached = fit("head_cnn_small", samples, samples, **settings)
    assert not cached
    assert not fresh_cached
    kernel = pretrained.encoder["features.0.weight"]
    torch.testing.assert_close(net.features[0].weight.detach(), kernel)
    assert not torch.allclose(fresh.features[0].weight, kernel)
    torch.testing.assert_close(net.classifier[3].weight, fresh.classifier[3].weight)
    assert fit("head_cnn_small", samples, samples, start=pretrained.encoder, **settings)[2]
    with pytest.raises(
        WeightsError, match=r"start has 'features.0.weight', which head_cnn lacks or has in another"
    ):
        fit("head_cnn", samples, samples, start=pretrained.encoder, **settings)


def test_what_it_cannot_do():
    with pytest.raises(UnsupportedModelError, match="eitel_cnn_small has no 'features'"):
        pretrain_autoencoder("eitel_cnn_small", blobs(2), blobs(2), **SETTINGS)
    with pytest.raises(UnsupportedModelError, match="vgg8 has no 'features' made of 3D convolutions"):
        pretrain_autoencoder("vgg8", blobs(2), blobs(2), **SETTINGS)
    with pytest.raises(DataError, match="the validation set is empty"):
        pretrain_autoencoder("head_cnn_small", blobs(2), blobs(0), **SETTINGS)
    with pytest.raises(ParameterError, match="loss='huber'; an autoencoder has the mean squared error"):
        pretrain_autoencoder("head_cnn_small", blobs(2), blobs(2), loss="huber", **SETTINGS)
    with pytest.raises(DataError, match="all images are the same"):
        mean_image_error(torch.ones(1, 2, 2, 2), torch.ones(3, 1, 2, 2, 2))


def test_its_seed_fixes_all_and_the_global_state_stays():
    before = torch.get_rng_state()
    settings = {**SETTINGS, "max_epochs": 1, "seed": 5}
    first = pretrain_autoencoder("head_cnn_small", blobs(4), blobs(2), **settings)
    assert torch.equal(torch.get_rng_state(), before)
    start = build_network("head_cnn_small", input_size=(22, 22, 22), seed=5).features[0].weight
    assert not torch.equal(first.encoder["features.0.weight"], start)
    torch.testing.assert_close(first.encoder["features.0.weight"], start.detach(), atol=0.02, rtol=0)
