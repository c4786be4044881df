from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from xaitools import study
from xaitools.atlas import Atlas
from xaitools.data import load_brains
from xaitools.errors import DataError, MethodError, ParameterError
from xaitools.evaluation import lateral_asymmetry, region_volumes
from xaitools.phantoms import synthetic_heads
from xaitools.phantoms.heads import head_label_numbers
from xaitools.study import words
from xaitools.study.known_signal import KINDS, UNTRAINED
from xaitools.study.regions import Regions

METHODS = ["gradient", "input_x_gradient"]


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return synthetic_heads(12, spacing=8, shape=(20, 23, 20), seed=0, cache_dir=folder, progress=False)


class Oracle(nn.Module):
    """Knows the target of each head by the head itself, and looks at one place or everywhere."""

    def __init__(self, samples, answers, place):
        super().__init__()
        self.register_buffer("place", place.float())
        self.register_buffer("images", samples.images[:].flatten(1).double())
        self.register_buffer("answers", answers.double())
        self.linear = nn.Linear(1, 1)

    def forward(self, images):
        nearest = torch.cdist(images.flatten(1).double(), self.images).argmin(dim=1)
        said = self.answers[nearest].float()[:, None]
        seen = (images * self.place).flatten(1).sum(dim=1, keepdim=True)
        return said + 0 * self.linear(seen) + self.linear.weight * (seen - seen.detach())


def test_targets_are_what_the_label_maps_measure(heads):
    numbers = head_label_numbers()
    sides = [numbers[f"lateral ventricle {side}"] for side in ("left", "right")]
    volume = study.known_target(heads, "LateralVentricle")
    assert volume.name == "volume of the lateral ventricle"
    assert volume.relevant == tuple(sides)
    assert volume.samples.unit == "ml"
    assert volume.samples.is_regression
    expected = region_volumes(heads, {"both": sides})["both"]
    np.testing.assert_allclose(volume.samples.labels, expected, rtol=1e-6)
    asymmetry = study.known_target(heads, "lateral ventricle", "asymmetry")
    np.testing.assert_allclose(
        asymmetry.samples.labels, 100 * lateral_asymmetry(heads, [sides[0]], [sides[1]]), rtol=1e-5
    )
    assert asymmetry.samples.unit == "%"
    assert asymmetry.regions["hippocampus"] == [1, 2]
    assert asymmetry.regions["lateral ventricle"] == sides


def test_images_without_the_structure_are_left_out_and_counted(heads, monkeypatch):
    gone = [np.where(np.isin(heads.label_map(i), [9, 10]), 25, heads.label_map(i)) for i in range(2)]
    original = type(heads).label_map
    own = {names: gone[i] for i, names in enumerate(heads.names[:2])}
    monkeypatch.setattr(
        type(heads),
        "label_map",
        lambda self, i: own[name] if (name := self.names[i]) in own else original(self, i),
    )
    for kind in KINDS:
        target = study.known_target(heads, "lateral ventricle", kind)
        assert target.samples.names == heads.names[2:]
        assert target.samples.info["without the structure"] == 2


def test_a_network_that_knows_its_target_and_looks_at_the_place_is_told_from_one_that_does_not(
    heads, run, recorded, monkeypatch
):
    target = study.known_target(heads, "lateral ventricle", "volume")
    place = torch.isin(heads.label_maps[:], torch.tensor(target.relevant)).any(dim=0)
    seen = Oracle(target.samples, target.samples.labels, place)
    monkeypatch.setattr(
        study.known_signal, "train_or_load", lambda *_, **__: study.Trained("oracle", seen, "")
    )
    blind = Oracle(target.samples, target.samples.labels, ~place)
    monkeypatch.setattr(study.known_signal, "untrained", lambda *_: blind)
    options = {
        "network": "oracle",
        "kinds": ["volume"],
        "n_permutations": 9,
        "progress": False,
        "fractions": (0.3, 0.2, 0.5),
    }
    found = study.known_signal_table(run, heads, METHODS, device="cpu", **options)
    row = found.errors.iloc[0]
    assert row["learned"]
    assert row["MAE"] == pytest.approx(0, abs=1e-5)
    assert row["R2"] == pytest.approx(1)
    assert row["n"] == 6
    assert found.pointing == {"volume of the lateral ventricle": METHODS}
    assert set(found.images["method"]) == {
        *METHODS, *map(UNTRAINED.format, METHODS), "smooth noise", "intensity", "edges",
    }  # fmt: skip
    assert not found.images.loc[found.images["method"].isin(METHODS), "control"].any()
    view = study.known_signal_view(found, {"gradient": "a gradient"})
    assert view["method"].iloc[0] == "a gradient"
    assert view["points at it"].tolist() == ["yes"] * 2 + [""] * 5
    written = recorded()
    auc = found.scores.query("method == 'gradient' and measure == 'auc'")["value"].item()
    assert written["gradient", "volume of the lateral ventricle: auc"] == pytest.approx(auc)
    assert written["", "volume of the lateral ventricle: MAE of the mean"] > 0.1


def test_maps_of_a_network_that_learned_nothing_are_not_judged(heads, run, monkeypatch):
    target = study.known_target(heads, "lateral ventricle", "volume")
    place = torch.isin(heads.label_maps[:], torch.tensor(target.relevant)).any(dim=0)
    seen = Oracle(target.samples, target.samples.labels.mean().expand(len(heads)), place)
    monkeypatch.setattr(
        study.known_signal, "train_or_load", lambda *_, **__: study.Trained("oracle", seen, "")
    )
    options = {
        "network": "oracle",
        "kinds": ["volume"],
        "n_permutations": 0,
        "progress": False,
        "n_explained": 2,
    }
    found = study.known_signal_table(run, heads, ["gradient", "grad_cam"], device="cpu", **options)
    assert not found.errors["learned"].any()
    assert found.pointing == {"volume of the lateral ventricle": []}
    assert (study.known_signal_view(found)["points at it"] == "?").all()
    assert list(found.failed) == [("volume of the lateral ventricle", "grad_cam")]
    assert found.images["image"].nunique() == 2


def test_an_untrained_copy_has_new_weights_and_leaves_the_network_and_the_randomness_alone():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(2, 1))
    net[1].running_mean.fill_(4)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.random.get_rng_state()
    first, second, other = (study.untrained(net, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert not torch.equal(first[3].weight, net[3].weight)
    assert not first[1].running_mean.any()
    assert not first.training


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"structure": "lateral ventricel"}, ParameterError, "expected one such as 'lateral ventricle'"),
        ({"kind": "size"}, ParameterError, "kind='size'"),
        ({"regions": "atlas"}, DataError, "regions of an atlas"),
        (
            {"regions": "unnamed", "structure": "label 9", "kind": "asymmetry"},
            ParameterError,
            "no left and right",
        ),
        ({"samples": "two"}, DataError, "2 images with 'thalamus'"),
        ({"samples": "bare"}, DataError, "no label maps"),
    ],
)
def test_targets_that_cannot_be_measured_are_refused(heads, change, error, message):
    atlas = Atlas(heads.label_map(0), heads.affine, {n: name for name, n in head_label_numbers().items()})
    values = {
        "atlas": Regions("an atlas", atlas), "unnamed": Regions("numbers"), "two": heads[:2],
        "bare": replace(heads, label_maps=None),
    }  # fmt: skip
    options = {"samples": heads, "structure": "thalamus", "kind": "volume"} | change
    options = {
        name: values.get(value, value) if isinstance(value, str) else value for name, value in options.items()
    }
    with pytest.raises(error, match=message):
        study.known_target(options.pop("samples"), **options)


@pytest.mark.parametrize("augment", ["flip_and_shift", "rotation_and_scaling"])
def test_augmentations_that_change_the_target_are_refused(heads, run, augment):
    with pytest.raises(ParameterError, match="mirrors or scales"):
        study.known_signal_table(run, heads, METHODS, network="head_cnn_small", augment=augment)


def test_names_of_methods_are_read_before_a_network_is_trained(heads, run):
    with pytest.raises(MethodError, match="gradiant"):
        study.known_signal_table(run, heads, ["gradiant"], network="head_cnn_small", max_epochs=10**6)


def test_what_is_said_depends_on_whether_the_network_learned_and_a_method_points():
    errors = {
        "network": "net_1",
        "target": "volume of x",
        "unit": "ml",
        "MAE": 1.0,
        "MAE of the mean": 2.0,
        "R2": 0.7,
    }
    said = words.known_signal({**errors, "learned": False}, [], 3)
    assert "cannot be judged" in said
    assert "point" not in said
    assert "None of 3 methods points" in words.known_signal({**errors, "learned": True}, [], 3)
    said = words.known_signal({**errors, "learned": True}, ["a", "b"], 3, {"a": "A_1"})
    assert "2 of 3 methods point at its place more than every control does: A\\_1 and b." in said
    assert said.startswith(
        "**net\\_1** predicts the volume of x (mean absolute error 1 ml, of the mean 2 ml, R² 0.70)."
    )


def test_ixi_is_measured_and_explained(real_data, run, tmp_path):
    """Takes 20 s: a network that had no time to learn, so none of its maps is judged."""
    folder = real_data / "ixi"
    brains = load_brains(
        folder, label_column="Sex", space="centered", spacing=8, shape=(22, 26, 22), n_subjects=10,
        cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    regions = study.brain_regions(brains, folder=str(folder), space="centered")
    found = study.known_signal_table(
        run, brains, ["gradient"], network="head_cnn_small", kinds=["asymmetry"], regions=regions, device="cpu",
        n_permutations=9, max_epochs=1, progress=False,
    )  # fmt: skip
    assert found.errors["target"].tolist() == ["asymmetry of the lateral ventricle"]
    assert found.images["n_regions"].between(30, 120).all()
    assert isinstance(found.scores, pd.DataFrame)
    assert found.images["auc"].between(0, 1).all()
    target = study.known_target(brains, "LateralVentricle", regions=regions)
    assert 8 < float(target.samples.labels.mean()) < 40
    assert target.relevant == (52, 51) or target.relevant == (51, 52)
