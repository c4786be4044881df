import numpy as np
import pytest
import torch

from xaitools.data.lazy import CachedArray, LazyTensor
from xaitools.data.samples import Samples
from xaitools.data.splits import split
from xaitools.data.subjects import study_names
from xaitools.data.volume_set import Volumes
from xaitools.errors import DataError, ShapeError

AFFINE = np.diag([2.0, 2, 3, 1])
READ = []


def lazy(folder, kind, dtype, n, shape=(2, 3, 4)):
    def make(number):
        READ.append(number)
        values = np.random.default_rng(number).random(shape)
        return (
            values if dtype == torch.float32 else (values > 0.5).astype(bool if dtype == torch.bool else int)
        )

    items = [CachedArray(folder / kind / f"{i}.safetensors", lambda i=i: make(i)) for i in range(n)]
    return LazyTensor(items, shape, dtype)


@pytest.fixture
def make(tmp_path):
    def make(n=6, **changes):
        subjects, names = study_names([f"{number // 2:03d}" for number in range(n)])
        fields = {
            "images": lazy(tmp_path, "images", torch.float32, n),
            "labels": torch.tensor([0, 0, 1, 1] * n)[:n],
            "subjects": subjects,
            "names": names,
            "class_names": ("CN", "AD"),
            "affine": AFFINE,
            "masks": lazy(tmp_path, "masks", torch.bool, n),
            "label_maps": lazy(tmp_path, "labels", torch.int32, n),
            "numbers": {"age": torch.arange(float(n))},
        }
        return Volumes(**(fields | changes))

    return make


def test_indexing_keeps_everything_aligned_and_reads_nothing(make):
    volumes = make()
    READ.clear()
    chosen = volumes[[4, 1]]
    assert READ == []
    assert isinstance(chosen, Volumes)
    for name in ("images", "masks", "label_maps"):
        assert torch.equal(getattr(chosen, name)[:], getattr(volumes, name)[[4, 1]])
    assert chosen.labels.tolist() == [0, 0]
    assert chosen.numbers["age"].tolist() == [4, 1]
    assert chosen.subjects == ("sub-003", "sub-001")
    assert chosen.names == ("sub-003_img-1", "sub-001_img-2")
    assert volumes[np.array([True, False] * 3)].names == volumes[::2].names
    np.testing.assert_array_equal(chosen.label_map(0), volumes.label_maps[4, 0])


def test_volumes_are_samples_and_split_by_subject_without_reading(make):
    volumes = make(48)
    READ.clear()
    parts = split(volumes, seed=0)
    assert READ == []
    assert isinstance(volumes, Samples)
    assert sorted(name for part in parts for name in part.names) == sorted(volumes.names)
    subjects = [set(part.subjects) for part in parts]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 24


def test_shape_spacing_and_repr(make):
    volumes = make()
    assert volumes.shape == (2, 3, 4)
    assert volumes.spacing == (2, 2, 3)
    assert repr(volumes) == "Volumes(6 of 2 x 3 x 4 voxels of 2 x 2 x 3 mm, 3 subjects, 4 'CN', 2 'AD')"
    assert volumes.has_mask.tolist() == [True] * 6
    assert not make(masks=None).has_mask.any()


def test_the_fingerprint_is_that_of_the_contents(make):
    volumes = make()
    assert volumes.fingerprint() == make(info={"a": 1}).fingerprint() == volumes[:].fingerprint()
    others = [
        volumes[::-1],
        make(labels=1 - volumes.labels),
        make(masks=None),
        make(affine=np.eye(4)),
        make(numbers={}),
    ]
    assert len({other.fingerprint() for other in others} | {volumes.fingerprint()}) == 6


def test_a_regression_has_quantities(make):
    volumes = make(labels=torch.arange(6.0), class_names=(), unit="years")
    assert volumes.is_regression
    assert "0 to 5 years" in repr(volumes)


def test_bad_volumes_are_refused(make, tmp_path):
    wrong = lazy(tmp_path, "wrong", torch.int32, 6, (2, 3, 5))
    flat = lazy(tmp_path, "flat", torch.float32, 6, (2, 3))
    for changes, error, message in [
        ({"label_maps": wrong}, ShapeError, "label maps of shape"),
        ({"masks": wrong}, ShapeError, "masks of shape"),
        ({"images": flat, "masks": None, "label_maps": None}, ShapeError, "x, y, z"),
        ({"affine": np.eye(3)}, ShapeError, "affine of shape"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ShapeError, "3 labels for 6"),
        ({"labels": torch.full((6,), 2)}, DataError, "label 2"),
        ({"labels": torch.full((6,), torch.nan), "class_names": ()}, DataError, "label nan"),
        ({"subjects": ("Mustermann",) * 6}, DataError, "not a study id"),
    ]:
        with pytest.raises(error, match=message):
            make(**changes)
    with pytest.raises(DataError, match="no volumes"):
        make()[[]]
    with pytest.raises(DataError, match="no label maps"):
        make(label_maps=None).label_map(0)
