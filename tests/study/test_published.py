import re

import pytest

import xaitools.study.published as published
from xaitools.errors import DataError, ParameterError
from xaitools.study import notebooks_dir, published_text, published_values, read_published
from xaitools.study.notebooks import studies


@pytest.mark.parametrize("study", studies())
def test_every_published_number_says_where_it_stands(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = read_published(study)
    assert len(table)
    assert tuple(table.columns) == published.COLUMNS
    assert table["where"].str.len().min() > 0
    assert table["value"].notna().all()
    assert not table.duplicated(["method", "metric", "network", "unit"]).any()


def test_the_numbers_of_the_fetal_study_are_those_of_its_table_1():
    values = published_values(read_published("fetal_hc"), metric="AOPC", network="resnet50", unit="px")
    assert list(values.values()) == [-11.533, -11.841, -9.249, -9.890, -9.717, -14.748, -5.603, -14.577]
    assert values["input_x_gradient"] == -14.748


def test_text_joins_what_stands_in_one_place():
    text = published_text(read_published("fetal_hc"), metric="MAE", network="vgg16")
    assert text == "40.17 ± 40.99 px, 5.46 ± 5.99 mm with vgg16 (section 3.1)"
    assert published_text(read_published("fetal_hc"), metric="AUC") == ""


def test_numbers_in_another_unit_are_not_put_beside():
    assert published_values(read_published("fetal_hc"), metric="AOPC", network="resnet50", unit="mm") == {}


def test_an_unknown_study_is_refused_with_the_known():
    with pytest.raises(ParameterError, match=r"ct_contrast.* Did you mean 'fetal_hc'"):
        read_published("fetal_hd")


def test_a_missing_column_is_named(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "mine.csv").write_text("method,metric,value\n,accuracy,1\n")
    monkeypatch.setattr(published, "notebooks_dir", lambda: tmp_path)
    with pytest.raises(DataError, match=re.escape("['network', 'sd', 'unit', 'where']")):
        read_published("mine")


def test_the_files_lie_beside_the_notebooks():
    assert {path.stem for path in (notebooks_dir() / "published").glob("*.csv")} <= {
        path.stem for path in notebooks_dir().glob("*.ipynb")
    }
