"""Run a study's notebook through Papermill, strictly, into its output folder."""

import builtins
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io
from tqdm.auto import tqdm

from xaitools import errors
from xaitools.errors import ParameterError, StorageError, XaitoolsError
from xaitools.files import digest, write_text
from xaitools.processes import token
from xaitools.reports.execution import execute
from xaitools.reports.hiding import hide
from xaitools.reports.html import to_html
from xaitools.reports.parameters import check_parameters, read_preset, usual_preset
from xaitools.reports.places import check_places, failure, in_words, plain_failures
from xaitools.reports.promises import promises
from xaitools.reports.signals import Heard, deferred
from xaitools.study.manifest import ending, read_manifest, was_killed, without_paths, write_manifest
from xaitools.study.notebooks import find_notebook, read_parameters
from xaitools.study.privacy import Private
from xaitools.study.replacing import drop_previous, make_room, replaced

logger = logging.getLogger(__name__)

SCHEME = "in-memory://"

Told = Callable[[int, int, str], object]
"""``told(cells done, cells, section)``, before each cell of a notebook."""


class _Kept:
    """What Papermill writes after every cell, in memory: as a file it would tell all that a killed run knew."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def write(self, text: str, path: str) -> None:
        self.texts[path] = text

    def pretty_path(self, path: str) -> str:
        return path


_KEPT = _Kept()
papermill_io.register(SCHEME, _KEPT)


def run_study(
    study: str | Path,
    *,
    preset: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Run a study and write its output folder: the executed notebook, the HTML report, numbers, maps.

    Running it again in the same folder resumes from the maps that lie there. A finished run that lies there is named in
    a warning and kept whole, in the folder ``previous``, until this one is done. The executed notebook
    is written at the end, also that of a run that fails or is interrupted, without the paths and names that it knew.

    Parameters
    ----------
    study : str or Path
        A study's name, or the path of a notebook.
    preset : str, optional
        Which of the study's parameter files to start from: if not given, ``quick``, or for a notebook that has none,
        the values of its own parameters cell.
    parameters : mapping, optional
        Parameters that differ from the preset. Relative paths count from the current folder.
    out : str or Path, optional
        The output folder; ``output/STUDY/PRESET`` if not given, ``output/STUDY/own`` without presets.
    progress : bool
        Show a progress bar that names the section of the notebook being run.

    Returns
    -------
    Path
        The HTML report.

    Raises
    ------
    ParameterError
        For an unknown study, preset or parameter, or a value of the wrong type; nothing is run then.
    StorageError
        If the output folder, the cache or the folder of temporary files cannot be written to; nothing is run then. Or
        if a disk gets full.
    XaitoolsError
        When a cell fails; of the class that the cell raised, if that is one of ``xaitools.errors``.
    Stopped
        A KeyboardInterrupt, after Ctrl-C or another signal that asks the process to end, when the kernel has ended
        and the manifest says so.
    """
    notebook = find_notebook(study)
    preset = usual_preset(notebook) if preset is None else preset
    folder = Path(out or Path("output") / notebook.stem / (preset or "own")).resolve()
    return run_notebook(notebook, inputs(notebook, preset, parameters or {}), folder, progress=progress)


def inputs(notebook: Path, preset: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The checked parameters of a run: those of the preset, "" for none, and over them those given."""
    if "output_dir" in parameters:
        raise ParameterError("output_dir is set by the output folder: use --out, or out=")
    of_preset = check_parameters(notebook, read_preset(notebook, preset)) if preset else {}
    values = of_preset | check_parameters(notebook, parameters)
    return {"preset": preset} | values if "preset" in read_parameters(notebook) else values


def content_key(notebook: Path, values: Mapping[str, Any]) -> str:
    """Same key, same run: a hash of the notebook and of its parameters, wherever the output goes."""
    where_to = {"output_dir": None}
    text = json.dumps({**values, **where_to}, sort_keys=True, default=str)
    return digest([notebook.read_bytes(), text])


def run_notebook(
    notebook: Path,
    values: Mapping[str, Any],
    folder: Path,
    *,
    cwd: Path | None = None,
    progress: bool | Told = True,
) -> Path:
    """Run a notebook with checked parameters into `folder`; see `run_study`. `progress` may also be who is told."""
    with deferred() as heard, plain_failures(folder):
        return _run(notebook, values, folder, cwd or Path.cwd(), progress, heard)


def _run(
    notebook: Path, values: Mapping[str, Any], folder: Path, cwd: Path, progress: bool | Told, heard: Heard
) -> Path:
    check_places(folder)
    executed, report = folder / notebook.name, folder / f"{notebook.stem}.html"
    if "output_dir" in read_parameters(notebook):
        values = {**values, "output_dir": str(folder)}
    key = content_key(notebook, values)
    private = private_of(notebook, values, folder)
    if said := replaced(folder, private.value(without_paths({**_defaults(notebook), **values}))):
        logger.warning("%s", said)
    _tell_if_killed(folder)
    make_room(folder)
    begins = {"study": notebook.stem, "status": "running", "process": token()}
    write_manifest(folder, begins, fresh=True)
    place = f"{SCHEME}{uuid.uuid4()}/{notebook.name}"
    try:
        try:
            with _progress(notebook, progress) as on_cell_start:
                execute(notebook, place, executed, values, cwd, heard, on_cell_start)
        except BaseException as error:
            with suppress(OSError):  # on a full disk; what counts is what came first
                _write_hidden(_KEPT.texts.pop(place, ""), executed, private)
            if isinstance(error, PapermillExecutionError):
                raise _failure(notebook, executed, error) from None
            raise
        _write_hidden(_KEPT.texts.pop(place, ""), executed, private)
        heard.check()
        to_html(executed, report, manifest=read_manifest(folder))
        heard.check()
    except BaseException as error:
        with suppress(OSError):
            write_manifest(folder, {"key": key, "notebook": notebook.stem, **ending(error)}, private=private)
        raise
    whose = {"key": key, "notebook": notebook.stem}
    write_manifest(folder, {**whose, "status": "done", **promises(folder, whose)})
    drop_previous(folder)
    return report


@contextmanager
def _progress(notebook: Path, show: bool | Told) -> Iterator[Callable[..., None]]:
    """A bar over the notebook's cells that names the section each belongs to."""
    sections = _sections(notebook)
    n_cells = len(sections) + 1  # Papermill adds one, with the values given
    tell = show if callable(show) else None
    with tqdm(total=n_cells, desc=notebook.stem, unit="cell", disable=tell is not None or not show) as bar:

        def on_cell_start(cell: Any, cell_index: int) -> None:
            section = sections.get(cell.source)
            if tell:
                tell(cell_index, n_cells, section or "")
            if section:
                bar.set_description(f"{notebook.stem}: {section}", refresh=False)
            bar.n = min(cell_index, bar.total)
            bar.refresh()

        yield on_cell_start
        bar.n = bar.total
        bar.refresh()


def _sections(notebook: Path) -> dict[str, str]:
    """For the source of each cell, the last heading at or above it."""
    heading, sections = "", {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        found = re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = found[-1].strip() if found else heading
        sections[cell.source] = heading
    return sections


def _failure(notebook: Path, executed: Path, error: PapermillExecutionError) -> XaitoolsError:
    section = _sections(notebook).get(error.source)
    where = f"in '{section}'" if section else f"in cell {error.exec_count}"
    message = error.evalue.strip().splitlines()[-1] if error.evalue.strip() else "no message"
    of_system = issubclass(getattr(builtins, error.ename, object), OSError)
    kind = getattr(errors, error.ename, StorageError if of_system else XaitoolsError)
    so_far = f" (the notebook so far: {executed})" if executed.exists() else ""
    return kind(
        f"{notebook.stem} failed {where}: {error.ename}: {in_words(message, executed.parent)}{so_far}"
    )


def _tell_if_killed(folder: Path) -> None:
    manifest = read_manifest(folder)
    if was_killed(manifest):
        when = str(manifest.get("updated", "an unknown date"))[:16].replace("T", " ")
        logger.warning(
            "The run in '%s' that was last heard of at %s UTC was killed; this one goes on from what it left.",
            folder.name,
            when,
        )


def private_of(notebook: Path, values: Mapping[str, Any], folder: Path) -> Private:
    """What a run of `notebook` with `values` into `folder` must not tell."""
    return Private(
        {**_defaults(notebook), **values, "output_dir": str(folder)}, {str(notebook.resolve().parent): "."}
    )


def _defaults(notebook: Path) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in read_parameters(notebook).items()}


def _write_hidden(text: str, executed: Path, private: Private) -> None:
    """Write the executed notebook without what is private, if there is one: also that of a run that failed."""
    if text:
        notebook = hide(json.loads(text), private)
        shown = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        try:
            write_text(executed, shown)
        except OSError as error:
            raise StorageError(failure(error, executed.parent, len(shown.encode()))) from error
