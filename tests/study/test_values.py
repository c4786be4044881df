"""Wrong values are told before there are data, in every study and with every preset."""

import pytest

from xaitools.errors import (
    DataFileError,
    DeviceError,
    MethodError,
    ParameterError,
    UnsupportedModelError,
    WeightsError,
    XaitoolsError,
)
from xaitools.reports.parameters import presets, read_preset
from xaitools.study import Run, check_values
from xaitools.study.notebooks import find_notebook, read_parameters, studies


def values(study, preset="quick", **changed):
    defaults = {name: own.default for name, own in read_parameters(find_notebook(study)).items()}
    return defaults | read_preset(find_notebook(study), preset) | changed


EVERY = [(study, preset) for study in studies() for preset in presets(find_notebook(study))]


@pytest.mark.parametrize(("study", "preset"), EVERY)
def test_what_a_study_ships_is_right(study, preset):
    check_values(study, values(study, preset))


@pytest.mark.parametrize(("study", "preset"), EVERY)
@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("device", "cuda:9", DeviceError, "device 'cuda:9' is not on this machine"),
        ("network", "resnet01", ParameterError, "network='resnet01' is unknown; .*Did you mean 'resnet"),
        ("networks", ["vgg8", "vgg"], ParameterError, "network='vgg' is unknown"),
        ("networks", [], ParameterError, "networks is empty"),
        (
            "methods",
            ["gradient", "gradeint"],
            MethodError,
            "Unknown method 'gradeint'.*Did you mean 'gradient'",
        ),
        ("methods", [], XaitoolsError, "methods is empty"),
        ("atlas", "nowhere.nii.gz", DataFileError, r"nowhere\.nii\.gz"),
        ("model", "nowhere.pt, other.pt", WeightsError, "no weights file at nowhere.pt"),
    ],
)
def test_a_wrong_value_is_told_at_once(study, preset, name, value, error, message):
    right = values(study, preset)
    if name not in right:
        assert name in {"network", "networks", "methods", "atlas"}
        return
    with pytest.raises(error, match=message):
        check_values(study, {**right, name: value})


@pytest.mark.parametrize(
    ("study", "changed", "error", "message"),
    [
        ("ct_contrast", {"network": "eitel_cnn"}, ParameterError, "'eitel_cnn' is for volumes; .* for slices"),
        ("ad_mask", {"network": "resnet10"}, ParameterError, "'resnet10' is for slices; expected one for volumes"),
        ("ad_retraining", {"network": "eitel_cnn"}, XaitoolsError, "input_size"),
        ("ct_contrast", {"methods": ["occlusion[200]"]}, ParameterError, r"occlusion\[200\]: a window of 200"),
        ("ct_contrast", {"methods": ["occlusion[8:4:2]"]}, MethodError, r"occlusion\[8:4:2\]"),
        ("ct_contrast", {"methods": ["integrated_gradients[red]"]}, MethodError, "Unknown baseline 'red'"),
        ("sanity_checks", {"smooth_methods": ["gradeint"]}, MethodError, "gradeint"),
        ("brain_mri", {"known_methods": ["gradeint"]}, MethodError, "gradeint"),
        ("fetal_hc", {"methods": ["lrp[rule]"]}, MethodError, "no rule 'rule'"),
        ("fetal_hc", {"methods": ["captum.Saliencey"]}, MethodError, "no attribution class 'Saliencey'"),
        ("ct_contrast", {"methods": ["grad_cam[layer9]"]}, MethodError, "no layer 'layer9'; it has .*layer4"),
        ("ct_contrast", {"methods": ["attention_rollout"]}, UnsupportedModelError, "attention"),
        ("ct_contrast", {"draws": 0}, ParameterError, "draws=0"),
        ("ct_contrast", {"n_explained": -1}, ParameterError, "n_explained=-1"),
        ("ct_contrast", {"window": [60.0]}, ParameterError, "window="),
        ("ct_contrast", {"replacement": "blakc"}, ParameterError, "Did you mean 'black'"),
        ("ct_contrast", {"precision": "bf61"}, ParameterError, "precision='bf61'"),
        ("ct_contrast", {"orientation": "XYZ"}, ParameterError, "orientation='XYZ'"),
        ("fetal_hc", {"training_precision": "bf61"}, ParameterError, "precision='bf61'"),
        ("fetal_hc", {"noise_unit": "sd"}, ParameterError, "noise_unit='sd'"),
        ("ad_mask", {"deletion": "grey"}, ParameterError, "deletion='grey'"),
        ("ad_retraining", {"augment": "flip"}, ParameterError, "augment='flip'"),
        ("ad_retraining", {"shape": [32, 40]}, ParameterError, "shape="),
        ("ad_retraining", {"spacing": 0.0}, ParameterError, "spacing="),
        (
            "ad_retraining",
            {"atlas": "mni", "space": "centered", "data_dir": "x"},
            ParameterError,
            "atlas with space='centered'",
        ),
    ],
)  # fmt: skip
def test_other_wrong_values(study, changed, error, message):
    with pytest.raises(error, match=message):
        check_values(study, values(study, **changed))


def test_right_values_that_are_not_the_default_pass():
    check_values("ct_contrast", values("ct_contrast", methods=["grad_cam[layer3]", "occlusion[100:50]"]))
    check_values("ct_contrast", values("ct_contrast", methods=["gradient", "attention_rollout"]))
    check_values(
        "ct_contrast", values("ct_contrast", model="package.module:build", methods=["grad_cam[mine]"])
    )
    check_values("ad_mask", values("ad_mask", network="gm_cnn_b2_f4_l1_d50"))


def test_a_study_of_ones_own_means_by_a_name_what_it_likes():
    check_values("my_study", {"mode": "fast", "network": "mine", "device": "lap"})


def test_nothing_is_made_of_a_run_that_cannot_be(tmp_path):
    wrong = values("ct_contrast", methods=["gradeint"], output_dir=str(tmp_path / "out"))
    with pytest.raises(MethodError, match="gradeint"):
        Run.of_notebook("ct_contrast", wrong)
    assert not (tmp_path / "out").exists()


def test_a_list_given_as_text_is_a_list_in_the_notebook(tmp_path):
    given = values("ct_contrast", methods='["gradient"]', steps="7", output_dir=str(tmp_path))
    Run.of_notebook("ct_contrast", given)
    assert given["methods"] == ["gradient"]
    assert given["steps"] == 7


@pytest.mark.parametrize("study", studies())
def test_every_notebook_checks_before_its_first_stage(study):
    source = find_notebook(study).read_text()
    assert 0 < source.index("Run.of_notebook(") < source.index("run.stage(")
