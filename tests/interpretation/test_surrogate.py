"""A decision tree that stands for a network."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from xaitools.errors import DataError, ShapeError, TargetError
from xaitools.interpretation import fit_surrogate, region_densities, surrogate_tree
from xaitools.phantoms import synthetic_brains
from xaitools.phantoms.brain_regions import label_numbers


def test_densities_are_means_over_each_region() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((3, 1, 4, 5, 6)).astype(np.float32)
    maps = rng.integers(0, 4, (3, 1, 4, 5, 6))
    maps[1][maps[1] == 2] = 0
    names = {3: "c", 1: "a", 2: "b"}
    found = region_densities(images, maps, names)
    assert list(found.columns) == ["c", "a", "b"]
    for position in range(3):
        for number, name in names.items():
            inside = images[position][maps[position] == number]
            expected = inside.astype(np.float64).mean() if len(inside) else np.nan
            np.testing.assert_allclose(found.loc[position, name], expected)
    assert np.isnan(found.loc[1, "b"])
    shared = region_densities(torch.from_numpy(images), torch.from_numpy(maps[0, 0]))
    assert list(shared.columns) == ["region 1", "region 2", "region 3"]
    np.testing.assert_allclose(shared.loc[0, "region 1"], found.loc[0, "a"])
    with pytest.raises(ShapeError, match="on the grid of the images"):
        region_densities(images, maps[:, :, :3], names)
    with pytest.raises(DataError, match="there is no region"):
        region_densities(images, np.zeros((4, 5, 6), dtype=int))


def tables(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    densities = pd.DataFrame(rng.random((n, 3)), columns=["amygdala", "putamen", "thalamus"])
    answers = ((densities.putamen > 0.5) & (densities.amygdala > 0.3)).to_numpy().astype(int)
    return densities, answers


def test_the_tree_finds_a_network_that_is_a_tree() -> None:
    (densities, answers), (others, theirs) = tables(300, 0), tables(100, 1)
    labels = 1 - theirs  # the network is always wrong
    found = fit_surrogate(
        densities,
        answers,
        others,
        theirs,
        labels=answers,
        held_out_labels=labels,
        class_names=("CN", "AD"),
        max_depth=2,
    )
    scores = found.scores.set_index("which")
    assert found.fidelity == scores.fidelity["tree"] > 0.95
    assert scores.accuracy["tree"] == pytest.approx(1 - found.fidelity)
    assert (scores.fidelity["network"], scores.accuracy["network"]) == (1, 0)
    assert scores.fidelity["majority"] == np.mean(theirs == 0)
    assert scores.accuracy["majority"] == np.mean(labels == 0)
    p, z, n = scores.fidelity["majority"], 1.959964, len(theirs)
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = np.array([middle - half, middle + half]) / (1 + z**2 / n)  # Wilson 1927
    np.testing.assert_allclose(scores.loc["majority", ["low", "high"]].astype(float), expected, atol=1e-6)
    assert set(found.rules.region) == {"putamen", "amygdala", ""}
    cuts = found.rules[found.rules.region != ""].set_index("region").threshold
    np.testing.assert_allclose([cuts["putamen"], cuts["amygdala"]], [0.5, 0.3], atol=0.03)
    assert "putamen <= 0.5" in found.text
    assert "class: AD" in found.text


def test_the_table_of_rules_is_the_tree() -> None:
    (densities, answers), (others, theirs) = tables(200, 2), tables(60, 3)
    found = fit_surrogate(densities, answers, others, theirs, min_leaf=10)
    rules = found.rules.set_index("node")

    def followed(row: pd.Series) -> str:
        node = 0
        while rules.region[node]:
            node = (
                rules.below[node] if row[rules.region[node]] <= rules.threshold[node] else rules.above[node]
            )
        return rules["class"][node]

    expected = [str(number) for number in found.tree.predict(others.to_numpy())]
    assert [followed(row) for _, row in others.iterrows()] == expected
    leaves = rules[rules.region == ""]
    assert leaves.n.sum() == 200
    assert leaves.n.min() >= 10
    assert rules.depth.max() <= 3
    assert np.isnan(found.scores.accuracy).all()


def test_what_the_network_answers_by_chance_cannot_be_told() -> None:
    (densities, _), (others, _) = tables(200, 4), tables(400, 5)
    rng = np.random.default_rng(0)
    found = fit_surrogate(densities, rng.integers(0, 2, 200), others, rng.integers(0, 2, 400))
    assert abs(found.fidelity - 0.5) < 0.1


class Ventricles(nn.Module):
    """Says "AD" where the voxels in a box are dark."""

    def __init__(self, inside: Tensor, threshold: float) -> None:
        super().__init__()
        self.register_buffer("inside", inside)
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        mean = images[:, 0][:, self.inside].mean(1)
        return torch.stack([mean - self.threshold, self.threshold - mean], 1) * 100


def test_on_brains_with_label_maps() -> None:
    brains = synthetic_brains(16, spacing=8.0, seed=0, progress=False)
    numbers = label_numbers()
    inside = torch.from_numpy(brains.label_map(0) == numbers["lateral ventricle left"])
    names = {number: name for name, number in numbers.items() if "ventricle" in name or "putamen" in name}
    means = torch.stack([brains.images[[n]][0, 0][inside].mean() for n in range(16)])
    model = Ventricles(inside, float(means.median()))
    found = surrogate_tree(model, brains[:10], brains[10:], names, max_depth=1, min_leaf=2)
    assert found.scores.n.tolist() == [6, 6, 6]
    assert found.rules.region[0] in names.values()
    assert 0 <= found.fidelity <= 1
    with pytest.raises(DataError, match=r"10 subjects are in training and held_out"):
        surrogate_tree(model, brains[:10], brains[:10])
    with pytest.raises(TargetError, match="one output"):
        surrogate_tree(nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), brains[:10], brains[10:], names)
    bare = brains[:10]
    object.__setattr__(bare, "label_maps", None)
    with pytest.raises(DataError, match="training has no label maps"):
        surrogate_tree(model, bare, brains[10:])


def test_refusals() -> None:
    (densities, answers), (others, theirs) = tables(20, 0), tables(10, 1)
    with pytest.raises(DataError, match="all 20 training images the class 0"):
        fit_surrogate(densities, 0 * answers, others, theirs)
    with pytest.raises(ShapeError, match="20 training rows with 9 answers"):
        fit_surrogate(densities, answers[:9], others, theirs)
    with pytest.raises(DataError, match="different columns"):
        fit_surrogate(densities, answers, others.rename(columns={"putamen": "insula"}), theirs)
    others.loc[3, "putamen"] = np.nan
    with pytest.raises(
        DataError, match="1 regions have no density in 1 held-out images, first putamen in image 3"
    ):
        fit_surrogate(densities, answers, others, theirs)
