import itertools
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from xaitools.data.lazy import CachedArray, LazyTensor, cache_path, file_key, prepare
from xaitools.errors import DataError, ShapeError
from xaitools.seals import check_seal


def make(number, calls):
    calls.append(number)
    return np.random.default_rng(number).random((3, 4, 5))


def lazy(folder, calls, n=5):
    items = [
        CachedArray(folder / f"{number}.safetensors", partial(make, number, calls)) for number in range(n)
    ]
    return LazyTensor(items, (3, 4, 5), torch.float32)


def test_items_are_made_once_and_read_back(tmp_path):
    calls = []
    expected = np.stack([make(number, [])[None] for number in range(5)])
    np.testing.assert_allclose(lazy(tmp_path, calls)[:], expected, atol=0.5 / 65535 + 1e-7)
    assert calls == [0, 1, 2, 3, 4]
    assert torch.equal(lazy(tmp_path, calls)[:], lazy(tmp_path, calls)[:])
    assert len(calls) == 5


def test_a_number_is_measured_once_and_kept_in_the_header(tmp_path):
    calls, measured = [], []

    def mean(array):
        measured.append(len(calls))
        return array.mean()

    for _ in range(2):
        item = CachedArray(tmp_path / "a.safetensors", partial(make, 3, calls), mean)
        assert item.measured() == make(3, []).mean()
    assert (calls, measured) == ([3], [1])


@pytest.mark.parametrize("damage", [b'"I.5"', b'""   '])
def test_a_damaged_measure_is_made_again(tmp_path, damage):
    item = CachedArray(tmp_path / "a.safetensors", partial(np.full, (2, 2), 0.25), np.mean)
    item.prepare()
    whole = item.path.read_bytes()
    assert b'"0.25"' in whole
    item.path.write_bytes(whole.replace(b'"0.25"', damage.ljust(6)))
    assert item.measured() == 0.25
    assert b'"0.25"' in item.path.read_bytes()


@pytest.mark.parametrize(
    "index",
    [
        2,
        -1,
        slice(1, None, 2),
        [3, 0],
        torch.tensor([4, 4, 1]),
        torch.tensor([True, False, True, False, False]),
        np.array([1, 2]),
        (2, 0),
        (slice(0, 2), 0, 1),
        (torch.tensor([1, 3]), slice(None), 2, slice(1, 3)),
        torch.tensor([[0, 1], [2, 3]]),
        slice(0, 0),
    ],
)
def test_indexing_is_that_of_a_tensor(tmp_path, index):
    tensor = lazy(tmp_path, [])
    whole = torch.stack(list(tensor))
    assert tensor.shape == whole.shape == (5, 1, 3, 4, 5)
    assert (tensor.ndim, len(tensor), tensor.dtype) == (5, 5, torch.float32)
    chosen = tensor[index]
    assert chosen.dtype == torch.float32
    assert torch.equal(chosen, whole[index])


def test_what_is_out_of_range_raises(tmp_path):
    with pytest.raises(IndexError):
        lazy(tmp_path, [])[5]


def test_only_what_is_indexed_is_read(tmp_path):
    calls = []
    chosen = lazy(tmp_path, calls).take([4, 2, 0])
    assert calls == []
    assert chosen[[1]].shape == (1, 1, 3, 4, 5)
    assert calls == [2]
    assert "3 x 1 x 3 x 4 x 5" in repr(chosen)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_made_again(tmp_path, kept):
    calls = []
    tensor = lazy(tmp_path, calls, n=1)
    whole = tensor[0]
    path = tensor.items[0].path
    path.write_bytes(path.read_bytes()[:kept])
    assert torch.equal(tensor[0], whole)
    assert calls == [0, 0]


def test_a_whole_file_is_read_for_its_checksum_once_until_it_changes(tmp_path, monkeypatch):
    checked = []

    def counted(path):
        checked.append(path.name)
        check_seal(path)

    monkeypatch.setattr("xaitools.data.lazy.check_seal", counted)
    calls = []
    tensor = lazy(tmp_path, calls, n=1)
    whole, path = tensor[0], tensor.items[0].path
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    for _ in range(3):
        assert torch.equal(tensor[0], whole)
        tensor.digests()
    assert checked == [path.name]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert torch.equal(tensor[0], whole)
    assert calls == [0, 0]


def test_preparation_goes_on_where_it_was_stopped(tmp_path):
    calls = []
    items = lazy(tmp_path, calls).items

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([*items[:2], CachedArray(items[2].path, stop)], progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]
    prepare(items, progress=False)
    assert calls == [0, 1, 2, 3, 4]


def test_a_writer_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def fail(_, path, **__):
        Path(path).write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr("xaitools.data.lazy.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        lazy(tmp_path, [])[0]
    assert list(tmp_path.iterdir()) == []


def draw(number):
    return np.random.default_rng(number).random((2, 2, 2))


def test_preparation_in_several_processes_gives_the_same(tmp_path):
    few, many = (
        [CachedArray(tmp_path / name / f"{i}.safetensors", partial(draw, i)) for i in range(3)]
        for name in ("one", "two")
    )
    prepare(few, progress=False)
    prepare(many, n_jobs=2, progress=False)
    assert [item.digest() for item in few] == [item.digest() for item in many]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(np.eye(3)[None] > 0, torch.bool), (np.arange(9, dtype=np.int64).reshape(1, 3, 3) * 30000, torch.int32)],
)
def test_masks_and_labels_come_back_as_they_are(tmp_path, array, dtype):
    tensor = LazyTensor([CachedArray(tmp_path / "a.safetensors", lambda: array)], (1, 3, 3), dtype)
    assert tensor[0].dtype == dtype
    np.testing.assert_array_equal(tensor[0, 0].numpy(), array)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_values_that_are_no_grey_values_are_refused(tmp_path, value):
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        CachedArray(tmp_path / "a.safetensors", lambda: np.array([0.5, value])).prepare()


def test_an_item_of_another_shape_is_refused(tmp_path):
    item = CachedArray(tmp_path / "a.safetensors", lambda: np.zeros((2, 2, 2)))
    with pytest.raises(ShapeError, match="item 0"):
        LazyTensor([item], (3, 2, 2), torch.float32)[0]


def test_digests_are_those_of_the_contents(tmp_path):
    first, again = lazy(tmp_path / "a", []), lazy(tmp_path / "b", [])
    assert first.digests() == again.digests()
    assert len(set(first.digests())) == 5


def test_the_cache_path_depends_on_all_of_the_key_and_tells_nothing(tmp_path, monkeypatch):
    keys = [
        {"file": ["Mustermann", 1, 2]},
        {"file": ["Mustermann", 1, 3]},
        {"file": ["Mustermann"], "a": None},
    ]
    paths = [cache_path(tmp_path, "brains", key) for key in keys]
    assert all(first != second for first, second in itertools.combinations(paths, 2))
    assert paths[0] == cache_path(tmp_path, "brains", keys[0])
    assert paths[0].parent == tmp_path / "brains"
    assert not any("Mustermann" in path.name for path in paths)
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "elsewhere"))
    assert cache_path(None, "brains", keys[0]).parent == tmp_path / "elsewhere" / "brains"


def test_a_file_that_changed_has_another_key(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(b"1")
    before = file_key(path)
    path.write_bytes(b"22")
    assert file_key(path) != before
    assert file_key(None) is None
