"""What a study's notebook writes its output folder with: numbers, figures, maps and the manifest."""

import atexit
import re
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from operator import index
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from xaitools import study as shared
from xaitools.cache import set_study
from xaitools.errors import ParameterError, XaitoolsError
from xaitools.files import write_csv, write_text
from xaitools.processes import token
from xaitools.seals import tell_made_again
from xaitools.study.manifest import ending, now, read_manifest, surroundings, was_killed, write_manifest
from xaitools.study.notebooks import run_parameters
from xaitools.study.privacy import Private
from xaitools.study.replacing import drop_previous, drop_unused_maps, make_room
from xaitools.study.stills import caption, write_stills

METRIC_COLUMNS = ("study", "model", "run", "fold", "method", "metric", "value", "n")


class Run:
    """What a study's notebook writes its output folder with.

    The folder is whole after every stage, so that a run which fails or is interrupted leaves what it had, and
    says so in its manifest: also when a cell fails outside of every stage, or the notebook is closed.

    Parameters
    ----------
    output_dir : str or Path
        The folder; made if needed. An earlier run there moves into its folder ``previous``, which is deleted when
        this one is done; its maps stay where they are, and those that this one did not use are deleted then.
    study : str
        Name of the study, for instance ``"ct_contrast"``.
    parameters : mapping
        The notebook's parameters, all of them.
    seed : int, optional
        The seed that every random draw of the run comes from.

    Examples
    --------
    ::

        run = Run(output_dir, study="ct_contrast", parameters={"seed": 0}, seed=0)
        with run.stage("train"):
            ...
        run.record(metric="accuracy", value=0.97, model="resnet50", n=40)
        run.finish()
    """

    def __init__(
        self, output_dir: str | Path, *, study: str, parameters: Mapping[str, Any], seed: int | None = None
    ) -> None:
        from xaitools.plots import no_uploads

        self.output_dir = Path(output_dir)
        self.maps_dir = self.output_dir / "maps"
        self.figures_dir = self.output_dir / "figures"
        for folder in (self.maps_dir, self.figures_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._study = study
        set_study(study)
        self._private = Private({**parameters, "output_dir": str(output_dir)})
        self._metrics: list[dict[str, Any]] = []
        self._seconds: dict[str, float] = {}
        self._figures: dict[Path, Any] = {}
        self._captions: dict[str, str] = {}
        facts = {
            "study": study,
            "status": "running",
            "started": now(),
            "parameters": dict(parameters),
            "seeds": {"seed": seed},
            "seconds": {},
            **surroundings(),
        }
        before = read_manifest(self.output_dir)
        self._is_alone = before.get("status") != "running" or was_killed(before)
        facts["process"] = token() if self._is_alone else before.get("process", "")
        if self._is_alone:  # else a runner keeps the folder
            make_room(self.output_dir)
        write_manifest(self.output_dir, facts, private=self._private, fresh=True)
        self._save()
        self._watch()
        no_uploads()

    @classmethod
    def of_notebook(cls, study: str, namespace: MutableMapping[str, Any]) -> "Run":
        """The run of the notebook that calls this, with the parameters that its parameters cell names.

        They are checked here, before any data. What was given as text, as Papermill gives a list, is set in the
        notebook to the value that it spells.

        Parameters
        ----------
        study : str
            Name of the study.
        namespace : mapping
            The notebook's variables: ``globals()``. Among them `output_dir`, and `seed` if it has one.

        Raises
        ------
        ParameterError
            If no parameter is called `output_dir`.
        XaitoolsError
            For a value that does not fit its type, or that the study could do nothing with; see `study.check_values`.
        """
        parameters = run_parameters(study, namespace)
        namespace.update(parameters)
        shared.check_values(study, parameters)
        return cls(parameters["output_dir"], study=study, parameters=parameters, seed=parameters.get("seed"))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds spent in the block under `name`, and write the folder at its end."""
        self._save(status="running")
        outcome: dict[str, str] = {}
        start = time.perf_counter()
        try:
            yield
        except BaseException as error:
            outcome = ending(error)
            raise
        finally:
            self._seconds[name] = round(self._seconds.get(name, 0) + time.perf_counter() - start, 3)
            self._save(seconds=self._seconds, **outcome)

    def note(self, **facts: Any) -> None:
        """Put facts into the manifest, for instance ``data=samples.fingerprint(), device="cpu"``."""
        self._save(**facts)

    def record(
        self,
        *,
        metric: str,
        value: SupportsFloat,
        method: str = "",
        model: str = "",
        run: int | str = "",
        fold: int | str = "",
        n: SupportsIndex | None = None,
    ) -> None:
        """Add one row to ``metrics.csv``: one number that the report shows.

        Parameters
        ----------
        metric : str
            What the number is, for instance ``"auc"``.
        value : float
            A number, or an array or tensor that holds one.
        method, model, run, fold : str or int, optional
            What it belongs to; empty where that does not apply.
        n : int, optional
            How many samples it comes from.
        """
        row = (self._study, model, run, fold, method, metric, float(value), "" if n is None else index(n))
        self._metrics.append(dict(zip(METRIC_COLUMNS, self._private.value(row), strict=True)))

    def record_interval(self, interval: Any, *, metric: str, **of: Any) -> None:
        """Add three rows to ``metrics.csv``: a mean and the bounds of its 95 % confidence interval.

        Parameters
        ----------
        interval : xaitools.evaluation.Interval
            With single numbers as `mean`, `low` and `high`.
        metric : str
            What the mean is; the bounds get ", lower 95 %" and ", upper 95 %" after it.
        **of
            As in `record`.
        """
        self.record(metric=metric, value=interval.mean, **of)
        self.record(metric=f"{metric}, lower 95 %", value=interval.low, **of)
        self.record(metric=f"{metric}, upper 95 %", value=interval.high, **of)

    def record_images(self, table: Any) -> Path:
        """Write a data frame with a row per image (and method) to ``per_image.csv``."""
        return write_text(self.output_dir / "per_image.csv", self._private.text(table.to_csv(index=False)))

    def save_figure(self, figure: Any, name: str) -> Path:
        """Write a plotly figure to ``figures/NAME.html``, and at the end of the run to ``figures/NAME.svg``.

        The pages share one copy of plotly's script. The still pictures need a browser; see `finish`. The caption of
        each figure stands in ``figures/captions.md``.
        """
        if not re.fullmatch(r"[\w-]+", name):
            raise ParameterError(f"figure name '{name}': use letters, digits, '_' and '-' only")
        from xaitools.plots import CONFIG

        figure = self._without_paths(figure)
        page = figure.to_html(config=CONFIG, include_plotlyjs="plotly.min.js", include_mathjax=False)
        if not self._figures:
            self._write_script()
        still = self.figures_dir / f"{name}.svg"
        still.unlink(missing_ok=True)  # one of an earlier run would be another figure
        self._figures[still] = figure
        self._captions[name] = caption(figure)
        lines = [f"- **{name}**: {text}\n" for name, text in self._captions.items() if text]
        write_text(self.figures_dir / "captions.md", "".join([f"# Figures of {self._study}\n\n", *lines]))
        return write_text(still.with_suffix(".html"), page)

    def finish(self) -> None:
        """Draw the still pictures of the figures, where there is a browser, and end with the status ``done``.

        What an earlier run in this folder left is deleted, and so are the maps that this one has neither made nor read.
        """
        self._save()
        write_stills(self._figures)
        self._figures.clear()
        drop_unused_maps(self.maps_dir)
        self._save(status="done")
        if self._is_alone:
            drop_previous(self.output_dir)

    def _write_script(self) -> None:
        """Put plotly's script beside the figures, unless it is there and whole."""
        from plotly.offline import get_plotlyjs

        path, script = self.figures_dir / "plotly.min.js", get_plotlyjs()
        if path.is_file() and path.read_bytes() == script.encode():
            return
        if path.exists():
            tell_made_again(path)
        write_text(path, script)

    def _without_paths(self, figure: Any) -> Any:
        text = figure.to_json()
        hidden = self._private.text(text)
        if hidden == text:
            return figure
        from plotly.io import from_json

        return from_json(hidden)

    def _save(self, **facts: Any) -> None:
        write_csv(self.output_dir / "metrics.csv", METRIC_COLUMNS, self._metrics)
        write_manifest(self.output_dir, facts, private=self._private)

    def _watch(self) -> None:
        """Hear of cells that fail outside of every stage, where IPython runs them, and of the end of the process."""
        atexit.register(self._end, KeyboardInterrupt("the notebook was closed before its end"))
        if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
            shell.events.register(
                "post_run_cell", lambda result: self._end(result.error_before_exec or result.error_in_exec)
            )

    def _end(self, error: BaseException | None) -> None:
        try:
            if error is not None and read_manifest(self.output_dir).get("status") == "running":
                write_manifest(self.output_dir, ending(error), private=self._private)
        except (XaitoolsError, OSError):
            return  # the folder has been moved or its manifest damaged: nothing is left to be said there
