import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import Proxy

from xaitools.attribution import attribute
from xaitools.errors import MethodError, ParameterError, ShapeError
from xaitools.widgets import SliceViewer
from xaitools.widgets.explorer import NO_MAP, Explorer, explore

from .conftest import expected_pixels

SHAPE = (2, 1, 6, 8)


@pytest.fixture
def images(rng):
    return torch.tensor(rng.random(SHAPE), dtype=torch.float32)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()


class Slow:
    """Methods that compute step by step, each step only once `allow` is called."""

    def __init__(self, images):
        self.images, self.steps = images, threading.Semaphore(0)
        self.done: list[tuple[str, int]] = []

    def allow(self, steps):
        self.steps.release(steps)

    def __call__(self, method, tell):
        if method == "bad":
            raise MethodError("this <b>cannot</b> be")
        for step in range(10):
            tell(step, 10)
            assert self.steps.acquire(timeout=30)
            self.done.append((method, step))
        return self.images * 2 - len(method)


@pytest.fixture
def slow(images):
    return Slow(images)


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_the_first_map_comes_by_itself_and_others_when_chosen(model, images):
    methods = ["gradient", "gradient+smoothgrad@xrai", "deconvolution"]
    explorer = explore(model, images, 1, methods, names=["a", "b"], draws=3)
    explorer.wait()
    assert list(explorer.maps) == ["gradient"]
    assert explorer.viewer.method == "gradient"
    assert explorer.message.value == ""
    expected = attribute(model, images, 1, methods, draws=3, progress=False)
    explorer.choice.value = "deconvolution"
    explorer.wait()
    assert list(explorer.maps) == ["gradient", "deconvolution"]
    assert explorer.viewer.method == "deconvolution"
    for name, values in explorer.maps.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)


def test_regions_are_made_once_for_all_methods(model, rng, monkeypatch):
    images = torch.tensor(rng.random((2, 1, 24, 24)), dtype=torch.float32)
    big = nn.Sequential(nn.Flatten(), nn.Linear(576, 2)).eval()
    methods = ["gradient+absolute@xrai", "integrated_gradients[black]+absolute@xrai"]
    explorer = explore(big, images, 0, methods)
    explorer.wait()
    monkeypatch.setattr(sys.modules[Explorer.__module__], "segment_all", None)
    explorer.compute(methods[1])
    explorer.wait()
    expected = attribute(big, images, 0, methods, progress=False)
    assert explorer.maps.keys() == expected.keys()
    for name, values in explorer.maps.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)


class SlowToTrace(nn.Module):
    """A network of layers whose graph takes its time, so that threads meet in it."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            if isinstance(x, Proxy):
                time.sleep(0.02)
            x = layer(x)
        return x


def test_maps_can_be_computed_beside_those_that_are_explored(model, images):
    slow = SlowToTrace(model)
    methods = ["lrp[epsilon]", "occlusion[3:1]", "gradient"]
    expected = attribute(slow, images, 1, methods, progress=False)
    explorers = [explore(slow, images, 1, methods) for _ in range(2)]
    found = attribute(slow, images, 1, methods, progress=False)
    for explorer in explorers:
        explorer.wait()
        assert explorer.message.value == ""
        np.testing.assert_allclose(explorer.maps[methods[0]], expected[methods[0]], atol=1e-6)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)


def test_the_image_is_there_at_once_and_the_state_stays(images, slow):
    explorer = Explorer(slow, images, ["one", "two"], names=["a", "b"])
    first = explorer.viewer
    assert isinstance(first, SliceViewer)
    assert explorer.children[-1] is first
    assert first.method == NO_MAP
    first.image, first.opacity = 1, 0.3
    until(lambda: explorer.progress.layout.visibility == "visible")
    assert not explorer.cancel_button.disabled
    slow.allow(10)
    explorer.wait()
    viewer = explorer.viewer
    assert explorer.children[-1] is viewer
    assert (viewer.method, viewer.image, viewer.opacity) == ("one", 1, 0.3)
    assert [layer["name"] for layer in viewer.layers] == ["image", "one"]
    assert explorer.cancel_button.disabled
    assert explorer.progress.layout.visibility == "hidden"
    slow.allow(10)
    explorer.choice.value = "two"
    explorer.wait()
    assert [layer["name"] for layer in explorer.viewer.layers] == ["image", "one", "two"]
    assert explorer.viewer.compare == ["one", "two"]
    explorer.choice.value = "one"
    assert explorer.viewer.method == "one"
    assert len(slow.done) == 20


def test_a_map_that_is_no_longer_chosen_does_not_push_itself_forward(images, slow):
    explorer = Explorer(slow, images, ["one", "two"])
    slow.allow(10)
    explorer.wait()
    explorer.choice.value = "two"
    explorer.choice.value = "one"
    slow.allow(10)
    explorer.wait()
    assert list(explorer.maps) == ["one", "two"]
    assert explorer.viewer.method == "one"


def test_cancel_stops_at_the_next_step_and_one_can_try_again(images, slow):
    explorer = Explorer(slow, images, ["one", "two"])
    explorer.choice.value = "two"
    slow.allow(3)
    until(lambda: len(slow.done) == 3)
    explorer.cancel_button.click()
    slow.allow(1)
    explorer.wait()
    assert len(slow.done) <= 4
    assert explorer.maps == {}
    assert "cancelled" in explorer.message.value
    assert explorer.cancel_button.disabled
    assert not explorer.compute_button.disabled
    slow.allow(20)
    explorer.compute_button.click()
    explorer.wait()
    assert list(explorer.maps) == ["two"]
    assert explorer.compute_button.disabled


def test_cancelling_stops_an_occlusion_of_ten_thousand_windows(rng):
    torch.manual_seed(0)
    images = torch.tensor(rng.random((1, 1, 102, 102)), dtype=torch.float32)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(41616, 2)).eval()
    explorer = explore(net, images, 1, ["occlusion[3:1]"])
    until(lambda: explorer.progress.value > 0 or explorer.maps, 60)
    assert explorer.progress.max == 10_000
    explorer.cancel()
    explorer.wait()
    assert not explorer.maps
    assert "cancelled" in explorer.message.value


def test_cancelling_stops_the_network_between_two_batches(model, images):
    explorer = explore(model, images, 1, ["gradient+smoothgrad"], draws=100_000, batch_size=2)
    until(lambda: explorer.progress.value > 0)
    assert explorer.progress.max == 200_000
    started = time.monotonic()
    explorer.cancel()
    explorer.wait()
    assert time.monotonic() - started < 1
    assert "cancelled" in explorer.message.value
    assert explorer.maps == {}


def test_what_a_method_raises_is_shown_and_the_rest_goes_on(images, slow):
    explorer = Explorer(slow, images, ["bad", "one"])
    explorer.wait()
    assert "bad: failed. this &lt;b&gt;cannot&lt;/b&gt; be" in explorer.message.value
    assert not explorer.compute_button.disabled
    slow.allow(10)
    explorer.choice.value = "one"
    explorer.wait()
    assert explorer.viewer.method == "one"
    assert explorer.message.value == ""


def test_a_wrong_target_is_said_in_the_widget(model, images):
    explorer = explore(model, images, 7, ["gradient"])
    explorer.wait()
    assert "target 7" in explorer.message.value


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": []}, ParameterError, "no method to choose"),
        ({"methods": ["gradient", "gradient"]}, ParameterError, "named twice"),
        ({"images": torch.zeros(2, 2, 6, 8)}, ShapeError, "one channel, or three"),
        ({"names": ["a"]}, ShapeError, "1 names"),
    ],
)
def test_refuses(change, error, message, model, images):
    with pytest.raises(error, match=message):
        explore(**{"model": model, "images": images, "target": 0, "methods": ["gradient"], **change})


def test_labels_are_taken_and_methods_explained(model, images):
    explorer = explore(model, images, 1, ["BP", "IGBW SG2"], draws=2, steps=2)
    explorer.wait()
    expected = attribute(model, images, 1, ["gradient"], progress=False)["gradient"]
    np.testing.assert_allclose(explorer.maps["BP"], expected, atol=1e-6)
    assert explorer.idea.value == "gradient: How would the answer change if this pixel became brighter?"
    explorer.compute("IGBW SG2")
    assert explorer.idea.value.startswith("integrated_gradients[black+white]+smoothgrad_squared: How did")
    explorer.wait()
    assert explorer.viewer.layers[1]["about"].startswith("gradient: ")
    assert list(explore(model, images, 1, "BP").choice.options) == ["BP"]
    with pytest.raises(MethodError, match="Did you mean 'gradient'"):
        explore(model, images, 1, ["gradeint"])


def test_colour_images_are_explored(rng):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).eval()
    images = np.float32(rng.random((2, 3, 6, 8)))
    explorer = explore(net, images, 1, ["gradient"])
    explorer.wait()
    expected = attribute(net, images, 1, ["gradient"], progress=False)["gradient"]
    np.testing.assert_allclose(explorer.maps["gradient"], expected, atol=1e-6)
    assert explorer.message.value == ""


def test_refuses_a_method_that_was_not_offered(images, slow):
    explorer = Explorer(slow, images, ["bad"])
    with pytest.raises(ParameterError, match=r"no method 'two' here; there are \['bad'\]"):
        explorer.compute("two")


def test_an_export_shows_what_is_computed(model, images, open_viewers):
    explorer = explore(model, images, 1, ["gradient", "deconvolution"])
    explorer.wait()
    explorer.compute("deconvolution")
    explorer.wait()
    explorer.viewer.threshold, explorer.viewer.opacity = 0, 1
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert "deconvolution" in bundle["text/html"]
    (painted,) = open_viewers(explorer)
    low, high = float(images.min()), float(images.max())

    def check(method):
        values = explorer.maps[method][0, 0]
        expected = expected_pixels(
            images[0, 0].numpy(), values, opacity=1, threshold=0, signed=True, bounds=(low, high)
        )
        np.testing.assert_allclose(painted.pixels(8, 6), expected, atol=1)

    check("deconvolution")
    painted.control("method").select_option("gradient")
    check("gradient")
