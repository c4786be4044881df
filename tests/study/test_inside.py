import numpy as np
import pytest

from xaitools import study
from xaitools.data import k_folds, skull_stripped
from xaitools.errors import DataError
from xaitools.evaluation import tissue_masks
from xaitools.models import build_network
from xaitools.phantoms import synthetic_heads
from xaitools.study import words
from xaitools.study.network import Trained

SETTINGS = {
    "max_epochs": 2,
    "patience": 2,
    "batch_size": 4,
    "learning_rate": 0.001,
    "augment": "",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    made = synthetic_heads(12, spacing=9.0, shape=(22, 26, 24), seed=0, cache_dir=cache, progress=False)
    return skull_stripped(made, cache_dir=cache)


@pytest.fixture(scope="module")
def net():
    return Trained(
        "head_cnn_small", build_network("head_cnn_small", input_size=(22, 26, 24), seed=0).eval(), "random"
    )


def test_structures_that_one_brain_lacks_are_left_out(heads, monkeypatch):
    regions = study.brain_regions(heads)
    every = study.common_regions(heads, regions)
    assert every == {n: name for n, name in heads.info["label_names"].items() if n in every}
    original = type(heads).label_map
    gone = np.where(original(heads, 3) == 13, 21, original(heads, 3))
    monkeypatch.setattr(
        type(heads), "label_map", lambda self, i: gone if self.names[i] == "sub-004" else original(self, i)
    )
    assert set(every) - set(study.common_regions(heads, regions)) == {13}
    monkeypatch.setattr(type(heads), "label_map", lambda self, i: np.full(self.shape, i + 1))
    with pytest.raises(DataError, match="no structure is in the label maps of all brains"):
        study.common_regions(heads, regions)


def test_examples_are_of_their_class_and_no_example_twice(heads, net):
    positions, captions = study.examples_by_class(net, heads, n_prototypes=2, n_criticisms=2)
    assert len(set(positions)) == len(positions) == 8
    for position, caption in zip(positions, captions, strict=True):
        assert heads.class_names[heads.labels[position]] == caption.split()[1]
    assert [caption.split(",")[0] for caption in captions[:4]] == ["prototype"] * 2 + ["criticism"] * 2
    assert sum("(as " in caption for caption in captions) == 4  # an untrained network names one class


def test_influence_is_checked_by_training_again_and_by_a_wrong_label(heads, run, tmp_path):
    training, validation = k_folds(heads, 2, seed=0)[0]
    found = study.influence_check(
        run,
        "head_cnn_small",
        training,
        validation,
        validation[:2],
        tmp_path,
        n_left_out=3,
        progress=False,
        **SETTINGS,
    )
    assert (found.n_training, found.n_left_out) == (6, 3)
    assert len(found.agreement) == 2
    assert -1 <= found.spearman <= 1
    (rank,) = found.mislabelled
    assert 1 <= rank <= 6
    assert len(list(tmp_path.glob("epoch-*.safetensors"))) == 2
    assert "rank" not in found.table or set(found.table["kind"]) <= {"helpful", "harmful"}
    said = words.influence(found)
    assert f"number {rank} of 6 (by chance, 4)" in said
    assert "rough" in said


def test_classifiers_are_compared_over_the_same_folds(heads, run):
    folds = k_folds(heads, 2, seed=0)
    compared = study.compare_classifiers(
        run, "head_cnn_small", folds, pretrain_epochs=1, progress=False, **SETTINGS
    )
    names = ["network", "pre-trained network", "linear SVM on voxels"]
    assert compared.accuracies["classifier"].tolist() == [name for name in names for _ in (1, 2)]
    assert compared.nets["network"].keys() == compared.nets["pre-trained network"].keys()
    assert (
        compared.nets["network"][1, 1].fingerprint != compared.nets["pre-trained network"][1, 1].fingerprint
    )
    assert compared.nets["pre-trained network"][1, 1].start == "pre-trained layers"
    for name in names:
        own = compared.accuracies.query("classifier == @name")["validation"]
        assert compared.right[name].shape == (12,)
        assert compared.right[name].mean() == pytest.approx(own.mean())  # the classes are of one size
    assert len(compared.reconstruction) == 2
    table = study.classifiers_table(compared)
    assert table["classifier"].tolist() == names


def test_shares_of_even_maps_are_those_of_the_volume(heads, run):
    samples = heads[:2]
    even = np.ones((2, 1, *heads.shape), dtype=np.float32)
    inside = np.stack(
        [tissue_masks(samples.label_map(i), samples.affine, rim=5.0)["inside"] for i in range(2)]
    )[:, None]
    maps = {"gradient": even, "deconvolution": -inside.astype(np.float32)}
    found = study.shares_by_method(run, maps, samples, study.method_table(maps), network="net").set_index(
        "method"
    )
    np.testing.assert_allclose(found.iloc[0].astype(float), found.loc["share of the volume"].astype(float))
    assert found.iloc[1].tolist() == [0, 0, 0, 1]


def test_the_task_of_sexes():
    made = study.task_heads(
        "sex", 2, size_effect=0.1, face_effect=0.1, brain_effect=0.1, spacing=9.0, seed=0, progress=False
    )
    assert made.class_names == ("female", "male")
