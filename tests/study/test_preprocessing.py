"""The preprocessing study on balls in balls: what is trained on what, controls, mean maps, shares."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from xaitools.data import Volumes, brain_volumes, load_brains
from xaitools.data.lazy import LazyTensor, cached
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.models import load_model
from xaitools.study import (
    PREPROCESSINGS,
    Context,
    mean_cams,
    preprocessing_accuracies,
    preprocessing_networks,
    preprocessing_table,
    preprocessings,
    score_against,
    shares_table,
    volume_controls,
    with_brain_mean,
)
from xaitools.study.network import Trained
from xaitools.study.preprocessing import RESIZED, TRAINING, VALIDATION

SHAPE = (24, 24, 24)
AFFINE = np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = -46


def ball(radius: float, what: str) -> np.ndarray:
    """A brain in a larger head."""
    distance = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) * 4.0 - 46, axis=-1)
    if what == "label map":
        return (distance < radius).astype(np.int64)
    return (0.3 * (distance < radius + 8) + 0.5 * (distance < radius)).astype(np.float32)


def heads_of(radii, labels, folder, *, mapped=True) -> Volumes:
    def lazy(what, dtype):
        keys = [{"radius": float(radius), "what": what} for radius in radii]
        items = cached(folder, "balls", keys, [partial(ball, radius, what) for radius in radii])
        return LazyTensor(items, SHAPE, dtype)

    names = tuple(f"sub-{i + 1:03d}" for i in range(len(radii)))
    return Volumes(
        images=lazy("image", torch.float32),
        labels=torch.tensor(labels),
        subjects=names,
        names=names,
        class_names=("female", "male"),
        affine=AFFINE,
        label_maps=lazy("label map", torch.int64) if mapped else None,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def heads(folder) -> Volumes:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    return heads_of(rng.normal(28, 1.2, 24) + 3 * labels, labels.tolist(), folder)


class Size(nn.Module):
    """Calls a head male if there is much of it; its Grad-CAM layer is as large as the image."""

    def __init__(self, middle: float):
        super().__init__()
        self.features = nn.Sequential(nn.Conv3d(1, 1, 1, bias=False), nn.ReLU())
        self.middle = middle
        nn.init.ones_(self.features[0].weight)

    def forward(self, images):
        size = self.features(images).mean((1, 2, 3, 4)) - self.middle
        return torch.stack([-size, size], dim=1) * 1000


@pytest.fixture(scope="module")
def prepared(heads, folder):
    return preprocessings(heads, n_folds=3, seed=1, cache_dir=folder)


def nets_of(own):
    middle = float(own.heads.images[:].mean((1, 2, 3, 4)).median())
    return {Context(fold + 1, 1): Trained("size", Size(middle).eval(), "") for fold in range(3)}


def test_all_rows_share_their_folds_and_only_what_they_are_named_for_differs(prepared, heads):
    assert list(prepared) == list(PREPROCESSINGS)
    plain, stripped, *turned, resized = prepared.values()
    assert [own.augment for own in prepared.values()] == ["", "", "rotation", "rotation_and_scaling", ""]
    assert torch.equal(plain.heads.images[:], heads.images[:])
    assert torch.equal(stripped.heads.images[:], heads.images[:] * (heads.label_maps[:] > 0))
    for own in (stripped, *turned, resized):
        for fold, first in zip(own.folds, plain.folds, strict=True):
            assert fold.training.names == first.training.names
            assert (
                fold.validation.names == first.validation.names == tuple(heads.names[i] for i in fold.shown)
            )
            assert torch.equal(fold.validation.images[:], stripped.heads.images[fold.shown])
            assert not set(fold.training.subjects) & set(fold.validation.subjects)
    assert sorted(np.concatenate([fold.shown for fold in plain.folds])) == list(range(24))


def test_training_heads_are_resized_and_validation_heads_are_not(prepared):
    for fold, before in zip(
        prepared["skull stripped, optimal scaling"].folds, prepared["none"].folds, strict=True
    ):
        male = fold.training.labels.numpy() == 1
        trained, judged = fold.sizes
        assert trained[male].mean() == pytest.approx(trained[~male].mean())
        assert before.sizes[0][male].mean() > 1.2 * before.sizes[0][~male].mean()
        np.testing.assert_array_equal(judged, before.sizes[1])
        bright = fold.training.images[:].sum((1, 2, 3, 4)).numpy()
        assert bright[male].mean() == pytest.approx(bright[~male].mean(), rel=0.02)
        shown, sizes = fold.resized
        men = shown.labels.numpy() == 1
        assert sizes[men].mean() == pytest.approx(sizes[~men].mean(), rel=0.15)
        assert (sizes[~men] == judged[~men]).all()
        assert not torch.equal(shown.images[:], fold.validation.images[:])
    assert prepared["none"].folds[0].resized is None


def test_networks_are_trained_on_the_rows_own_heads_and_augmentation(prepared, monkeypatch):
    import xaitools.study.preprocessing as module

    calls = []
    monkeypatch.setattr(
        module, "folds_and_runs", lambda *args, **options: (calls.append((args, options)), ({}, {}))[1]
    )
    for own in prepared.values():
        preprocessing_networks(own, "head_cnn_small", seed=3, max_epochs=2, augment="sagittal_flip")
    assert [options["augment"] for _, options in calls] == [own.augment for own in prepared.values()]
    (_, network, folds), options = calls[-1]
    assert network == "head_cnn_small"
    assert folds[0] == (prepared["skull stripped, optimal scaling"].folds[0].training, folds[0][1])
    assert (options["n_runs"], options["seed"], options["max_epochs"]) == (1, 3, 2)


def test_a_training_is_made_once(prepared):
    own = prepared["skull stripped, rotation and scaling"]
    own = replace(own, folds=own.folds[:1])
    settings = {"max_epochs": 1, "batch_size": 8, "device": "cpu", "progress": False}
    nets = preprocessing_networks(own, "head_cnn_small", **settings)
    assert list(nets) == [Context(1, 1)]
    assert not any(net.cached for net in nets.values())
    again = preprocessing_networks(own, "head_cnn_small", **settings)
    assert all(net.cached for net in again.values())


def test_accuracies_name_their_sets_and_the_table_has_their_mean(prepared, run, recorded):
    judged = []
    for own in prepared.values():
        judged.append(preprocessing_accuracies(run, own, nets_of(own), network="size"))
    first, last = judged[0], judged[-1]
    assert first.accuracies["set"].unique().tolist() == [TRAINING, VALIDATION]
    assert last.accuracies["set"].unique().tolist() == [TRAINING, VALIDATION, RESIZED]
    assert (first.predicted >= 0).all()
    said = first.predicted == prepared["none"].heads.labels.numpy()
    table = preprocessing_table(run, judged, network="size").set_index("preprocessing")
    assert table.loc["none", VALIDATION] == pytest.approx(said.mean())
    assert table.loc["none", VALIDATION] > 0.8
    values = first.accuracies.query("set == 'training'")["accuracy"]
    assert table.loc["none", f"{TRAINING}, sd"] == pytest.approx(np.std(values, ddof=1))
    resized = table.loc["skull stripped, optimal scaling"]
    assert resized[VALIDATION] > 0.8  # by size, which the training heads of the study would not have taught
    assert resized[RESIZED] < 0.75
    assert np.isnan(table.loc["none", RESIZED])
    assert recorded()["none", "accuracy, validation, mean"] == pytest.approx(said.mean())
    with pytest.raises(ParameterError, match="score='auc' is unknown"):
        preprocessing_table(run, judged, network="size", score="auc")


def test_controls_tell_what_size_alone_tells(prepared, run, recorded):
    tables = {}
    for name in ("none", "skull stripped, optimal scaling"):
        own = prepared[name]
        judged = preprocessing_accuracies(run, own, nets_of(own), network="size")
        tables[name] = volume_controls(run, own, judged, network="size", tolerance=4.0).set_index("control")[
            "value"
        ]
    plain, resized = tables.values()
    assert plain["majority class"] == 0.5
    assert plain["brain volume alone"] > 0.8
    assert plain["network"] > 0.8
    assert plain["network, matched heads"] < plain["network"] - 0.15
    assert plain["brain volume alone, matched heads"] < plain["brain volume alone"] - 0.15
    assert resized["brain volume alone"] == plain["brain volume alone"]
    assert abs(resized["brain volume alone, resized by class"] - 0.5) < 0.25
    assert recorded()["none", "control: network"] == plain["network"]


def test_classes_that_share_no_size_have_no_matched_heads(folder, run):
    (own,) = preprocessings(
        heads_of([20.0, 30.0] * 3, [0, 1] * 3, folder), ["none"], cache_dir=folder
    ).values()
    judged = preprocessing_accuracies(run, own, nets_of(own), network="size")
    found = volume_controls(run, own, judged, network="size")
    assert found["control"].tolist() == ["majority class", "brain volume alone", "network"]
    assert found["value"].tolist() == [0.5, 1, 1]


def test_mean_maps_and_shares_are_those_of_the_heads(prepared, run, recorded, tmp_path):
    own = prepared["none"]
    nets = nets_of(own)
    cams = mean_cams(own, nets, tmp_path, method="grad_cam[features.1]", progress=False)
    assert cams.empty == 12  # what speaks for a small head is nowhere
    assert not cams.means["female"].any()
    expected = np.mean(
        [
            image / image.sum()
            for image in own.heads.images[np.flatnonzero(own.heads.labels == 1)][:, 0].double().numpy()
        ],
        axis=0,
    )
    np.testing.assert_allclose(cams.means["male"], expected, atol=1e-6)
    table = shares_table(run, [cams], network="size").set_index("part")
    assert table.loc[["inside", "rim", "face", "other"], "share"].sum() == pytest.approx(1)
    assert table.loc["inside", "ratio"] > 1 > table.loc["other", "ratio"]
    assert (table["n"] == 12).all()
    assert recorded()["none", "share of the explanation: rim"] == table.loc["rim", "share"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    again = mean_cams(own, nets, tmp_path, method="grad_cam[features.1]", progress=False)
    assert before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == before
    pd.testing.assert_frame_equal(again.shares, cams.shares)


def test_heads_without_brains_and_classes_that_are_missing_are_refused(folder, run):
    labels = [0, 1] * 3
    bare = heads_of([20.0 + i for i in range(6)], labels, folder, mapped=False)
    with pytest.raises(DataError, match=r"Load them with label_maps.*or strip the skulls with a tool"):
        preprocessings(bare)
    (own,) = preprocessings(bare, ["none"]).values()
    with pytest.raises(DataError, match="these heads have no label maps"):
        mean_cams(own, {}, folder)
    rare = heads_of([20.0 + i for i in range(6)], [0, 0, 0, 0, 1, 1], folder)
    with pytest.raises(DataError, match=r"2 of class 'male' leave none for fold.*ask for fewer folds"):
        preprocessings(rare, cache_dir=folder)
    with pytest.raises(
        ParameterError, match="preprocessing='skull' is unknown; expected one of none, skull stripped"
    ):
        preprocessings(rare, ["skull"])
    with pytest.raises(ParameterError, match="onto='men' is unknown; expected one of female, male"):
        preprocessings(rare, onto="men")


def test_scores_against_what_is_known():
    volume = np.array([1.0, 2, 3, 4, 10])
    table = score_against({"volume": volume, "male": np.array([0, 0, 1, 1, 1.0])}, volume**3)
    found = table.set_index(["value", "measure"])["score"]
    assert found["volume", "Spearman"] == pytest.approx(1)
    assert found["volume", "Pearson"] == pytest.approx(np.corrcoef(volume, volume**3)[0, 1])
    assert found["male", "AUC"] == 1
    assert score_against({"volume": np.ones(5)}, volume)["score"].isna().all()
    with pytest.raises(ShapeError, match="expected one for each image"):
        score_against({"volume": volume}, volume[:3])
    with pytest.raises(DataError, match="NaN or infinite"):
        score_against({"volume": volume * np.nan}, volume)


def test_the_public_network_of_sex_goes_by_brain_volume(real_data, tmp_path):
    """Brains of IXI alone, on the network's own grid and scale; all 80 give 0.76 and 0.77."""
    volumes = load_brains(
        real_data / "ixi",
        label_column="Sex",
        classes=["F", "M"],
        space="centered",
        spacing=182 / 58,
        shape=(58, 70, 58),
        brain_mask="dseg",
        n_subjects=10,
        cache_dir=tmp_path,
        progress=False,
    )
    path = real_data / "networks" / "hcp_sex_3d.pt"
    net = load_model(str(path), network="head_cnn", n_outputs=2, input_size=volumes.shape)
    with torch.no_grad():
        female, male = net(with_brain_mean(volumes, 600.0)).T.numpy()
    found = score_against({"brain volume (ml)": brain_volumes(volumes)}, male - female)
    assert (found["score"] > 0.3).all()


def test_images_with_a_given_mean_in_the_brain(heads):
    found = with_brain_mean(heads, 600.0)
    brains = heads.label_maps[:] > 0
    for image, brain in zip(found, brains, strict=True):
        assert float(image[brain].mean()) == pytest.approx(600, rel=1e-5)
    torch.testing.assert_close(
        found / found.amax((2, 3, 4), keepdim=True),
        heads.images[:] / heads.images[:].amax((2, 3, 4), keepdim=True),
    )
