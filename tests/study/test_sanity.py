"""Sanity checks of a run: steps are kept, tables hold what the tests found, twins are those of the tests."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from xaitools import study
from xaitools.attribution import attribute
from xaitools.data import Samples
from xaitools.errors import ParameterError
from xaitools.evaluation import Randomization, complexity_rise, model_randomization
from xaitools.evaluation import randomization as evaluated
from xaitools.models import Network
from xaitools.study import read_published
from xaitools.study.network import Trained
from xaitools.study.sanity import kept

METHODS = ["gradient", "guided_backprop"]


@pytest.fixture(scope="module")
def samples():
    images = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    images[1::2, :, :6] *= 0.2
    names = tuple(f"sub-{i}" for i in range(4))
    return Samples(images, torch.tensor([0, 1, 0, 1]), names, names, class_names=("no", "yes"))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
    )  # fmt: skip
    return Trained("net", model.eval(), "the file")


BLOCKS = [["0", "1"], ["3"], ["6"]]


@pytest.fixture
def calls(monkeypatch):
    """How often maps were made."""
    made = []

    def counted(*args, **settings):
        made.append(args[3])
        return attribute(*args, **settings)

    monkeypatch.setattr(evaluated, "attribute", counted)
    return made


def redraw(run, net, samples, **options):
    options = {
        "target": 1,
        "layers": BLOCKS,
        "similarities": ["spearman", "ssim"],
        "progress": False,
        **options,
    }
    return study.randomization_runs(run, net, samples, METHODS, **options)


def test_what_is_read_again_is_what_was_found(run, net, samples, calls):
    (first,) = redraw(run, net, samples).values()
    assert len(calls) == 4  # itself, and three networks
    (again,) = redraw(run, net, samples).values()
    assert len(calls) == 4
    pd.testing.assert_frame_equal(first.table, again.table)
    direct = model_randomization(
        net.model, samples.images, 1, METHODS, layers=BLOCKS, similarities=["spearman", "ssim"], progress=False
    )  # fmt: skip
    pd.testing.assert_frame_equal(first.table, direct.table)


def test_a_run_that_was_stopped_repeats_no_network(run, net, samples, calls):
    (first,) = redraw(run, net, samples).values()
    calls.clear()
    (run.output_dir / "sanity" / "top-down_draw-0_step-2.json").write_text("{")
    (again,) = redraw(run, net, samples).values()
    assert len(calls) == 2  # the network itself, to be compared with, and the one that was lost
    pd.testing.assert_frame_equal(first.table, again.table)


@pytest.mark.parametrize(
    "changed", [{"target": 0}, {"seed": 1}, {"steps": 3}, {"layers": BLOCKS[1:]}, {"samples": 3}]
)
def test_other_conditions_are_other_tests(run, net, samples, calls, changed):
    redraw(run, net, samples)
    calls.clear()
    few = samples[list(range(changed.pop("samples", 4)))]
    redraw(run, net, few, **changed)
    assert len(calls) >= 3  # blocks may be two


def test_each_test_is_its_own(run, net, samples):
    found = redraw(run, net, samples, tests=list(study.sanity.TESTS), draws=2, similarities=["spearman"])
    kinds = {
        name: tuple(own.table.iloc[0][["order", "direction", "explained"]]) for name, own in found.items()
    }
    assert kinds == {
        "top-down": ("cascading", "top-down", "fixed"),
        "bottom-up": ("cascading", "bottom-up", "fixed"),
        "one layer at a time": ("independent", "top-down", "fixed"),
        "top-down, argmax": ("cascading", "top-down", "argmax"),
        "smooth": ("cascading", "bottom-up", "fixed"),
    }
    assert "gradient+smoothgrad" in set(found["smooth"].table.method)
    with pytest.raises(ParameterError, match="test='sideways' is unknown"):
        redraw(run, net, samples, tests=["sideways"])


def test_damaged_files_are_made_again(tmp_path, caplog):
    keep = kept(tmp_path, "a, b", {"key": 1})
    assert keep("step", lambda: {"rows": [1]}) == {"rows": [1]}
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps([1]))
    assert keep("step", lambda: {"rows": [2]}) == {"rows": [2]}
    assert "is damaged" in caplog.text
    assert kept(tmp_path, "a, b", {"key": 2})("step", lambda: {"rows": [3]}) == {"rows": [3]}


def test_blocks_hold_the_normalisation_that_follows(net, samples):
    assert study.redrawn_blocks(net, samples) == BLOCKS


def test_maps_are_those_of_the_twins_of_the_test(run, net, samples):
    found = study.redrawn_maps(run, net, samples, METHODS, blocks=BLOCKS, seed=3, target=1, progress=False)
    assert list(found) == ["none", "6 Linear", "0 Conv2d and above"]
    network = Network(net.model, samples.images[:1])
    for name, layers in zip(found, ([], ["6"], network.layers), strict=True):
        twin = network.randomized(layers, 3)
        expected = attribute(twin, samples.images, 1, METHODS, progress=False)
        for method in METHODS:
            np.testing.assert_allclose(found[name][method], expected[method], atol=1e-6)


@pytest.fixture
def tests(run, net, samples):
    found = redraw(run, net, samples, tests=["top-down", "smooth"], draws=2)
    return found


def test_the_table_holds_verdicts_under_the_maps_they_are_about(run, net, samples, tests, recorded):
    named = study.method_table(METHODS)
    rise = complexity_rise(net.model, samples.images, 1, METHODS, progress=False)
    table = study.sanity_table(run, tests, named, upper=1, rise=rise)
    verdicts = tests["top-down"].verdicts().set_index(["method", "similarity", "absolute"])
    upper = tests["top-down"].verdicts(last=1).set_index(["method", "similarity", "absolute"])
    rows = table.set_index(["test", "method", "similarity", "absolute"])
    key = ("guided_backprop", "ssim", True)
    assert rows.value[("top-down", *key)] == verdicts.randomized[key]
    assert rows.value[("top-down, upper layers", *key)] == upper.randomized[key]
    assert rows.verdict[("top-down", *key)] == verdicts.verdict[key]
    smooth = tests["smooth"].verdicts().set_index(["method", "similarity", "absolute"])
    assert rows.value[("smooth", *key)] == smooth.randomized[("guided_backprop+smoothgrad", "ssim", True)]
    numbers = recorded()
    assert numbers["guided_backprop", "ssim, absolute, top-down"] == pytest.approx(verdicts.randomized[key])
    assert ("gradient", "rise of complexity") in numbers
    wide = study.who_passes(table).set_index("method")
    assert list(wide.index) == ["BP", "GB", "noise"]
    assert list(wide.columns) == ["top-down", "smooth", "top-down, upper layers", "complexity"]
    own = verdicts.loc["gradient", "spearman", True]
    assert wide.at["BP", "top-down"] == f"{own.verdict} ({own.randomized:.2f})"
    ways = study.by_similarity(table, "top-down").set_index("method")
    assert ways.at["GB", "ssim, absolute"] == f"{verdicts.verdict[key]} ({verdicts.randomized[key]:.2f})"


def test_curves_are_named_as_they_are_drawn(net, tests):
    curves = study.randomization_curves(tests["top-down"], net.model, study.method_table(METHODS))
    assert list(dict.fromkeys(curves["layer"])) == ["none", "6 Linear", "3 Conv2d", "0 Conv2d"]
    assert set(curves["method"]) == {"BP", "GB", "noise"}
    summary = tests["top-down"].summary()
    own = summary[(summary.method == "gradient") & summary.absolute & (summary.similarity == "spearman")]
    where = (
        (curves["method"] == "BP") & (curves["values"] == "absolute") & (curves["similarity"] == "spearman")
    )
    np.testing.assert_array_equal(curves[where].value, own["mean"])


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ("passes", "agrees"),
        ("fails", "differs"),
        ("undecided", "undecided"),
        ("noise", "undecided: the map is noise"),
    ],
)
def test_claims_are_judged_by_the_verdict(found, verdict):
    published = read_published("sanity_checks")
    row = {
        "test": "top-down",
        "method": "gradient",
        "label": "BP",
        "similarity": "spearman",
        "absolute": False,
    }
    table = pd.DataFrame([{**row, "value": 0.1, "low": 0.0, "high": 0.2, "verdict": found}])
    claims = study.sanity_claims(published, table, study.method_table(["gradient"]))
    assert len(claims) == len(published)
    assert claims[0]["verdict"] == verdict
    assert claims[0]["this run"] == f"0.10 (0.00 to 0.20) left: {found}"
    assert {row["verdict"] for row in claims[1:]} == {"not tested: not among the maps of this run"}


def test_a_network_of_ones_own_is_redrawn_to_learn_permuted_labels(run, net, samples, recorded):
    found = study.permuted_network(
        run, net, "", samples, samples, METHODS, target=1, similarities=["spearman"], max_epochs=150, batch_size=4,
        learning_rate=0.01, device="cpu", progress=False,
    )  # fmt: skip
    assert found.memorised == 1
    assert recorded()["", "permuted labels memorised"] == 1
    assert {type(layer) for layer in found.model} == {type(layer) for layer in net.model}


def test_maps_whose_sign_has_turned_are_told_from_those_that_changed():
    rows = [
        {"method": name, "similarity": "spearman", "absolute": False, "k": k, "image": image, "value": value}
        for name, values in {
            "gradient": (0.1, -0.1),
            "guided_backprop": (0.9, -0.9),
            "lrp[epsilon]": (0.9, 0.9),
        }.items()
        for k in (0, 1)
        for image, value in enumerate(values if k else (1, 1))
    ]
    found = study.turned_over(Randomization(pd.DataFrame(rows), {}), study.method_table(METHODS))
    assert found == {"GB": pytest.approx(0.9)}
