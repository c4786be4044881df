import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.models import ResNet18_Weights, VGG16_Weights, resnet18, vgg16

from xaitools.errors import ParameterError, WeightsError
from xaitools.models import NETWORKS, build_network, imagenet_reachable
from xaitools.models.imagenet import imagenet_state


@pytest.mark.parametrize("name", [name for name in NETWORKS if "cnn" not in name])
@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 2, 64), (2, 5, 70)])
def test_any_channels_classes_and_size(name: str, channels: int, classes: int, size: int) -> None:
    model = build_network(name, in_channels=channels, n_outputs=classes).eval()
    assert model(torch.rand(2, channels, size, size + 2)).shape == (2, classes)


def test_seed_fixes_the_weights_and_leaves_the_global_state() -> None:
    state = torch.get_rng_state()
    one, same, other = (build_network("resnet10", seed=seed).fc.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_pretrained_start_answers_a_grey_image_as_its_rgb_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    published = resnet18()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **_: published.state_dict())
    grey = torch.rand(2, 1, 64, 64)
    expected = published.conv1(grey.expand(2, 3, 64, 64))
    for channels in (1, 2, 3):
        model = build_network("resnet18", in_channels=channels, pretrained=True)
        torch.testing.assert_close(model.conv1(grey.expand(2, channels, 64, 64)), expected)
        assert torch.equal(model.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    assert torch.equal(model.conv1.weight, published.conv1.weight)


def test_unreachable_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError, match=f"resnet18-.*pth.*{tmp_path}/hub/checkpoints by hand.*pretrained=False"
    ):
        build_network("resnet18", pretrained=True)


def test_a_damaged_download_is_not_used_but_fetched_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = b"published weights"
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    weights = SimpleNamespace(
        url=f"https://host/{name}", get_state_dict=lambda **_: {"of": torch.tensor([*path.read_bytes()])}
    )
    monkeypatch.setattr("torchvision.models.get_weight", lambda _: weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert bytes(imagenet_state("resnet18")["of"].tolist()) == content
    assert caplog.text == ""
    path.write_bytes(b"published weightz")
    with pytest.raises(WeightsError, match="could not get the ImageNet weights of resnet18"):
        imagenet_state("resnet18")  # this one does not download
    assert f"{name} is damaged, is now called {name}.damaged, and is fetched again" in caplog.text
    assert [file.name for file in path.parent.iterdir()] == [f"{name}.damaged"]


def test_unknown_names() -> None:
    with pytest.raises(
        ParameterError, match=r"network='resnet51' is unknown; expected one of resnet50, resnet18"
    ):
        build_network("resnet51")
    with pytest.raises(ParameterError, match="resnet10 has no ImageNet weights"):
        build_network("resnet10", pretrained=True)


def test_whether_imagenet_weights_can_be_had(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    assert not imagenet_reachable("vgg8")
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    assert not imagenet_reachable("resnet18")
    assert "could not get the ImageNet weights of resnet18" in caplog.text
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **_: resnet18().state_dict())
    assert imagenet_reachable("resnet18")


def test_pretrained_vgg_answers_a_grey_image_as_its_rgb_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    published = vgg16()
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", lambda self, **_: published.state_dict())
    grey = torch.rand(1, 1, 64, 64)
    model = build_network("vgg16", in_channels=1, n_outputs=1, pretrained=True)
    torch.testing.assert_close(model.features(grey), published.features(grey.expand(1, 3, 64, 64)))
