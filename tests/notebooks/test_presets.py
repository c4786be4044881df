"""The parameters of a notebook, its presets and the published numbers say the same."""

import re

import pytest

from xaitools.reports.parameters import read_preset
from xaitools.study import method_table, read_published
from xaitools.study.notebooks import find_notebook, read_parameters, studies

STUDIES = studies()
OF_METHODS = ["ad_retraining", "ct_contrast", "fetal_hc"]
"""Studies that compare methods by name; that of masks compares masks."""


def defaults(study):
    return {name: parameter.default for name, parameter in read_parameters(find_notebook(study)).items()}


def sizeless(name):
    """Without the size of occlusion's windows, which is chosen with that of the images."""
    return re.sub(r"occlusion\[\d+\]", "occlusion", name)


@pytest.mark.parametrize("study", STUDIES)
def test_a_notebook_run_without_a_preset_is_the_quick_one(study):
    quick = read_preset(find_notebook(study), "quick")
    assert quick
    assert quick == {name: defaults(study)[name] for name in quick}


FREE = {"data_dir", "table", "model", "preset", "output_dir", "device"}
"""What a preset is not about: whose data and network, and where."""


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_a_preset_runs_the_same_whatever_values_are_changed_in_the_notebook(study, preset):
    assert set(read_preset(find_notebook(study), preset)) == set(defaults(study)) - FREE


@pytest.mark.parametrize("study", OF_METHODS)
def test_the_papers_methods_are_the_default(study):
    paper = read_preset(find_notebook(study), "paper")
    assert [sizeless(name) for name in paper["methods"]] == [
        sizeless(name) for name in defaults(study)["methods"]
    ]
    assert paper.get("method_labels") == defaults(study).get("method_labels")


@pytest.mark.parametrize("study", STUDIES)
def test_what_is_published_belongs_to_a_method_of_the_paper(study):
    methods = read_preset(find_notebook(study), "paper").get("methods", [])
    assert {*read_published(study)["method"]} <= {"", *methods}


def test_the_fetal_study_calls_its_methods_as_the_paper_does():
    parameters = defaults("fetal_hc")
    named = method_table(parameters["methods"], parameters["method_labels"])
    assert list(named["label"]) == ["G", "SG", "DCN", "DT", "GB", "I*G", "IG", "LRP"]


@pytest.mark.parametrize("preset", ["", "paper"])
def test_the_ad_study_calls_its_methods_as_the_paper_does(preset):
    parameters = read_preset(find_notebook("ad_retraining"), preset) if preset else defaults("ad_retraining")
    named = method_table(parameters["methods"], parameters["method_labels"])
    assert list(named["label"]) == ["Gradient * input", "Guided backpropagation", "LRP", "Occlusion"]
