"""Every lesson is executed once, as it is shipped; its structure and its students' copy are looked at."""

import ast
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from xaitools.errors import ParameterError
from xaitools.lessons import lessons_dir, student_copy
from xaitools.lessons.checking import DOTS, EXERCISES
from xaitools.lessons.contents import LESSONS, load_lesson
from xaitools.lessons.questions import QUESTIONS
from xaitools.study.notebooks import read_from

PACKAGE = Path(__file__).parents[2] / "xaitools" / "lessons"
NAMES = [path.stem for path in sorted(lessons_dir().glob("*.ipynb"))]
CHECKED = re.compile(r'lessons\.check\("([^"]+)"')
ASKED = re.compile(r'lessons\.question\("([^"]+)"\)')


@lru_cache
def read(name):
    return nbformat.read(lessons_dir() / f"{name}.ipynb", as_version=4)


def cells(name, kind, tag=None):
    """Cells of a kind that bear a tag, or none of the lessons' tags."""
    return [
        cell
        for cell in read(name).cells
        if cell.cell_type == kind and (tag in tags(cell) if tag else not tags(cell))
    ]


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A lesson's cells with their outputs; a cell that fails fails the test."""
    done = {}

    def execute(name):
        if name not in done:
            notebook = deepcopy(read(name))
            resources = {"metadata": {"path": str(tmp_path_factory.mktemp(name))}}
            done[name] = NotebookClient(notebook, timeout=600, resources=resources).execute().cells
        return done[name]

    return execute


def told(cell):
    """What the box below a cell says."""
    data = [output["data"] for output in cell.outputs if output.output_type == "display_data"]
    return [item["text/plain"] for item in data if "xai-lesson-" in item.get("text/html", "")]


def test_a_lesson_is_a_notebook_and_a_module():
    assert [f"{number}_{name}" for number, name in enumerate(LESSONS, 1)] == NAMES
    assert all((PACKAGE / f"{name}.py").is_file() for name in LESSONS)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_its_boxes_say_what_they_should(name, executed):
    for cell in executed(name):
        outputs = cell.get("outputs", [])
        assert not [output for output in outputs if output.get("name") == "stderr"]
        if "exercise" in tags(cell):
            assert told(cell) == [f"Your turn. {DOTS}"]
        if cell.cell_type == "code" and "solution" in tags(cell):
            (verdict,) = told(cell)
            assert verdict.startswith("Right."), f"{cell.source}\n{verdict}"


@pytest.mark.parametrize("name", NAMES)
def test_something_to_look_at_comes_first(name, executed):
    looked = {"application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"}
    before = []
    for cell in executed(name):
        if "exercise" in tags(cell):
            break
        before += [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert looked & set(before)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_parts_of_a_lesson(name):
    number = name.partition("_")[0]
    texts = [cell.source for cell in cells(name, "markdown")]
    assert texts[0].startswith(f"# Lesson {number}: ")
    assert re.search(r"\*\*Time:\*\* 2[05]|30 minutes", texts[0])
    assert "**Goals.**" in texts[0]
    assert texts[0].count("\n- ") >= 2
    page = "\n".join(texts)
    for part in ("### Exercise ", "## A question", "## For discussion", "## Recap", "## References"):
        assert part in page
    references = page.partition("## References")[2]
    assert len(re.findall(r"(?m)^- .*\b(19|20)\d\d\b", references)) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_dots_and_a_folded_solution_with_the_same_check(name):
    all_cells = list(read(name).cells)
    exercises = [i for i, cell in enumerate(all_cells) if "exercise" in tags(cell)]
    assert 2 <= len(exercises) <= 3
    for position in exercises:
        exercise, solution = all_cells[position : position + 2]
        assert exercise.cell_type == solution.cell_type == "code"
        assert "..." in exercise.source
        assert tags(solution) == ["solution"]
        assert CHECKED.findall(exercise.source) == CHECKED.findall(solution.source)
    solutions = [cell for cell in all_cells if "solution" in tags(cell)]
    assert all(cell.metadata.jupyter.source_hidden for cell in solutions)
    assert [cell.cell_type for cell in solutions].count("code") == len(exercises)
    assert [cell.cell_type for cell in solutions].count("markdown") >= 1  # the question for discussion


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_needs_an_exercise_to_be_solved(name):
    """What an exercise leaves open is used by its own cell and its solution only."""
    left_open = set()
    for cell in cells(name, "code", "exercise"):
        for node in ast.parse(cell.source).body:
            if any(isinstance(part, ast.Constant) and part.value is ... for part in ast.walk(node)):
                left_open |= {node.name} if isinstance(node, ast.FunctionDef) else names(node) - {"lessons"}
    assert left_open
    for cell in cells(name, "code"):
        assert not left_open & names(ast.parse(cell.source)), cell.source


def names(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("name", NAMES)
def test_checks_and_questions_are_those_of_the_lesson(name):
    number = name.partition("_")[0]
    load_lesson(f"{number}.1")
    page = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    for pattern, known in ((CHECKED, EXERCISES), (ASKED, QUESTIONS)):
        own = {key for key in known if key.startswith(f"{number}.")}
        assert set(pattern.findall(page)) == own != set()


def test_students_get_no_solution(tmp_path):
    made = student_copy(tmp_path / "class")
    assert [path.stem for path in made] == NAMES
    for path in made:
        copy = nbformat.read(path, as_version=4)
        nbformat.validate(copy)
        solutions = [cell.source for cell in read(path.stem).cells if "solution" in tags(cell)]
        assert len(copy.cells) == len(read(path.stem).cells) - len(solutions)
        assert not [cell for cell in copy.cells if "solution" in tags(cell)]
        text = "\n".join(cell.source for cell in copy.cells)
        for solution in solutions:
            own = [line for line in solution.splitlines() if not CHECKED.search(line)]
            assert "\n".join(own).strip() not in text
        assert not [cell for cell in copy.cells if cell.get("outputs")]


def test_teachers_keep_the_solutions_and_what_was_written_stays(tmp_path):
    made = student_copy(tmp_path, solutions=True)
    assert [path.read_text() for path in made] == [
        read_from(lessons_dir() / path.name, tmp_path) for path in made
    ]
    made[0].write_text("mine")
    made[1].unlink()
    assert student_copy(tmp_path) == made[1:2]
    assert made[0].read_text() == "mine"


def test_the_lessons_themselves_are_not_opened():
    with pytest.raises(ParameterError, match="expected another folder"):
        student_copy(lessons_dir())
