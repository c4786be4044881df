"""What a sweep does with cells that are done, damaged, failed or stopped; the runs are made up, which takes no time."""

import csv
import logging

import pytest

from xaitools.errors import DataError
from xaitools.files import write_csv, write_text
from xaitools.reports.cells import look
from xaitools.reports.promises import promises
from xaitools.reports.runner import content_key
from xaitools.reports.sweep import plan, sweep
from xaitools.reports.sweep_bar import SweepBar, telling
from xaitools.study.manifest import ending, read_manifest, write_manifest
from xaitools.study.replacing import make_room
from xaitools.study.run import METRIC_COLUMNS

GRID = {"seed": [1, 2, 3], "factor": [1, 10]}
PIECES = [
    "metrics.csv",
    "per_image.csv",
    "tiny.html",
    "tiny.ipynb",
    "figures/line.html",
    "figures/plotly.min.js",
    "maps/one.npz",
]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Runs:
    """Writes what `run_notebook` would, and remembers which folders it was given."""

    def __init__(self):
        self.folders = []
        self.errors = {}

    def __call__(self, notebook, values, folder, *, cwd, progress):
        self.folders.append(folder.name)
        progress(1, 2, "Measure")
        make_room(folder)
        write_manifest(folder, {"study": notebook.stem, "status": "running"}, fresh=True)
        if error := self.errors.get(folder.name):
            if not isinstance(error, KeyboardInterrupt):
                write_manifest(folder, ending(error))
            raise error
        for name in PIECES[1:]:
            write_text(folder / name, f"{name} of {folder.name}")
        value = values["seed"] * values.get("factor", 1)
        row = dict.fromkeys(METRIC_COLUMNS, "") | {"metric": "product", "method": "a", "value": value}
        write_csv(folder / "metrics.csv", METRIC_COLUMNS, [row])
        whose = {"key": content_key(notebook, values), "notebook": notebook.stem}
        write_manifest(folder, {**whose, "status": "done", **promises(folder, whose)})

    def again(self):
        """The folders since the last question."""
        folders, self.folders = self.folders, []
        return folders


@pytest.fixture
def runs(monkeypatch):
    made_up = Runs()
    monkeypatch.setattr("xaitools.reports.cells.run_notebook", made_up)
    return made_up


@pytest.fixture
def run_all(notebooks, tmp_path):
    def run_all(grid=GRID, **options):
        return sweep(notebooks / "tiny.ipynb", grid, out=tmp_path / "out", progress=False, **options)

    return run_all


def damage(path, how):
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[:-1])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize(
    ("piece", "how"),
    [
        *((piece, "deleted") for piece in PIECES),
        *((piece, "flipped") for piece in PIECES[:-1]),  # whoever reads a map finds that out
        *((piece, how) for piece in ("metrics.csv", "maps/one.npz") for how in ("emptied", "cut")),
    ],
)
def test_a_cell_that_lacks_a_piece_is_run_again_and_no_other(runs, run_all, tmp_path, caplog, piece, how):
    grid = {"seed": [1, 2]}
    table = run_all(grid)
    before = table.read_bytes()
    assert len(runs.again()) == len(read(table)) == 2
    damage(tmp_path / "out" / "seed-2" / piece, how)
    with caplog.at_level(logging.WARNING):
        assert run_all(grid).read_bytes() == before
    assert runs.again() == ["seed-2"]
    assert f"seed-2: {piece} is {'missing' if how == 'deleted' else 'damaged'}" in caplog.text
    run_all(grid)
    assert runs.again() == []


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut"])
def test_a_damaged_manifest_costs_its_cell_a_run_and_the_sweep_nothing(runs, run_all, tmp_path, how):
    before = run_all().read_bytes()
    runs.again()
    path = tmp_path / "out" / "seed-2_factor-1.0" / "manifest.json"
    path.write_bytes(path.read_bytes().strip())
    damage(path, how)
    assert run_all().read_bytes() == before
    assert runs.again() == ["seed-2_factor-1.0"]


def test_no_cell_is_lost_in_silence(runs, run_all, tmp_path, caplog):
    """Of runs that fail, are killed or promise nothing, tables, page and a warning tell."""
    runs.errors = {
        "seed-1_factor-1.0": DataError("no label column"),
        "seed-2_factor-1.0": ZeroDivisionError("of nobody's doing"),
    }
    with caplog.at_level(logging.WARNING):
        table = run_all()
    assert len(runs.again()) == 6
    assert len(read(table)) == 4
    assert "2 of 6 runs are not in the table" in caplog.text
    rows = {row["report"].split("/")[0]: row for row in read(table.with_name("runs.csv"))}
    assert [row["rows"] for row in rows.values()] == ["0", "1", "0", "1", "1", "1"]
    assert rows["seed-1_factor-1.0"]["error"] == "no label column"
    assert rows["seed-2_factor-1.0"]["error"] == "ZeroDivisionError: of nobody's doing"
    page = table.with_name("index.html").read_text()
    assert "2 of 6 runs are not in the table" in page
    assert "no label column" in page
    runs.errors = {}
    assert len(read(run_all())) == 6
    assert runs.again() == ["seed-1_factor-1.0", "seed-2_factor-1.0"]


def test_an_interrupted_sweep_keeps_what_it_has_and_goes_on(runs, run_all, tmp_path):
    runs.errors = {"seed-2_factor-1.0": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        run_all()
    out = tmp_path / "out"
    assert len(read(out / "metrics.csv")) == 2
    states = [row["status"] for row in read(out / "runs.csv")]
    assert states == ["done", "done", "interrupted", "new", "new", "new"]
    assert read_manifest(out / "seed-2_factor-1.0")["error"] == "KeyboardInterrupt"
    assert not list(out.rglob(".stage.json"))
    runs.again()
    runs.errors = {}
    assert len(read(run_all())) == 6
    assert len(runs.again()) == 4


def test_runs_of_another_grid_in_the_folder_are_told_of(runs, run_all, tmp_path):
    run_all({"seed": [1, 2]})
    table = run_all({"seed": [2, 3]})
    assert runs.again() == ["seed-1", "seed-2", "seed-3"]
    assert [row["grid_seed"] for row in read(table)] == ["2", "3"]
    assert (
        "runs of another grid, which are not in the tables: seed-1."
        in (tmp_path / "out/index.html").read_text()
    )


def test_columns_of_ones_own_and_runs_without_numbers_stay(runs, run_all, tmp_path):
    def other(notebook, values, folder, *, cwd, progress):
        Runs.__call__(runs, notebook, values, folder, cwd=cwd, progress=progress)
        if values["seed"] == 1:
            (folder / "metrics.csv").unlink()
        else:
            write_text(folder / "metrics.csv", "metric,value,dose\nauc,0.5,low\n")
        whose = {"key": content_key(notebook, values), "notebook": notebook.stem}
        write_manifest(folder, promises(folder, whose))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xaitools.reports.cells.run_notebook", other)
        table = run_all({"seed": [1, 2]})
    (row,) = read(table)
    assert (row["grid_seed"], row["metric"], row["value"], row["dose"], row["method"]) == (
        "2",
        "auc",
        "0.5",
        "low",
        "",
    )
    assert [row["rows"] for row in read(table.with_name("runs.csv"))] == ["0", "1"]


def test_one_bar_counts_parts_of_runs_and_names_their_sections(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    with SweepBar("study", folders, 3, show=True) as bar:
        with telling(folders[0]) as tell_a, telling(folders[1]) as tell_b:
            tell_a(1, 4, "Train")
            tell_b(1, 2, "Explain")
            bar.look()
            assert bar._bar.n == 1.75
            assert bar._bar.postfix == "a: Train; b: Explain"
        bar.done(folders[0])
        assert bar._bar.n == 2
        bar.done(folders[1])
    assert bar._bar.n == 3
    assert list(tmp_path.rglob(".*")) == []


def test_what_lies_in_a_folder(runs, notebooks, tmp_path):
    (cell,) = plan(notebooks / "tiny.ipynb", {"seed": [1]}, preset=None, parameters=None, folder=tmp_path)
    assert look(cell).status == "new"
    for facts, status in [
        ({"status": "running"}, "interrupted"),
        ({"status": "failed", "error": "why"}, "failed"),
        ({"status": "done", "key": "another"}, "outdated"),
        ({"status": "done", "key": content_key(cell.notebook, cell.values)}, "broken"),  # tells of no files
    ]:
        write_manifest(cell.folder, facts, fresh=True)
        assert look(cell).status == status
