import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from xaitools.data import Samples
from xaitools.study import error_and_score, error_table, method_table, prediction_errors, read_published
from xaitools.study.network import Trained


class Mean(nn.Module):
    """Says 10 times the mean of the image."""

    def forward(self, images):
        return 10 * images.flatten(1).mean(dim=1, keepdim=True)


@pytest.fixture
def net():
    return Trained("vgg8", Mean(), "random weights")


@pytest.fixture
def samples():
    images = torch.tensor([0.1, 0.5, 1.0])[:, None, None, None].expand(3, 1, 2, 2).clone()
    names = ("sub-1", "sub-2", "sub-3")
    sizes = {"pixel size (mm)": torch.tensor([0.1, 0.2, 0.4])}
    return Samples(images, torch.tensor([2.0, 5.0, 7.0]), names, names, unit="px", numbers=sizes)


def test_errors_are_absolute_and_in_both_units(net, samples):
    table = prediction_errors(net, samples, fold=2, units={"mm": "pixel size (mm)"}, device="cpu")
    assert list(table["network"]) == ["vgg8"] * 3
    assert list(table["fold"]) == [2] * 3
    assert list(table["predicted"]) == pytest.approx([1, 5, 10])
    assert list(table["error (px)"]) == pytest.approx([1, 0, 3])
    assert list(table["error (mm)"]) == pytest.approx([0.1, 0, 1.2])


def test_the_table_of_errors_stands_beside_the_paper_and_is_recorded(net, samples, run):
    errors = prediction_errors(net, samples, units={"mm": "pixel size (mm)"}, device="cpu")
    table = error_table(run, errors, {"vgg8": net}, read_published("fetal_hc"), {"vgg8": "vgg16"})
    (row,) = table.to_dict("records")
    assert row == {
        "network": "vgg8",
        "started from": "random weights",
        "test images": 3,
        "MAE (px)": "1.33 ± 1.53",
        "MAE (mm)": "0.43 ± 0.67",
        "published": "40.17 ± 40.99 px, 5.46 ± 5.99 mm with vgg16 (section 3.1)",
    }
    run.finish()
    recorded = pd.read_csv(run.output_dir / "metrics.csv").set_index("metric")["value"]
    assert recorded["MAE (px)"] == pytest.approx(4 / 3)
    assert recorded["MAE (px), standard deviation"] == pytest.approx(np.std([1, 0, 3], ddof=1))


def test_badly_measured_images_are_compared_with_well_measured_ones(run, recorded):
    errors = np.array([1.0, 2, 3, 4, 5, 6])
    scores = {"gradient": np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])}
    table = error_and_score(run, errors, scores, method_table(scores), metric="AUC", network="net")
    (row,) = table.to_dict("records")
    assert row["AUC, better half"] == "0.800"
    assert row["AUC, worse half"] == "0.500"
    assert row["rank correlation with the error"] == "-1.00"
    assert row["p"] == "< 0.001"
    assert recorded()["gradient", "rank correlation of error and AUC"] == pytest.approx(-1)
