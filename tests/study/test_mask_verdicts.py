"""The poster's claims: when they agree, differ, are undecided or not tested."""

import numpy as np
import pandas as pd
import pytest

from xaitools.study import mask_claims, published_by_metric, read_published

PUBLISHED = published_by_metric(read_published("ad_mask"))
PAIRS = ("own", "inter-run", "inter-fold")


def verdicts(lowest, prob, cosine, auc):
    weights = pd.DataFrame(np.array([[1, lowest], [lowest, 1.0]]))
    rows = [("prob_CNN", kind, value) for kind, value in zip(PAIRS, prob, strict=False)]
    rows += [("ROI cosine", kind, value) for kind, value in zip(PAIRS, cosine, strict=False)]
    robustness = pd.DataFrame(rows, columns=["measure", "pairs", "value"])
    regions = pd.DataFrame({"AUC": auc}) if auc else pd.DataFrame({"mask": ["a"]})
    return [row["verdict"] for row in mask_claims(weights, robustness, regions, PUBLISHED)]


def test_the_posters_own_numbers_agree():
    assert verdicts(0.83, (0.05, 0.82, 0.78), (1, 0.69, 0.65), [0.9, 0.8]) == ["agrees"] * 5


def test_opposite_numbers_differ():
    assert verdicts(0.5, (0.05, 0.1, 0.1), (1, 0.7, 0.9), [0.9, 0.2]) == ["differs"] * 5


def test_small_margins_are_undecided():
    found = verdicts(0.7, (0.05, 0.52, 0.48), (1, 0.69, 0.68), [0.54])
    assert found == ["undecided: too close to call"] * 5


@pytest.mark.parametrize(("prob", "cosine"), [((0.1,), (1,)), ((), ())])
def test_what_was_not_measured_is_not_tested(prob, cosine):
    assert {own.split(":")[0] for own in verdicts(0.9, prob, cosine, [])} == {"not tested"}
