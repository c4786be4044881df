from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xaitools.errors import DeviceError
from xaitools.models import Network, available_devices, devices, resolve_device, train


def test_cpu_is_always_there() -> None:
    assert available_devices()[-1] == "cpu"
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_takes_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device(torch.device("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"'cuda:2'.*cuda:0, cuda:1, cpu"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "gpu", ""])
def test_absent_device_lists_those_present(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"{name!r} is not on this machine, which has cpu"):
        resolve_device(name)


@pytest.mark.parametrize("known", [True, False])
def test_a_processor_without_bfloat16_is_told_of_once(known, monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: known)
    net, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.rand(4, 1, 4, 4)
    network = Network(net, images, "bf16")
    network.quick, network.randomized(["1"]).quick
    labelled = SimpleNamespace(
        images=images, labels=torch.tensor([0, 1, 0, 1]), class_names=("a", "b"), unit=""
    )
    train(net, labelled, labelled, max_epochs=1, precision="bf16", device="cpu", progress=False)
    said = [
        "precision='bf16' on this processor, which does not know bfloat16: float32 is several times faster here."
    ]
    assert caplog.messages == ([] if known else 2 * said)
    assert devices.knows_bfloat16(torch.device("mps"))
    Network(net, images)
    assert len(caplog.messages) == (0 if known else 2)
