import json

import nibabel as nib
import numpy as np
import pytest

from xaitools.attribution import combine
from xaitools.errors import ShapeError
from xaitools.maps import load_map, load_or_compute, map_path, save_map

METHODS = ["gradient", "integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai"]


@pytest.fixture
def calls():
    return []


@pytest.fixture
def compute(calls):
    def run(methods):
        calls.append(methods)
        return {method: np.full((4, 5), len(method), np.float32) for method in methods}

    return run


def test_a_run_goes_on_where_it_was(tmp_path, compute, calls) -> None:
    load_or_compute(tmp_path, "sub-001", METHODS[:1], compute, key={"seed": 0})
    maps = load_or_compute(tmp_path, "sub-001", METHODS, compute, key={"seed": 0})
    load_or_compute(tmp_path, "sub-001", METHODS, compute, key={"seed": 0})
    assert calls == [METHODS[:1], METHODS[1:]]
    assert {method: float(array[0, 0]) for method, array in maps.items()} == {m: len(m) for m in METHODS}


def test_another_key_another_map(tmp_path, compute, calls) -> None:
    for seed in (0, 1, 1):
        load_or_compute(tmp_path, "sub-001", METHODS, compute, key={"seed": seed, "window": (40, 400)})
    assert calls == [METHODS, METHODS]


@pytest.mark.parametrize("damage", ["truncated", "no sidecar", "sidecar"])
def test_damaged_files_are_made_again(tmp_path, compute, calls, damage, caplog) -> None:
    load_or_compute(tmp_path, "sub-001", METHODS[:1], compute, key={})
    path = map_path(tmp_path, "sub-001", METHODS[0])
    sidecar = path.with_suffix(".json")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:40])
    elif damage == "no sidecar":
        sidecar.unlink()
    else:
        sidecar.write_text("{")
    again = load_or_compute(tmp_path, "sub-001", METHODS[:1], compute, key={})
    assert len(calls) == 2
    assert again[METHODS[0]][0, 0] == len(METHODS[0])
    assert ("is damaged" in caplog.text) == (damage != "no sidecar")


def test_names_are_unique_and_sidecars_keep_the_method(tmp_path) -> None:
    bases = ["gradient", "integrated_gradients[black]", "integrated_gradients[black+white]", "deconvolution"]
    names = combine(bases, ["", "smoothgrad", "smoothgrad_squared"], ["", "xrai"])
    paths = {map_path(tmp_path, "sub-001", name) for name in names}
    assert len(paths) == len(names)
    save_map(tmp_path, "sub-001", names[-1], np.zeros((2, 2), np.float32), key={"seed": 1})
    (sidecar,) = tmp_path.glob("*.json")
    assert json.loads(sidecar.read_text())["method"] == names[-1]
    assert len(list(tmp_path.iterdir())) == 2


def test_volumes_keep_their_affine(tmp_path) -> None:
    affine = np.array([[0, -2, 0, 9], [1.5, 0, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1.0]])
    volume = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    path = save_map(tmp_path, "sub-002", "gradient", volume, key={}, affine=affine)
    np.testing.assert_array_equal(nib.load(path).affine, affine)
    np.testing.assert_array_equal(load_map(tmp_path, "sub-002", "gradient", volume=True), volume)
    with pytest.raises(ShapeError, match="pass the affine"):
        save_map(tmp_path, "sub-002", "gradient", volume, key={})
