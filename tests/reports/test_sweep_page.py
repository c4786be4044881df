"""Tables, intervals and the page of a sweep."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from xaitools.reports.cells import Cell, Found
from xaitools.reports.sweep_page import write_page
from xaitools.reports.sweep_tables import Tables, along, compare
from xaitools.study.run import METRIC_COLUMNS

T_975 = {1: 12.7062047, 2: 4.30265273, 3: 3.18244631}
"""Quantiles of Student's t by degrees of freedom, from a printed table."""


def metrics(rows, **columns):
    """Rows of (seed, noise, value), as texts, with other columns as given."""
    table = pd.DataFrame(rows, columns=["grid_seed", "grid_noise", "value"])
    table = table.assign(**{"metric": "auc", **columns})
    return table.reindex(columns=["grid_seed", "grid_noise", *METRIC_COLUMNS], fill_value="").astype(str)


def test_intervals_are_those_of_student_over_the_seeds():
    table = compare(
        metrics([(1, 0, 1.0), (2, 0, 2.0), (3, 0, 4.5), (1, 5, 7)]), ["grid_noise"], ["grid_seed"]
    )
    values = np.array([1.0, 2.0, 4.5])
    half = T_975[2] * np.sqrt(((values - values.mean()) ** 2).sum() / 2) / np.sqrt(3)
    first, second = table.to_dict("records")
    assert first["mean"] == pytest.approx(2.5)
    assert [first["low"], first["high"]] == pytest.approx([2.5 - half, 2.5 + half], rel=1e-6)
    assert first["n"] == 3
    assert (second["mean"], second["n"]) == (7, 1)
    assert np.isnan(second["low"])


def test_runs_and_folds_are_averaged_before_seeds_and_bounds_left_out():
    rows = metrics([(1, 0, 1), (1, 0, 3), (2, 0, 6), (2, 0, 9), (1, 0, 0)])
    rows["run"] = ["run 1", "run 2", "run 1", "", ""]
    rows["metric"] = ["auc", "auc", "auc", "auc", "auc, lower 95 %"]
    table = compare(rows, ["grid_noise"], ["grid_seed"])
    found = {row["over"]: (row["mean"], row["n"]) for row in table.to_dict("records")}
    assert found == {"runs": ((2 + 6) / 2, 2), "": (9, 1)}


def test_values_that_are_no_numbers_are_not_counted():
    table = compare(metrics([(1, 0, 1), (2, 0, "nan"), (3, 0, 3)]), ["grid_noise"], ["grid_seed"])
    assert table[["mean", "n"]].to_numpy().tolist() == [[2, 2]]


def test_a_missing_run_does_not_look_like_an_effect_of_another_axis():
    rows = metrics([(seed, noise, 10 * noise + seed) for seed, noise in product((1, 2, 3), (0, 1))][:-1])
    table = along(rows, "grid_noise", ["grid_seed", "grid_noise"], ["grid_seed"])
    assert table[["mean", "n"]].to_numpy().tolist() == [[1.5, 2], [11.5, 2]]  # of the seeds 1 and 2


def test_a_network_that_is_swept_is_compared_and_no_name_of_a_row(tmp_path):
    rows = metrics([(1, "resnet18", 1), (1, "vgg8", 2)], model=["resnet18", "vgg8"])
    table = along(rows, "grid_noise", ["grid_seed", "grid_noise"], ["grid_seed"])
    assert table[["grid_noise", "model", "mean"]].to_numpy().tolist() == [
        ["resnet18", "", 1],
        ["vgg8", "", 2],
    ]
    rows = metrics([(1, "resnet18", 1), (1, "resnet18", 2)], model=["resnet18", "another"])
    assert list(compare(rows, ["grid_noise"], ["grid_seed"])["model"]) == ["resnet18", "another"]


@pytest.fixture
def page(tmp_path):
    """A function that writes a page of a sweep over seeds, noises and networks, in which one run failed."""

    def write(noises=(0.0, 1.0), n_methods=2, failed=True):
        points = [
            {"seed": seed, "noise": noise, "net": net}
            for seed, noise, net in product((1, 2, 3), noises, ("resnet18", "<b>vgg"))
        ]
        cells = [
            Cell(tmp_path / "tiny.ipynb", point, {}, tmp_path / f"c {i}") for i, point in enumerate(points)
        ]
        found = [
            Found("done", "", {"status": "done", "python": f"3.1{i % 2}", "threads": 1})
            for i in range(len(cells))
        ]
        if failed:
            found[3] = Found("failed", "no <label> column")
        parts = [
            {
                **{f"grid_{name}": str(value) for name, value in point.items()},
                **dict.fromkeys(METRIC_COLUMNS, ""),
                "metric": metric,
                "method": f"method {i}",
                "value": str(point["seed"] * 0.01 + point["noise"] + i),
            }
            for point, own in zip(points, found, strict=True)
            if own.status == "done"
            for metric in ("auc", "dice")
            for i in range(n_methods)
        ]
        runs = [
            {
                **{f"grid_{name}": value for name, value in point.items()},
                "status": own.status,
                "seconds": 1.5,
                "threads": 1,
                "rows": 4,
                "report": cell.report,
                "error": own.why,
            }
            for cell, point, own in zip(cells, points, found, strict=True)
        ]
        return write_page(
            tmp_path, cells, Tables(pd.DataFrame(runs), pd.DataFrame(parts), found), "2 runs at a time"
        )

    return write


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_makes_no_request_and_fits_the_window(page, browser, width):
    path = page()
    browser.page.set_viewport_size({"width": width, "height": 900})
    shown = browser.open(path)
    shown.wait_for_selector(".plot .main-svg")
    assert browser.requests == [path.as_uri()]
    assert browser.errors == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.locator(".modebar-btn[data-title*=Cloud], .modebar-btn[data-title*=Chart]").count() == 0
    links = [link.get_attribute("href") for link in shown.locator("tbody a").all()]
    assert links == [f"c%20{i}/tiny.html" for i in range(12) if i != 3]
    assert "no <label> column" in shown.locator("#failed").inner_text()
    assert shown.locator("b").count() == 0
    assert [plot.is_visible() for plot in shown.locator(".plot").all()] == [True, True, False, False]
    shown.locator("summary").nth(1).click()
    shown.wait_for_function("document.querySelectorAll('.main-svg').length > 6")
    titles = shown.locator("figcaption strong").all_inner_texts()
    assert titles[:2] == ["auc by noise", "auc by net"]


def test_the_page_tells_means_intervals_and_what_differs(page, browser):
    shown = browser.open(page())
    table = shown.locator("details.metric table").first
    assert table.locator("thead th").all_inner_texts() == [
        "method",
        *(f"noise {noise}, net {net}" for noise, net in product((0.0, 1.0), ("resnet18", "<b>vgg"))),
    ]
    cells = table.locator("tbody tr").first.locator("td").all_inner_texts()
    half = T_975[2] * 0.01 / np.sqrt(3)
    assert cells[1].split("\n") == ["0.02", f"{0.02 - half:.4g} to {0.02 + half:.4g}"]
    assert cells[4].endswith(", n = 2")  # a run failed there
    apart, facts = shown.locator("#differs ~ .output table").all()
    assert apart.locator("tbody tr").first.locator("td").all_inner_texts() == [
        "auc, method 0",
        "0.02 (noise 0.0, net resnet18)",
        "1.02 (noise 1.0, net resnet18)",
    ]
    named = dict(row.locator("td").all_inner_texts() for row in facts.locator("tbody tr").all())
    assert named == {
        "seed (of the grid)": "1 (4), 2 (4), 3 (4)",
        "noise (of the grid)": "0.0 (6), 1.0 (6)",
        "net (of the grid)": "resnet18 (6), <b>vgg (6)",
        "python": "3.10 (6), 3.11 (5)",
    }
    assert "seeds stand for" in shown.locator("body").inner_text()


def test_many_methods_have_a_row_each(page, browser):
    shown = browser.open(page(n_methods=12, failed=False))
    shown.wait_for_selector(".plot .main-svg")
    data = shown.evaluate("document.querySelector('.plot').data")
    assert [trace["name"] for trace in data] == ["0.0", "1.0"]
    assert all(trace["y"] == [f"method {i}" for i in range(12)] for trace in data)
    assert len(data[0]["error_x"]["array"]) == 12
