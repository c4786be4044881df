import numpy as np
import pytest
import torch
from torch import nn

from xaitools.attribution import attribute
from xaitools.data import Samples
from xaitools.errors import XaitoolsError
from xaitools.maps import load_map, map_path
from xaitools.study import explain, explain_each
from xaitools.study import explaining as module

METHODS = ["gradient", "gradient+absolute", "input_x_gradient"]


@pytest.fixture
def samples():
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = tuple(f"sub-{i}" for i in range(3))
    return Samples(images, torch.tensor([0, 1, 1]), names, names, class_names=("no", "yes"))


def network(activation=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), activation(), nn.Flatten(), nn.Linear(72, 2)).eval()


def test_maps_are_those_of_attribute_under_their_full_names(samples, tmp_path):
    maps, failed = explain(network(), samples, METHODS, tmp_path, target=1)
    expected = attribute(network(), samples.images, 1, METHODS, progress=False)
    assert list(maps) == METHODS
    assert failed == {}
    for name in METHODS:
        assert maps[name].shape == (3, 1, 8, 8)
        np.testing.assert_allclose(maps[name], expected[name].numpy(), rtol=1e-5, atol=1e-7)


def test_a_second_call_computes_only_what_is_missing(samples, tmp_path, monkeypatch):
    first, _ = explain(network(), samples, METHODS, tmp_path, target=1)
    map_path(tmp_path, "sub-1", "gradient+absolute").unlink()
    asked = []

    def counting(model, images, target, methods, **settings):
        asked.append(methods)
        return attribute(model, images, target, methods, **settings)

    monkeypatch.setattr(module, "attribute", counting)
    again, _ = explain(network(), samples, METHODS, tmp_path, target=1)
    assert asked == [["gradient+absolute"]]
    for name in METHODS:
        np.testing.assert_array_equal(first[name], again[name])


@pytest.mark.parametrize("changed", ["weights", "target", "settings", "key", "references"])
def test_maps_made_under_other_conditions_are_made_again(samples, tmp_path, changed):
    explain(network(), samples, ["gradient"], tmp_path, target=1)
    before = (tmp_path / "sub-0_desc-gradient_map.npz").stat().st_mtime_ns
    model, options = network(), {"target": 1}
    if changed == "weights":
        model[0].bias.data += 1
    options |= {"target": {"target": 0}, "settings": {"steps": 3}, "key": {"key": {"score": "log-odds"}}}.get(
        changed, {}
    )
    options |= {"references": samples[[0]]} if changed == "references" else {}
    explain(model, samples, ["gradient"], tmp_path, **options)
    assert (tmp_path / "sub-0_desc-gradient_map.npz").stat().st_mtime_ns > before


def test_the_key_is_that_of_maps_already_on_disk(samples, tmp_path):
    """Weights, target, image, references and settings: a change here makes everybody's maps again."""
    import json

    from xaitools.models import fingerprint

    explain(network(), samples, ["gradient"], tmp_path, target=1, references=samples, steps=2, seed=0)
    sidecar = json.loads((tmp_path / "sub-2_desc-gradient_map.json").read_text())
    assert sidecar["key"] == {
        "weights": fingerprint(network()),
        "target": 1,
        "image": samples[[2]].fingerprint(),
        "references": samples.fingerprint(),
        "steps": 2,
        "seed": 0,
    }


def test_one_method_that_cannot_does_not_cost_the_others_their_maps(samples, tmp_path):
    methods = ["guided_backprop", "gradient"]
    maps, failed = explain(network(nn.GELU), samples, methods, tmp_path, target=1)
    assert list(maps) == ["gradient"]
    assert list(failed) == ["guided_backprop"]
    assert "No ReLU" in str(failed["guided_backprop"])


def test_a_method_that_fails_late_has_no_maps_at_all(samples, tmp_path):
    images = samples.images.clone()
    images[2] = 0.5  # constant: no noise level for SmoothGrad
    late = Samples(images, samples.labels, samples.subjects, samples.names, class_names=samples.class_names)
    maps, failed = explain(network(), late, ["gradient+smoothgrad", "gradient"], tmp_path, target=1, draws=2)
    assert list(maps) == ["gradient"]
    assert "constant" in str(failed["gradient+smoothgrad"])


def test_the_error_is_raised_where_no_method_is_left(samples, tmp_path):
    with pytest.raises(XaitoolsError, match="No ReLU was found"):
        explain(network(nn.GELU), samples, ["guided_backprop"], tmp_path, target=1)


def test_one_after_the_other(samples, tmp_path):
    each = explain_each(network(), samples, METHODS, tmp_path, target=1)
    found = next(each)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(METHODS, (8, 8))
    assert load_map(tmp_path, "sub-0", "gradient") is not None
    assert load_map(tmp_path, "sub-1", "gradient") is None


def test_sidecars_name_the_layer_that_was_looked_at(samples, tmp_path):
    import json

    explain(network(), samples, ["grad_cam", "grad_cam[0]", "gradient"], tmp_path, target=1)
    sidecars = [json.loads(path.read_text()) for path in tmp_path.glob("sub-0_*.json")]
    layers = {sidecar["method"]: sidecar.get("layer") for sidecar in sidecars}
    assert layers == {"grad_cam": "1", "grad_cam[0]": "0", "gradient": None}
