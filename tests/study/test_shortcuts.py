import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from xaitools import study
from xaitools.data import skull_stripped
from xaitools.interpretation import Surrogate
from xaitools.phantoms import synthetic_heads
from xaitools.study import words
from xaitools.study.baselines import LINEAR, PLAIN, Compared
from xaitools.study.cam_shares import MeanCams
from xaitools.study.known_signal import KnownSignal
from xaitools.study.preprocessing import PREPROCESSINGS, Judged

NAMES = list(PREPROCESSINGS)
AUCS = {"gradient+smoothgrad": 0.8, "grad_cam[features.6]": 0.6, "grad_cam[features.6], untrained": 0.9}


def test_the_slides_numbers_stand_beside_those_of_the_run():
    table = pd.DataFrame(
        {"preprocessing": NAMES[:2], "training": [0.9, 0.8], "training, sd": [0.01, np.nan], "validation": [0.7, 0.6],
         "validation, sd": [0.1, 0.2]}
    )  # fmt: skip
    found = study.beside_slides(table, study.read_published("brain_mri")).set_index("preprocessing")
    assert found.loc["none"].tolist() == [
        "0.900 (0.010)",
        "0.700 (0.100)",
        "",
        "0.991 (0.001)",
        "0.976 (0.037)",
    ]
    assert found.at["skull stripped", "training"] == "0.800"
    assert found.at["skull stripped", "slides, validation"] == "0.916 (0.094)"


def test_all_five_rows_of_the_slides_are_published():
    printed = study.published_by_metric(study.read_published("brain_mri"))
    assert [printed[f"training accuracy, {name}"] for name in NAMES] == [0.991, 0.943, 0.989, 0.984, 0.996]
    assert [printed[f"validation accuracy, {name}"] for name in NAMES] == [0.976, 0.916, 0.933, 0.964, 0.984]


def cams(name, **shares):
    rows = [
        {"sample": f"sub-{i}", "part": part, "share": share + 0.01 * (i % 3), "volume": volume}
        for part, (share, volume) in shares.items()
        for i in range(12)
    ]
    return MeanCams(name, {}, pd.DataFrame(rows))


def known(learned):
    images = pd.DataFrame(
        [
            {"target": "volume of a", "method": method, "image": i, "auc": auc + 0.01 * i}
            for method, auc in AUCS.items()
            for i in range(6)
        ]
    )  # fmt: skip
    errors = pd.DataFrame([{"target": "volume of a", "learned": learned}])
    return KnownSignal(errors, pd.DataFrame(), images, {}, {})


def claims(run, right, learned=True):
    labels = torch.arange(20) % 2
    judged = {
        name: Judged(pd.DataFrame(), np.where(np.arange(20) < n, labels, 1 - labels))
        for name, n in zip(NAMES, right, strict=False)
    }
    shown = {
        "none": cams("none", face=(0.5, 0.2), inside=(0.2, 0.3), rim=(0.1, 0.1)),
        "skull stripped": cams("skull stripped", face=(0.1, 0.2), inside=(0.3, 0.3), rim=(0.05, 0.2)),
        NAMES[-1]: cams(NAMES[-1], face=(0.1, 0.2), inside=(0.6, 0.3), rim=(0.1, 0.1)),
    }
    compared = Compared(
        {},
        pd.DataFrame(),
        {PLAIN: np.ones(20, dtype=bool), LINEAR["svm"]: np.arange(20) < 10},
        pd.DataFrame(),
    )
    rows = study.shortcut_claims(run, labels, judged, shown, compared, [known(learned)])
    return [row["verdict"] for row in rows], rows


def test_claims_are_judged_head_by_head(run):
    verdicts, rows = claims(run, [20, 10, 10, 4, 20])
    # worse without the skull; rotation the same; rotation and scaling worse; optimal scaling better; ahead of the SVM
    assert verdicts[:5] == ["agrees", "undecided", "differs", "agrees", "agrees"]
    assert verdicts[5:8] == ["agrees", "differs", "agrees"]
    assert verdicts[8] == "agrees"
    assert "none − skull stripped: +50 (" in rows[0]["this run"]
    assert "AUC, SmoothGrad − Grad-CAM: +0.20 (+0.20 to +0.20)" in rows[8]["this run"]


def test_what_was_not_measured_is_not_tested(run):
    verdicts, _ = claims(run, [20, 10], learned=False)
    assert verdicts[1:4] == ["not tested: not measured in this run"] * 3
    assert verdicts[8] == "not tested: the network has not learned this target"


def test_shares_beside_an_even_map():
    shares = pd.DataFrame(
        {"preprocessing": ["none"] * 2, "part": ["face", "inside"], "share": [0.4, 0.1], "low": [0.3, 0.05],
         "high": [0.5, 0.2], "volume": [0.25, 0.5]}
    )  # fmt: skip
    found = study.shares_view(shares)
    assert found.loc[0].tolist() == ["none", "40 % (30 to 50)", "10 % (5 to 20)"]
    assert found.loc[1].tolist() == ["an even map", "25 %", "50 %"]


def test_sentences_on_classifiers_and_autoencoder():
    table = pd.DataFrame(
        {"classifier": ["network", "SVM"] * 2, "fold": [1, 1, 2, 2], "validation": [0.9, 0.5, 0.8, 0.6]}
    )
    right = {"network": np.ones(20, dtype=bool), "SVM": np.arange(20) < 10}
    said = words.classifiers(table, right)
    assert "network 85.0% and SVM 55.0%" in said
    assert "The SVM is worse than the network (right answers: -50" in said
    assert "not told apart" in words.classifiers(table, {"network": right["SVM"], "SVM": right["SVM"]})
    assert "no better than their mean image" in words.reconstruction(
        pd.DataFrame({"explained": [-0.1, 0.05]})
    )
    assert "removes 30% of the error" in words.reconstruction(pd.DataFrame({"explained": [0.2, 0.4]}))
    assert words.reconstruction(pd.DataFrame()) == ""


def test_the_size_alone_is_said_with_its_auc():
    sizes, labels = np.array([1400.0, 1500.0, 1600.0, 1450.0]), torch.tensor([0, 0, 1, 1])
    said = words.sizes_of_heads(sizes, labels, ("F", "M"))
    assert "1450 ± 71 ml in F and 1525 ± 106 ml in M" in said
    assert "AUC of **0.75**" in said  # 3 of 4 pairs


@pytest.mark.parametrize(("low", "clear"), [(0.6, True), (0.5, False), (0.4, False)])
def test_rules_of_a_surrogate_are_told_only_with_a_clear_lead(low, clear):
    scores = pd.DataFrame(
        {"which": ["tree", "network", "majority"], "fidelity": [0.8, 1, 0.5], "low": [low, 1, 0.3],
         "high": [0.9, 1, 0.7], "n": [16] * 3}
    )  # fmt: skip
    rules = pd.DataFrame({"region": ["thalamus left", ""]})
    said = words.surrogate(Surrogate(DecisionTreeClassifier(), scores, rules, ""))
    assert ("thalamus" in said) is clear
    assert ("no clear lead" in said) is not clear


def test_no_tree_is_taught_a_network_that_names_one_class():
    assert "the network names one class only" in words.surrogate(None)


def test_empty_maps_are_counted():
    assert words.empty_maps({"none": 0, "skull stripped": 0}, 80) == ""
    assert "in no mean: skull stripped: 37 of 80." in words.empty_maps({"none": 0, "skull stripped": 37}, 80)


class Bright(torch.nn.Module):
    """Says "male" by how much of the head is not black."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(1, 2)
        torch.nn.init.constant_(self.last.weight, 0)
        self.last.weight.data[1] = 1

    def forward(self, images):
        return self.last((images > 0).float().flatten(1).mean(1, keepdim=True))


def of_brightness():
    return Bright()


def test_a_network_of_others_is_put_beside_the_volume_of_the_brain(run, recorded, tmp_path):
    heads = synthetic_heads(12, spacing=9.0, shape=(22, 26, 24), seed=0, cache_dir=tmp_path, progress=False)
    brains = skull_stripped(heads, cache_dir=tmp_path)
    found = study.others_beside_volume(run, f"{__name__}:of_brightness", brains, device="cpu")
    values = found.set_index(["what", "measure"])["value"]
    assert values["its score and the volume, all heads", "Spearman"] > 0.95
    assert values["its score and the volume, male alone", "Spearman"] > 0.8
    alone, its = values["the volume alone, male or not", "AUC"], values["its score, male or not", "AUC"]
    assert its == pytest.approx(alone, abs=0.1)
    assert len(recorded()) == len(found) == 8
