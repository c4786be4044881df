from pathlib import Path

import numpy as np
import pytest

from xaitools.errors import ParameterError
from xaitools.reports.parameters import check_parameters, read_preset


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("seed", "7", 7),
        ("seed", 7, 7),
        ("factor", "1e-3", 1e-3),
        ("factor", 2, 2.0),
        ("data_dir", "007", "007"),
        (
            "methods",
            "gradient,integrated_gradients[black]@xrai",
            ["gradient", "integrated_gradients[black]@xrai"],
        ),
        ("methods", "['a', 'b']", ["a", "b"]),
        ("methods", '["a", "b"]', ["a", "b"]),
        ("methods", ("a", "b"), ["a", "b"]),
        ("seed", np.int64(7), 7),
        ("factor", np.float32(0.5), 0.5),
        ("data_dir", Path("ct"), "ct"),
        ("methods", "1,2.5", [1, 2.5]),
        ("limit", "none", None),
        ("limit", "4", 4),
    ],
)
def test_a_value_takes_the_type_of_its_parameter(notebooks, name, given, expected):
    value = check_parameters(notebooks / "tiny.ipynb", {name: given})[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("seed", "many"),
        ("seed", 1.5),
        ("seed", True),
        ("methods", 3),
        ("data_dir", 3),
        ("limit", "some"),
        ("methods", "[gradient"),
    ],
)
def test_a_value_of_another_type_is_refused(notebooks, name, given):
    with pytest.raises(ParameterError, match=f"^{name}=.*does not fit: {name} takes"):
        check_parameters(notebooks / "tiny.ipynb", {name: given})


def test_a_list_that_cannot_be_read_is_refused_with_the_right_spelling(notebooks):
    with pytest.raises(ParameterError, match=r'takes list; write a list, such as \["a", "b"\], or a,b on a'):
        check_parameters(notebooks / "tiny.ipynb", {"methods": "[gradient]"})


def test_an_unknown_parameter_is_refused_with_the_nearest_and_all_known(notebooks):
    with pytest.raises(
        ParameterError, match=r"parameter of tiny 'sed' is unknown; .*output_dir\. Did you mean 'seed'\?"
    ):
        check_parameters(notebooks / "tiny.ipynb", {"sed": 1})


def test_an_unknown_preset_is_refused_with_the_nearest(notebooks):
    with pytest.raises(ParameterError, match=r"preset of tiny 'qick' is unknown; .* Did you mean 'quick'\?"):
        read_preset(notebooks / "tiny.ipynb", "qick")


@pytest.mark.parametrize("text", ["- seed", "seed: [1"])
def test_a_preset_that_is_no_mapping_is_refused(notebooks, tmp_path, text):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.quick.yaml").write_text(text)
    with pytest.raises(ParameterError, match=r"tiny\.quick\.yaml"):
        read_preset(tmp_path / "tiny.ipynb", "quick")
