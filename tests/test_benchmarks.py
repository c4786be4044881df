"""Every benchmark helps, refuses sizes that make no sense, and runs at its smallest, with and without the peers."""

import importlib
import json
import multiprocessing
import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
PEERS = ("saliency", "zennit", "monai", "quantus", "playwright", "ipyniivue")
WITHOUT_ROWS = ("gpu", "model_randomization")  # its peer is Quantus alone, which is hidden here
SHARED = ["captum.attr", "monai.visualize", "nilearn.maskers", "scipy.stats", "sklearn.metrics"]
SHARED += [
    f"xaitools.{name}" for name in ("atlas", "attribution", "evaluation", "models", "phantoms", "plots")
]


def _run(script, arguments, hidden, log):
    """In a fresh process: the script as `python benchmarks/SCRIPT.py` runs it, without the hidden modules."""
    for module in hidden:
        sys.modules.update({name: None for name in [module, *sys.modules] if name.split(".")[0] == module})
    sys.argv = [str(FOLDER / f"{script}.py"), *arguments]
    sys.path.insert(0, str(FOLDER))
    with log.open("w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    warnings.simplefilter("ignore")
    runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.fixture(scope="module")
def server():
    """Forks processes that have loaded what all scripts load, so that torch is loaded once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SHARED)
    return context


@pytest.fixture
def run(server, tmp_path):
    """Exit code and output of a script."""

    def start(script, *arguments, hidden=()):
        log = tmp_path / "log"
        process = server.Process(target=_run, args=(script, arguments, hidden, log))
        process.start()
        process.join()
        return process.exitcode, log.read_text()

    return start


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_helps_without_its_peers(run, script):
    code, said = run(script, "--help", hidden=PEERS)
    assert code == 0, said
    assert "--quick" in said
    assert said.startswith(f"usage: {script}.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_runs_at_its_smallest(run, script, tmp_path):
    code, said = run(script, "--quick", "--results", str(tmp_path), hidden=("quantus", "ipyniivue"))
    assert code == 0, said
    if script in WITHOUT_ROWS:
        return
    rows = json.loads((tmp_path / f"{script}.json").read_text())
    assert rows
    for row in rows.values():
        assert row["value"] == sorted(row["value"])
        assert row["repeats"] >= 1
        assert row["machine"]["cores"] >= 1


def test_a_gpu_that_is_not_there_is_said_and_fails_but_for_the_quick_run(run):
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        pytest.fail("this machine has CUDA: run benchmarks/gpu.py --quick here instead")
    for arguments, expected in ((("--quick",), 0), ((), 1)):
        code, said = run("gpu", *arguments)
        assert code == expected
        assert "no CUDA device" in said


def test_the_gpu_script_counts_operations(run, tmp_path):
    """On the processor, which has a roofline too."""
    arguments = ["--quick", "--device", "cpu", "--workloads", "curves", "--results", str(tmp_path)]
    code, said = run("gpu", *arguments)
    assert code == 0, said
    row = json.loads((tmp_path / "gpu.json").read_text())["gpu/curves"]
    assert row["counted"]["TFLOP"] > 0
    assert row["seconds"]["roofline"] > 0


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("occlusion", ["--windows", "8"], "8 is less than 16"),
        ("attribution", ["--draws", "0"], "0 is less than 2"),
        ("atlas", ["--maps", "-1"], "-1 is less than 1"),
        ("lrp", ["--repeats", "0"], "0 is less than 1"),
        ("lrp", ["--quick", "--workloads", "no such"], "no workload no such; there are ResNet-50 epsilon"),
    ],
)
def test_what_makes_no_sense_is_refused(run, script, arguments, said):
    code, output = run(script, *arguments)
    assert code == 2
    assert said in output


def test_peak_memory_is_that_of_one_way_alone(run):
    code, output = run("atlas", "--quick", "--only", "tables", "ours")
    assert code == 0, output
    assert 0 <= int(output) < 200


def test_without_its_peer_a_full_run_says_what_to_install(run):
    code, output = run("grad_cam", hidden=("monai",))
    assert code == 1
    assert "monai is not installed: pip install -e '.[bench]'" in output


@pytest.mark.parametrize(
    ("arguments", "setting", "expected"),
    [
        (["--add"], "big", [2.0, 2.0, 3.0, 3.0]),
        ([], "big", [3.0, 3.0]),
        (["--add"], "another", [3.0, 3.0]),
        (["--add", "--images", "2"], "big", [3.0, 3.0]),
    ],
)
def test_turns_are_added_to_those_of_the_same_measurement_alone(
    monkeypatch, tmp_path, arguments, setting, expected
):
    monkeypatch.syspath_prepend(FOLDER)
    harness = importlib.import_module("_harness")

    def measure(ratio, setting, *arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", "--results", str(tmp_path), *arguments])
        turns = harness.Turns(
            *({"peer": [ratio, ratio], "ours": [1.0, 1.0], "other": [5.0, 5.0]} for _ in harness.CLOCKS), {}
        )
        harness.Bench("", images=harness.Size(8, quick=1)).ratio(turns, "peer", setting=setting)

    measure(2.0, "big")
    measure(3.0, setting, *arguments)
    row = json.loads((tmp_path / "script.json").read_text())["script/peer"]
    found = [
        a / b for a, b in zip(*(row["turns"]["processor"][way] for way in ("peer", "ours")), strict=True)
    ]
    assert found == expected
    assert row["repeats"] == len(expected)
    assert row["value"] == [min(expected), sum(expected) / len(expected), max(expected)]


@pytest.fixture
def table(monkeypatch):
    """The module that renders RESULTS.md."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("_table")


def _row(*value, reduced=(), **more):
    machine = {
        "processor": "P",
        "cores": 2,
        "threads": 1,
        "load": 0.5,
        "python": "3.11",
        "date": "2030-01-01",
    }
    machine["versions"] = {"torch": "2"}
    row = {"value": list(value), "unit": "x", "repeats": 3, "setting": "big", "reduced": list(reduced)}
    return row | {"machine": machine} | more


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (None, "not measured"),
        (_row(3.0, 4.0, 5.0), "yes"),
        (_row(3.0, 3.9, 5.0), "**no**"),
        (_row(3.0, 4.1, 5.0, reduced=["draws 3 instead of 25"]), "smaller: would be met"),
        (_row(3.0, 3.1, 5.0, reduced=["draws 3 instead of 25"]), "smaller: would not be met"),
    ],
)
def test_a_goal_is_met_by_the_median_of_the_whole_workload(table, row, expected):
    assert table.reached({"at_least": 4}, row) == expected


def test_less_is_better_where_a_goal_is_a_limit(table):
    assert table.reached({"at_most": 4}, _row(3.0, 3.9, 5.0)) == "yes"
    assert table.reached({"at_most": 4}, _row(3.0, 4.1, 5.0)) == "**no**"


def test_the_page_shows_goals_rows_and_growth(table, tmp_path):
    rows = {
        "a/b": _row(3.0, 4.0, 5.0, seconds={"peer": 8.0, "ours": 2.0}),
        "growth/steps/time": _row(1.4, 1.4, 1.4, setting="steps; s", points={"8": 1.0, "16": 2.6}),
        "growth/steps/memory": _row(0.0, 0.0, 0.0, setting="steps; MiB", points={"8": 3.0, "16": 3.0}),
    }
    page = table.render(rows, [{"row": "a/b", "title": "A", "at_least": 3, "unit": "x"}], tmp_path)
    assert "| A | ≥ 3 times | 4 times (3 to 5) | yes |" in page
    assert "| `a/b` | big | 4 times (3 to 5) |  | peer 8, ours 2 |" in page
    assert "time grows with the power 1.40, worse than linear (s at 8: 1, 16: 2.6)" in page
    assert "memory grows with the power 0.00, linear or better" in page


def test_every_goal_names_a_workload_that_a_script_has(table):
    goals = table.yaml.safe_load((FOLDER / "goals.yaml").read_text())
    assert {goal["row"].split("/")[0] for goal in goals} <= set(SCRIPTS)
    assert all(("at_least" in goal) != ("at_most" in goal) for goal in goals)
    assert len({goal["row"] for goal in goals}) == len(goals)


def test_the_page_in_the_repository_is_what_its_rows_say(table):
    rows = table.read(FOLDER / "results")
    goals = table.yaml.safe_load((FOLDER / "goals.yaml").read_text())
    page = table.render(rows, goals, FOLDER / "results").rstrip() + "\n"
    assert (FOLDER / "RESULTS.md").read_text(encoding="utf-8") == page, "run python benchmarks/_table.py"
