"""The linear baseline against scikit-learn on the voxels themselves."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from xaitools.data import Samples
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.models import linear_baseline


def samples(n=40, seed=0, signal=0.2, per_subject=1, shape=(4, 3, 2)):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) // per_subject % 2
    images = rng.uniform(0.2, 0.7, (n, 1, *shape)).astype(np.float32)
    images[:, 0, 0, 0] += signal * labels[:, None].astype(np.float32)
    images[:, 0, 3, 2, 1] = 0.5
    subjects = tuple(f"sub-{i // per_subject:03d}" for i in range(n))
    names = tuple(f"{subject}_img-{i}" for i, subject in enumerate(subjects))
    return Samples(torch.from_numpy(images), torch.from_numpy(labels), subjects, names, ("F", "M"))


@pytest.mark.parametrize("kind", ["svm", "logistic"])
@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 30, 20)])
def test_decisions_and_weights_are_those_of_training_on_the_voxels(kind, shape):
    training, test = samples(shape=shape), samples(10, seed=1, shape=shape)
    found = linear_baseline(training, test, kind=kind, strengths=[0.3])
    x, y = training.images.flatten(1).double().numpy(), training.labels.numpy()
    spread = x.std(0)
    spread[spread < 1e-6] = 1
    lengths = np.sqrt((((x - x.mean(0)) / spread) ** 2).sum(1).mean())
    # images of length 1 with C are images as they are with C over the squared length
    strength = 0.3 / lengths**2
    options = {"C": strength, "tol": 1e-8}
    model = SVC(kernel="linear", **options) if kind == "svm" else LogisticRegression(max_iter=5000, **options)
    direct = make_pipeline(StandardScaler(), model).fit(x, y)
    expected = direct.decision_function(test.images.flatten(1).double().numpy())
    np.testing.assert_allclose(found.decisions, expected, atol=0.01)
    np.testing.assert_allclose(found.training_decisions, direct.decision_function(x), atol=0.01)
    weights = model.coef_[0] / spread
    np.testing.assert_allclose(found.weights.ravel(), weights, atol=0.02 * np.abs(weights).max())
    again = (test.images.numpy() * found.weights).reshape(len(test), -1).sum(1) + found.bias
    np.testing.assert_allclose(again, found.decisions, atol=1e-4)
    assert (found.predicted == (expected > 0)).all()


def test_it_finds_a_signal_and_none_where_there_is_none():
    test = samples(200, seed=1, signal=0.29)
    found = linear_baseline(samples(100, signal=0.29), test)
    assert (found.predicted == test.labels.numpy()).mean() > 0.85
    assert np.abs(found.weights[0, 0, 0]).mean() > 3 * np.abs(found.weights[0, 1:]).mean()
    assert found.weights[0, 3, 2, 1] == 0
    nothing = samples(200, seed=1, signal=0.0)
    guess = linear_baseline(samples(100, signal=0.0), nothing)
    assert abs((guess.predicted == nothing.labels.numpy()).mean() - 0.5) < 0.12
    assert (guess.training_predicted == samples(100).labels.numpy()).mean() > 0.5


def test_images_of_one_subject_stay_together_in_the_inner_folds(monkeypatch):
    import sklearn.model_selection as selection

    seen = []
    whole = selection.StratifiedGroupKFold.split

    def split(self, x, y=None, groups=None):
        for train, test in whole(self, x, y, groups):
            seen.append(set(groups[train]) & set(groups[test]))
            yield train, test

    monkeypatch.setattr(selection.StratifiedGroupKFold, "split", split)
    linear_baseline(samples(24, per_subject=3), samples(4))
    assert seen
    assert not any(seen)


def test_bad_input():
    with pytest.raises(ParameterError, match="kind='forest' is unknown; expected one of svm, logistic"):
        linear_baseline(samples(), samples(), kind="forest")
    with pytest.raises(DataError, match="expected two classes with two or more of both"):
        linear_baseline(samples(2), samples(2))
    with pytest.raises(ShapeError, match="expected one grid"):
        linear_baseline(samples(), samples(shape=(4, 4, 4)))
