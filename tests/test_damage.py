"""Every kind of file that is stored and read back: what is damaged is said by name and made again."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from xaitools.attribution import MaskSettings
from xaitools.data import Volumes
from xaitools.data.lazy import CachedArray
from xaitools.maps import load_or_compute
from xaitools.models import AUGMENTATIONS, epoch_files, fingerprint, fit, load_epoch
from xaitools.models.weights import fingerprint_of
from xaitools.phantoms import synthetic_brains
from xaitools.seals import SEAL, is_sealed, read_json
from xaitools.study import group_masks
from xaitools.study.manifest import read_manifest, write_manifest
from xaitools.study.network import Trained
from xaitools.study.run import Run
from xaitools.study.sanity import kept

AFFINE = np.array([[-2, 0, 0, 9], [0, 2, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1.0]])
MAP = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
VOLUME = np.random.default_rng(1).standard_normal((4, 5, 6)).astype(np.float32)
STEP = {"rows": [{"a": 0.5, "b": "text"}] * 9, "error": None}


@dataclass(frozen=True)
class Kind:
    """One kind of file: `obtain` makes what a folder lacks and returns what there is, `pattern` finds the file.

    Of what takes long to make, every second damage is tried.
    """

    obtain: Callable[[Path], object]
    pattern: str
    is_slow: bool = False


def _image_map(folder: Path) -> object:
    return load_or_compute(folder, "sub-001", ["lrp"], lambda _: {"lrp": MAP}, key={"a": 1})["lrp"].tobytes()


def _volume_map(folder: Path) -> object:
    make = {"lrp": VOLUME}
    found = load_or_compute(folder, "sub-001", ["lrp"], lambda _: make, key={"a": 1}, affine=AFFINE)
    return found["lrp"].tobytes()


def _prepared(folder: Path) -> object:
    item = CachedArray(folder / "a.safetensors", lambda: np.linspace(0, 1, 240).reshape(4, 6, 10), np.mean)
    return item.digest(), item.measured(), item.load().tobytes()


def _sets() -> SimpleNamespace:
    images = torch.rand(6, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(images=images, labels=torch.arange(6) % 2, class_names=("no", "yes"), unit="")


def _fitted(folder: Path, **options: object) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAITOOLS_CACHE", str(folder))
        given = {"device": "cpu", "progress": False, "max_epochs": 3, "patience": 9, "batch_size": 3}
        model, history, _ = fit("gm_cnn_b1_f4_l1_d0", _sets(), _sets(), **given, **options)
    return fingerprint(model), history


def _epochs(folder: Path) -> object:
    found = _fitted(folder, keep_epochs=folder / "epochs", augment="")
    return found, [fingerprint_of(load_epoch(path)) for path in epoch_files(folder / "epochs")]


def _resumed(folder: Path) -> object:
    """A training that is interrupted in its second epoch, if it is the first, else one that goes on."""
    calls: list[int] = []
    first = not folder.exists()

    def interrupted(images: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3 and first:
            raise KeyboardInterrupt
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AUGMENTATIONS, "flip_and_shift", interrupted)
        if first:
            with pytest.raises(KeyboardInterrupt):
                _fitted(folder, augment="flip_and_shift")
            return _fitted(folder.with_name("whole"), augment="flip_and_shift")
        return _fitted(folder, augment="flip_and_shift")


def _sanity(folder: Path) -> object:
    return kept(folder, "top-down", {"key": [1, None, "ä"]})("step 1", lambda: STEP)


@cache
def _patients() -> Volumes:
    brains = synthetic_brains(4, spacing=20, shape=[8, 8, 8], modality="grey-matter", seed=0, progress=False)
    return brains[[1, 3]]


def _group_mask(folder: Path) -> object:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(512, 2)).eval()
    settings = {"one": MaskSettings(steps=2, learning_rate=0.1)}
    found = group_masks(Trained("net", model, ""), _patients(), settings, folder, name="net", progress=False)
    return found.masks["one"].tobytes(), found.report.to_csv(), found.history.to_csv()


def _manifest(folder: Path) -> object:
    """What a run does that is made again unless it is done."""
    if read_manifest(folder).get("status") != "done":
        write_manifest(folder, {"status": "done", "seconds": {"train": 1.5}, "name": "Käthe"}, fresh=True)
    return {name: value for name, value in read_manifest(folder).items() if name != "updated"}


def _script(folder: Path) -> object:
    run = Run(folder, study="ct_contrast", parameters={})
    run.save_figure(go.Figure(), "one")
    return (folder / "figures" / "plotly.min.js").read_bytes()


KINDS = {
    "map of an image": Kind(_image_map, "*_map.npz"),
    "sidecar": Kind(_image_map, "*_map.json"),
    "map of a volume": Kind(_volume_map, "*_map.nii.gz"),
    "prepared volume": Kind(_prepared, "a.safetensors"),
    "weights": Kind(lambda folder: _fitted(folder, augment=""), "weights/*.safetensors", is_slow=True),
    "course of a training": Kind(lambda folder: _fitted(folder, augment=""), "weights/*.json", is_slow=True),
    "weights of an epoch": Kind(_epochs, "epochs/epoch-0002.safetensors", is_slow=True),
    "checkpoint": Kind(_resumed, "weights/*.checkpoint.pt", is_slow=True),
    "step of a sanity check": Kind(_sanity, "*.json"),
    "optimised mask": Kind(_group_mask, "*_map.nii.gz", is_slow=True),
    "course of a mask": Kind(_group_mask, "*_course.json", is_slow=True),
    "manifest": Kind(_manifest, "manifest.json"),
    "script of the figures": Kind(_script, "figures/plotly.min.js", is_slow=True),
}


def flipped(share: float, bit: int = 0) -> Callable[[bytes], bytes]:
    """One bit of the byte at that share of the file."""

    def damage(content: bytes) -> bytes:
        place = min(int(share * len(content)), len(content) - 1)
        return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]

    return damage


def zeroed(content: bytes) -> bytes:
    """A third of the file."""
    third = len(content) // 3
    return content[:third] + bytes(third) + content[2 * third :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    **{
        f"a bit at {share:.0%}": flipped(share, bit)
        for bit, share in enumerate((0, 0.12, 0.3, 0.5, 0.7, 0.9, 1))
    },
    "a byte more": lambda content: content + b"\n",
    "half": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "a block of zeros": zeroed,
    "zeros": lambda content: bytes(len(content)),
    "nothing": lambda _: b"",
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[object, dict[Path, bytes]]]:
    """What a kind gives in an empty folder, and the files that this leaves, by their places in it."""
    made: dict[str, tuple[object, dict[Path, bytes]]] = {}

    def of(name: str) -> tuple[object, dict[Path, bytes]]:
        if name not in made:
            folder = tmp_path_factory.mktemp("fresh") / "a"
            result = KINDS[name].obtain(folder)
            paths = [path for path in folder.rglob("*") if path.is_file()]
            made[name] = result, {path.relative_to(folder): path.read_bytes() for path in paths}
        return made[name]

    return of


def restored(files: dict[Path, bytes], folder: Path) -> None:
    """Write the files into an empty folder."""
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_damaged_is_said_and_made_again(name, fresh, tmp_path, caplog):
    kind, (expected, files) = KINDS[name], fresh(name)
    caplog.set_level(logging.WARNING)
    for what, damage in list(DAMAGES.items())[:: 2 if kind.is_slow else 1]:
        folder = tmp_path / what.replace(" ", "-")
        restored(files, folder)
        (path,) = folder.glob(kind.pattern)
        whole = path.read_bytes()
        assert damage(whole) != whole
        path.write_bytes(damage(whole))
        caplog.clear()
        assert kind.obtain(folder) == expected, what
        assert path.name in caplog.text, what
        assert name == "checkpoint" or damage(whole) != path.read_bytes(), what


@pytest.mark.parametrize("name", KINDS)
def test_what_is_whole_is_taken_as_it_is(name, fresh, tmp_path, caplog):
    kind, (expected, files) = KINDS[name], fresh(name)
    restored(files, tmp_path / "a")
    (path,) = (tmp_path / "a").glob(kind.pattern)
    before = path.stat().st_mtime_ns
    caplog.clear()  # of what was said when it was made, if that was now
    assert kind.obtain(tmp_path / "a") == expected
    assert caplog.text == ""
    assert name == "checkpoint" or path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "name", ["prepared volume", "weights", "course of a training", "step of a sanity check"]
)
def test_what_an_earlier_version_wrote_is_made_again(name, fresh, tmp_path, caplog):
    kind, (expected, files) = KINDS[name], fresh(name)
    restored(files, tmp_path / "a")
    (path,) = (tmp_path / "a").glob(kind.pattern)
    if path.suffix == ".json":
        path.write_text(json.dumps(read_json(path)))
    else:
        with safe_open(path, framework="pt") as file:
            metadata = {name: value for name, value in file.metadata().items() if name != SEAL}
        save_file(load_file(path), path, metadata=metadata)
    assert not is_sealed(path)
    assert kind.obtain(tmp_path / "a") == expected
    assert f"{path.name} has no checksum, as of an earlier version" in caplog.text
    assert is_sealed(path)
