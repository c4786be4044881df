"""What a contributor meets: the same checks before a commit, here and in the workflow; forms that are valid."""

import os
import re
import subprocess
import sys
from pathlib import Path

import check_jsonschema
import pytest
import yaml
from click.testing import CliRunner

from xaitools.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")  # what a make above hands down
PAGES = [ROOT / "CONTRIBUTING.md", GITHUB / "pull_request_template.md", *FORMS]


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def steps_of_lint():
    """The commands of `make lint`, as make would run them: the same when make runs these tests."""
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", "lint"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in OF_MAKE},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    first = next(i for i, line in enumerate(shown) if "ruff check" in line)
    return shown[first:]


def test_a_commit_is_checked_as_make_lint_does():
    notebooks = " ".join(
        path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("notebooks/**/*.ipynb"))
    )
    commands = []
    for hook in read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]:
        files = "" if hook.get("pass_filenames") is False else f" {notebooks}"
        commands.append(hook["entry"] + files)
    assert [sorted(command.split()) for command in commands] == [
        sorted(line.split()) for line in steps_of_lint()
    ]


def test_a_commit_checks_all_notebooks():
    (hook,) = (
        hook
        for hook in read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
        if hook["id"] == "nbstripout"
    )
    for notebook in ("notebooks/ct_contrast.ipynb", "notebooks/lessons/1_why.ipynb"):
        assert re.search(hook["files"], notebook)
    assert not re.search(hook["files"], "tests/notebooks/tiny.ipynb")


def test_the_workflow_runs_what_ci_runs_on_the_oldest_and_the_newest_python():
    job = read(GITHUB / "workflows" / "check.yml")["jobs"]["check"]
    here = re.findall(r"^make .*$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert [step["run"] for step in job["steps"] if step.get("run", "").startswith("make ")] == here
    named = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project()["classifiers"]
    ]
    versions = [found[1] for found in named if found]
    assert job["strategy"]["matrix"]["python"] == [versions[0], versions[-1]]
    assert project()["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-issue-forms", FORMS),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("github-workflows", sorted((GITHUB / "workflows").glob("*.yml"))),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_that_others_read_follow_their_schemas(schema, files):
    assert files
    result = CliRunner().invoke(
        check_jsonschema.main, ["--builtin-schema", f"vendor.{schema}", *map(str, files)]
    )
    assert result.exit_code == 0, result.output


def test_a_form_that_breaks_its_schema_is_told(tmp_path):
    (tmp_path / "bug.yml").write_text("name: no description, and a body that is no list\nbody: text\n")
    arguments = ["--builtin-schema", "vendor.github-issue-forms", str(tmp_path / "bug.yml")]
    assert CliRunner().invoke(check_jsonschema.main, arguments).exit_code == 1


def test_a_bug_report_asks_for_versions_and_against_patient_data():
    body = {field.get("id"): field for field in read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"]}
    assert "xaitools doctor" in body["doctor"]["attributes"]["label"]
    assert body["doctor"]["validations"]["required"]
    assert "No patient data" in body[None]["attributes"]["value"]


def test_the_citation_names_this_version():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_files_that_contributors_are_told_of_exist(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"(?<!from )\bxaitools ([a-z]+)\b", text)) <= main.commands.keys()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {name for name in re.findall(r"`make (\w+)", text) if name != "NAME"} <= {*targets}
    paths = [
        path for path in re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*)`", text) if not re.search("[A-Z]{3}", path)
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_binder_finds_the_environment():
    """Of several descriptions repo2docker takes the first: a folder binder or a Dockerfile would hide the file."""
    hiding = ["binder", ".binder", "Dockerfile", "Pipfile", "Pipfile.lock", "environment.yaml"]
    assert [name for name in hiding if (ROOT / name).exists()] == []
    environment = read(ROOT / "environment.yml")
    assert environment["channels"] == ["conda-forge"]
