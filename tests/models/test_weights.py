import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xaitools.errors import ParameterError, WeightsError
from xaitools.models import (
    NETWORKS,
    WeightsInfo,
    build_network,
    cached_weights,
    fingerprint,
    load_model,
    load_weights,
    read_info,
    save_weights,
)

INFO = WeightsInfo("resnet10", 1, ("no contrast", "contrast"), note="trained on synthetic slices")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_weights(build_network("resnet10", seed=3), tmp_path / "made" / "chest.safetensors", INFO)


def same(model: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_round_trip(saved: Path) -> None:
    assert read_info(saved) == INFO
    assert INFO.n_outputs == 2
    model = build_network("resnet10", seed=4)
    assert load_weights(model, saved) == INFO
    assert same(model, build_network("resnet10", seed=3))
    assert [path.name for path in saved.parent.iterdir()] == ["chest.safetensors"]


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    model = build_network("resnet10").to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "a.safetensors", INFO)
    assert same(load_model(str(tmp_path / "a.safetensors"), network="resnet50"), model)


def test_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, path: Path, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr("xaitools.models.weights.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(build_network("resnet10"), saved, INFO)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["chest.safetensors"]


def test_bad_files_are_named_with_what_is_wrong(saved: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved.read_bytes()[:-1000])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    for path, reason in {
        cut: "is damaged",
        foreign: "was not written by xaitools",
        tmp_path / "absent.safetensors": "no weights file at",
    }.items():
        with pytest.raises(WeightsError, match=reason) as caught:
            load_weights(build_network("resnet10"), path)
        assert str(path) in str(caught.value)


def test_weights_of_another_network_change_nothing(saved: Path) -> None:
    model = build_network("resnet18", seed=1)
    with pytest.raises(
        WeightsError, match=r"chest\.safetensors is for another network.*conv1\.weight: \(16, 1, 7, 7\)"
    ):
        load_weights(model, saved)
    assert same(model, build_network("resnet18", seed=1))


def test_cache_path_follows_every_ingredient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path))
    settings = {"seed": 1, "max_epochs": 20}
    path = cached_weights("resnet10", settings, "abc")
    assert path.parent == tmp_path / "weights"
    assert path == cached_weights("resnet10", {"max_epochs": 20, "seed": 1}, "abc")
    monkeypatch.setattr("xaitools.models.weights.version", lambda _: "99.0.1")
    newer = cached_weights("resnet10", settings, "abc")
    others = {
        cached_weights("resnet18", settings, "abc"),
        cached_weights("resnet10", {**settings, "seed": 2}, "abc"),
        cached_weights("resnet10", settings, "abd"),
    }
    assert len({path, newer, *others}) == 5
    with pytest.raises(ParameterError, match="not plain values"):
        cached_weights("resnet10", {"device": torch.device("cpu")}, "abc")


def test_cache_is_in_the_home_folder_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XAITOOLS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cached_weights("resnet10", {}, "").is_relative_to(tmp_path / ".cache" / "xaitools")


def test_load_model_knows_the_network_of_its_own_files(saved: Path) -> None:
    model = load_model(str(saved), network="resnet50")
    assert same(model, build_network("resnet10", seed=3))
    assert not model.training
    with pytest.raises(
        WeightsError, match=r"1 channels and has 2 outputs \(no contrast, contrast\), expected 3 and 2"
    ):
        load_model(str(saved), network="resnet10", in_channels=3)


def test_load_model_reads_a_plain_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save(build_network("resnet18", seed=5, n_outputs=3).state_dict(), path)
    assert same(
        load_model(str(path), network="resnet18", n_outputs=3), build_network("resnet18", seed=5, n_outputs=3)
    )
    with pytest.raises(
        WeightsError, match=r"mine\.pt is for another network.*fc\.weight: \(3, 512\) in the file"
    ):
        load_model(str(path), network="resnet18")
    with pytest.raises(
        ParameterError, match=f"network='vgg' is unknown; expected one of {', '.join(NETWORKS)}"
    ):
        load_model(str(path), network="vgg")


class Dangerous:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_load_model_unpickles_nothing(tmp_path: Path) -> None:
    for content, reason in {
        "code": (Dangerous(), "holds more than tensors"),
        "model": (nn.Linear(2, 2), "holds more than tensors"),
        "checkpoint": (
            {"epoch": 3, "state_dict": {}},
            "a dict with 'epoch', 'state_dict', expected names and tensors",
        ),
        "tensor": (torch.zeros(2), "expected names and tensors"),
    }.values():
        torch.save(content, tmp_path / "file.pt")
        with pytest.raises(WeightsError, match=reason):
            load_model(str(tmp_path / "file.pt"), network="resnet10")


@pytest.mark.parametrize("content", [b"", b"short", bytes(1000)])
def test_load_model_names_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth is damaged"):
        load_model(str(tmp_path / "bad.pth"), network="resnet10")


def test_load_model_calls_a_factory_beside_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_notebook.py").write_text(
        "from torch import nn\n"
        "number = 3\n"
        "def linear(): return nn.Linear(2, 2)\n"
        "def needy(size): return nn.Linear(size, 2)\n"
        "def text(): return 'model'\n"
    )
    (tmp_path / "broken_beside.py").write_text("import package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    model = load_model("beside_the_notebook:linear", network="resnet10")
    assert isinstance(model, nn.Linear)
    assert not model.training
    for spec, reason in {
        "beside_the_notebook:number": "has no function number",
        "beside_the_notebook:absent": "has no function absent",
        "beside_the_notebook:needy": "needy.* failed with TypeError.*must work without arguments",
        "beside_the_notebook:text": "returned str, expected a torch.nn.Module",
        "broken_beside:linear": "importing broken_beside failed with ModuleNotFoundError.*_is_not_there",
        "absent_module:linear": "importing absent_module failed with .*beside the notebook",
    }.items():
        with pytest.raises(ParameterError, match=reason) as caught:
            load_model(spec, network="resnet10")
        assert repr(spec) in str(caught.value)


def test_load_model_leaves_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(ParameterError):
        load_model("absent_module:linear", network="resnet10")
    assert sys.path == before


def test_load_model_without_a_file_or_factory() -> None:
    with pytest.raises(WeightsError, match=r"no weights file at absent\.pt"):
        load_model("absent.pt", network="resnet10")


@pytest.mark.parametrize("share", [0.02, 0.4, 0.6, 0.98])
def test_weights_in_which_a_bit_changed_are_refused(share: float, tmp_path: Path) -> None:
    path = save_weights(build_network("vgg8"), tmp_path / "a.safetensors", WeightsInfo("vgg8", 1, ("a", "b")))
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    model = build_network("vgg8", seed=1)
    before = fingerprint(model)
    for load in (
        lambda: load_weights(model, path),
        lambda: load_model(str(path), network=""),
        lambda: read_info(path),
    ):
        with pytest.raises(WeightsError, match=r"a\.safetensors is damaged: .*make or fetch it anew"):
            load()
    assert fingerprint(model) == before


def test_weights_of_a_version_without_checksums_are_taken(tmp_path: Path) -> None:
    model, path = build_network("vgg8"), tmp_path / "a.safetensors"
    info = {"network": "vgg8", "in_channels": 1, "class_names": ["a", "b"]}
    save_file(model.state_dict(), path, metadata={"xaitools": json.dumps(info)})
    assert fingerprint(load_model(str(path), network="")) == fingerprint(model)
