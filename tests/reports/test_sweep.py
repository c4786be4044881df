import csv

import pytest

from xaitools.errors import ClusterError, ParameterError
from xaitools.reports.sweep import folder_name, grid_points, sweep
from xaitools.study.manifest import read_manifest


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_runs_every_point_and_gathers_the_numbers(notebooks, tmp_path):
    grid = {"seed": ["1", "2"], "factor": [10]}
    table = sweep(
        notebooks / "tiny.ipynb", grid, parameters={"methods": "a,b"}, out=tmp_path, jobs=2, progress=False
    )
    rows = read(table)
    assert len(rows) == 2 * 1 * 2
    for row in rows:
        assert float(row["value"]) == float(row["grid_seed"]) * float(row["grid_factor"])
    assert [row["status"] for row in read(tmp_path / "runs.csv")] == ["done"] * 2
    assert (tmp_path / read(tmp_path / "runs.csv")[0]["report"]).exists()


def test_a_grid_is_every_combination_of_its_values(notebooks):
    points = grid_points(notebooks / "tiny.ipynb", {"seed": ["1", "2"], "factor": [10, 0.5]})
    assert [tuple(point.values()) for point in points] == [(1, 10.0), (1, 0.5), (2, 10.0), (2, 0.5)]


def test_done_points_are_not_run_again_and_failed_ones_are(notebooks, tmp_path):
    def run_all():
        sweep(notebooks / "broken.ipynb", {"data_dir": ["", "/home/jane/bad"]}, out=tmp_path, progress=False)
        return read(tmp_path / "runs.csv")

    first = run_all()
    assert [row["status"] for row in first] == ["done", "failed"]
    assert "label column is missing" in first[1]["error"]
    assert "jane" not in str(first)
    assert not list(tmp_path.rglob("*jane*"))
    folders = [tmp_path / row["report"].split("/")[0] for row in first]
    started = [(folder / "broken.ipynb").stat().st_mtime_ns for folder in folders]
    run_all()
    again = [(folder / "broken.ipynb").stat().st_mtime_ns for folder in folders]
    assert again[0] == started[0]
    assert again[1] > started[1]


def test_a_point_with_other_parameters_is_run_again(notebooks, tmp_path):
    for factor in (1, 2):
        sweep(
            notebooks / "tiny.ipynb",
            {"seed": [5]},
            parameters={"factor": factor},
            out=tmp_path,
            progress=False,
        )
        assert read(tmp_path / "metrics.csv")[0]["value"] == str(5.0 * factor)


def test_a_sweep_runs_on_a_dask_cluster(notebooks, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        table = sweep(
            notebooks / "tiny.ipynb",
            {"seed": [1, 2]},
            out=tmp_path,
            dask=cluster.scheduler_address,
            progress=False,
        )
    assert {(row["grid_seed"], row["value"]) for row in read(table)} == {("1", "1.0"), ("2", "2.0")}
    assert read_manifest(tmp_path / "seed-1")["status"] == "done"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sed": [1]}, "Did you mean 'seed'"),
        ({"seed": [1, "x"]}, "seed='x' does not fit"),
        ({"seed": []}, "no values for seed"),
        ({}, "grid is empty"),
    ],
)
def test_a_bad_grid_runs_nothing(notebooks, tmp_path, grid, message):
    with pytest.raises(ParameterError, match=message):
        sweep(notebooks / "tiny.ipynb", grid, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_an_address_without_a_scheduler_is_named(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr("xaitools.reports.workers.DASK_TIMEOUT", 0.5)
    with pytest.raises(ClusterError, match=r"no dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        sweep(notebooks / "tiny.ipynb", {"seed": [1]}, out=tmp_path, dask="tcp://127.0.0.1:9", progress=False)


def test_folder_names_read_well_and_never_collide():
    assert folder_name({"seed": 1, "model": "resnet18"}) == "seed-1_model-resnet18"
    odd = [
        folder_name({"methods": [name]})
        for name in ("gradient+absolute", "gradient@absolute", "x" * 100, "x" * 101)
    ]
    assert len(set(odd)) == 4
    assert all(len(name) <= 80 and "/" not in name for name in odd)
    assert "jane" not in folder_name({"data_dir": "/home/jane/ct"})
