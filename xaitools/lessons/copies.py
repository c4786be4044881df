"""Copies of the lessons: for students without the solutions, for teachers with them."""

from pathlib import Path

import nbformat

from xaitools.reports.working_copy import copied
from xaitools.study.notebooks import notebooks_dir

SOLUTION = "solution"
"""Tag of the cells that students' copies lack: solutions of exercises, answers to questions for discussion."""


def lessons_dir() -> Path:
    """The folder of the lessons as they are shipped, solutions and all."""
    return notebooks_dir() / "lessons"


def student_copy(folder: str | Path, *, solutions: bool = False) -> list[Path]:
    """Copy the lessons into `folder`, but for those that it has: what somebody wrote there stays.

    Parameters
    ----------
    folder
        Made if it is not there.
    solutions
        Keep the solutions, folded, as a teacher wants them.

    Returns
    -------
    list of Path
        The copies made.

    Raises
    ------
    ParameterError
        If the folder is that of the shipped lessons.
    """
    return copied(lessons_dir(), folder, (lambda text: text) if solutions else without_solutions)


def without_solutions(text: str) -> str:
    """A notebook, as the text of its file, without the cells tagged as solutions and without any outputs."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook) + "\n"
