import io
import itertools
import json
import tracemalloc
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from xaitools.attribution import combine
from xaitools.errors import ShapeError
from xaitools.maps import load_map, load_or_compute, map_path, save_map
from xaitools.seals import checksum, read_json, write_json

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


def test_no_two_names_share_a_file() -> None:
    """All names of up to four of these letters, and the pairs that once shared one."""
    signs = ["a", "B", "b", "1", "_", "+", "[", ":"]
    names = {"".join(letters) for n in range(1, 5) for letters in itertools.product(signs, repeat=n)}
    names |= {"occlusion[1:2]", "occlusion[12]", "occlusion[8:4]", "occlusion[84]", "a" * 500, "a" * 501}
    files = {map_path(Path("maps"), "sub-001", name).name.casefold() for name in names}
    assert len(files) == len(names)
    assert max(map(len, files)) < 150


def test_two_methods_of_one_word_have_maps_of_their_own(tmp_path, compute, calls) -> None:
    methods = ["occlusion[1:2]", "occlusion[12]"]
    for method in methods * 2:
        found = load_or_compute(tmp_path, "sub-001", [method], compute, key={})
        assert found[method][0, 0] == len(method)
    assert calls == [[method] for method in methods]


def test_a_file_of_another_method_or_sample_is_not_taken(tmp_path) -> None:
    array = np.ones((2, 2), np.float32)
    path = save_map(tmp_path, "sub-001", "gradient", array, key={})
    for name, method in (("sub-001", "lrp"), ("sub-002", "gradient")):
        other = map_path(tmp_path, name, method)
        other.write_bytes(path.read_bytes())
        other.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
        assert load_map(tmp_path, name, method, key={}) is None
    assert load_map(tmp_path, "sub-001", "gradient", key={}) is not None


def test_a_map_under_the_sidecar_of_another_time_is_not_taken(tmp_path, caplog) -> None:
    """As a kill between the two leaves it."""
    path = save_map(tmp_path, "sub-001", "gradient", np.ones((2, 2), np.float32), key={"seed": 0})
    before = path.with_suffix(".json").read_bytes()
    save_map(tmp_path, "sub-001", "gradient", np.zeros((2, 2), np.float32), key={"seed": 1})
    path.with_suffix(".json").write_bytes(before)
    assert load_map(tmp_path, "sub-001", "gradient", key={"seed": 0}) is None
    assert f"{path.name} is damaged" in caplog.text


def sealed_again(path: Path, **changes: object) -> None:
    """A sidecar that has the right checksums, its own and that of the file."""
    sidecar = path.with_name(path.name.removesuffix(".nii.gz").removesuffix(".npz") + ".json")
    write_json(sidecar, {**read_json(sidecar), "file": checksum(path), **changes})


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("wrong", ["shape", "NaN", "infinite"])
def test_a_map_that_is_not_what_its_sidecar_says_is_refused(tmp_path, caplog, volume, wrong) -> None:
    array = np.ones((2, 3, 4) if volume else (2, 3), np.float32)
    affine = np.eye(4) if volume else None
    path = save_map(tmp_path, "sub-001", "gradient", array, key={}, affine=affine)
    other = array.copy()
    other.flat[3] = {"shape": 1, "NaN": np.nan, "infinite": -np.inf}[wrong]
    other = other.T if wrong == "shape" else other
    if volume:
        nib.save(nib.Nifti1Image(other, affine), path)
    else:
        np.savez_compressed(path, map=other)
    sealed_again(path)
    assert load_map(tmp_path, "sub-001", "gradient", volume=volume) is None
    assert f"{path.name} is damaged" in caplog.text


def test_what_a_method_gives_that_is_not_finite_comes_back(tmp_path) -> None:
    array = np.array([[1, np.nan], [-np.inf, 0]], np.float32)
    save_map(tmp_path, "sub-001", "gradient", array, key={})
    np.testing.assert_array_equal(load_map(tmp_path, "sub-001", "gradient"), array)


@pytest.mark.parametrize(
    "kind", ["more values than the header says", "a header of a larger shape", "float64"]
)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, caplog, kind) -> None:
    path = save_map(tmp_path, "sub-001", "gradient", np.ones((2, 3), np.float32), key={})
    dtype = np.float64 if kind == "float64" else np.float32
    header = io.BytesIO()
    np.save(header, np.zeros((4000, 4000), dtype) if "larger" in kind else np.zeros((2, 3), dtype))
    zeros = bytes(0 if kind == "float64" else 2**26)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("map.npy", header.getvalue()[:200] + zeros)
    del header, zeros
    sealed_again(path)
    tracemalloc.start()
    assert load_map(tmp_path, "sub-001", "gradient") is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6
    assert f"{path.name} is damaged" in caplog.text


def test_maps_of_a_version_without_checksums_are_made_again_which_is_said_once(
    tmp_path, compute, calls, caplog
) -> None:
    load_or_compute(tmp_path, "sub-001", METHODS, compute, key={})
    for method in METHODS:
        sidecar = map_path(tmp_path, "sub-001", method).with_suffix(".json")
        sidecar.write_text(json.dumps(read_json(sidecar)))
    again = load_or_compute(tmp_path, "sub-001", METHODS, compute, key={})
    assert calls == [METHODS, METHODS]
    assert list(again) == METHODS
    assert caplog.text.count("has no checksum, as of an earlier version: it and its like are made again") == 1


def test_volumes_keep_their_affine(tmp_path) -> None:
    affine = np.array([[0, -2, 0, 9], [1.5, 0, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1.0]])
    volume = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    path = save_map(tmp_path, "sub-002", "gradient", volume, key={}, affine=affine)
    np.testing.assert_array_equal(nib.load(path).affine, affine)
    np.testing.assert_array_equal(load_map(tmp_path, "sub-002", "gradient", volume=True), volume)
    with pytest.raises(ShapeError, match="pass the affine"):
        save_map(tmp_path, "sub-002", "gradient", volume, key={})


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("volume", [False, True])
def test_sums_of_a_map_made_and_of_one_read_agree_to_the_last_bit(tmp_path, volume, order) -> None:
    """Both stand in memory alike, whatever order the method left and the file has."""
    shape = (9, 10, 11) if volume else (30, 31)
    array = np.array(np.random.default_rng(0).standard_normal(shape), dtype=np.float32, order=order)
    options = {"key": {}, "affine": np.eye(4) if volume else None}
    made, read = (
        load_or_compute(tmp_path, "sub-1", ["gradient"], lambda _: {"gradient": array}, **options)["gradient"]
        for _ in range(2)
    )
    assert made.strides == read.strides == np.ascontiguousarray(array).strides
    np.testing.assert_array_equal(made, read)
