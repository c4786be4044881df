import pytest

from xaitools.errors import ParameterError
from xaitools.reports.notebooks import (
    check_parameters,
    find_notebook,
    notebooks_dir,
    parse_parameters,
    read_parameters,
    read_preset,
    studies,
)


def test_parameters_have_name_type_default_and_comment(notebooks):
    parameters = read_parameters(notebooks / "tiny.ipynb")
    assert list(parameters) == ["seed", "factor", "methods", "data_dir", "limit", "preset", "output_dir"]
    assert parameters["seed"].types == ("int",)
    assert parameters["seed"].help == "of every random draw"
    assert parameters["methods"].default == ["gradient", "integrated_gradients[black]"]
    assert parameters["limit"].types == ("int", "None")


def test_an_equals_sign_in_a_comment_or_a_text_hides_nothing():
    found = parse_parameters('data_dir: str = ""  # empty = synthetic\nname: list[str] = ["a=b"]\nplain = 3')
    assert {name: parameter.default for name, parameter in found.items()} == {
        "data_dir": "",
        "name": ["a=b"],
        "plain": 3,
    }
    assert found["data_dir"].help == "empty = synthetic"
    assert found["name"].types == ("list",)


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
    [("seed", "many"), ("seed", 1.5), ("seed", True), ("methods", 3), ("data_dir", 3), ("limit", "some")],
)
def test_a_value_of_another_type_is_refused(notebooks, name, given):
    with pytest.raises(ParameterError, match=f"^{name}=.*does not fit: {name} takes"):
        check_parameters(notebooks / "tiny.ipynb", {name: given})


def test_an_unknown_parameter_is_refused_with_the_nearest_and_all_known(notebooks):
    with pytest.raises(
        ParameterError, match=r"unknown parameter of tiny 'sed': did you mean 'seed'.*output_dir"
    ):
        check_parameters(notebooks / "tiny.ipynb", {"sed": 1})


def test_an_unknown_study_preset_or_file_is_refused(notebooks, tmp_path):
    with pytest.raises(ParameterError, match="unknown study 'nothing'"):
        find_notebook("nothing")
    with pytest.raises(ParameterError, match=r"no notebook .*nothing\.ipynb"):
        find_notebook(tmp_path / "nothing.ipynb")
    with pytest.raises(ParameterError, match="unknown preset of tiny 'qick': did you mean 'quick'"):
        read_preset(notebooks / "tiny.ipynb", "qick")


def test_a_notebook_without_its_parameters_tag_is_refused(notebooks, tmp_path):
    untagged = tmp_path / "untagged.ipynb"
    untagged.write_text((notebooks / "tiny.ipynb").read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ParameterError, match=r"untagged\.ipynb has no cell tagged 'parameters'"):
        read_parameters(untagged)


@pytest.mark.parametrize("text", ["- seed", "seed: [1"])
def test_a_preset_that_is_no_mapping_is_refused(notebooks, tmp_path, text):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny.quick.yaml").write_text(text)
    with pytest.raises(ParameterError, match=r"tiny\.quick\.yaml"):
        read_preset(tmp_path / "tiny.ipynb", "quick")


def test_studies_are_the_notebooks_of_the_checkout():
    assert studies() == sorted(path.stem for path in notebooks_dir().glob("*.ipynb"))
    assert (notebooks_dir().parent / "pyproject.toml").exists()
