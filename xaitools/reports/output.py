"""The output folder of a study: numbers, figures, maps and the manifest that says how they came about."""

import csv
import importlib.metadata
import io
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from operator import index
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from xaitools.errors import DataError, ParameterError
from xaitools.reports.notebooks import find_notebook, read_parameters

METRIC_COLUMNS = ("study", "model", "run", "fold", "method", "metric", "value", "n")

_ABSOLUTE_PATH = re.compile(
    r"(?<![\w.~/\\-])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\",;()<>]+[\\/])*([^\s\\/'\",;()<>]+)"
)


class Run:
    """What a study's notebook writes its output folder with.

    The folder is whole after every stage, so that a run which fails or is interrupted leaves what it had.
    Nothing in the manifest names the user or the machine: absolute paths are cut to their last part.

    Parameters
    ----------
    output_dir : str or Path
        The folder; made if needed. Maps that lie there from an earlier run stay.
    study : str
        Name of the study, for instance ``"ct_contrast"``.
    parameters : mapping
        The notebook's parameters, all of them.
    seed : int, optional
        The seed that every random draw of the run comes from.

    Examples
    --------
    >>> run = Run(output_dir, study="ct_contrast", parameters={"seed": 0}, seed=0)  # doctest: +SKIP
    >>> with run.stage("train"):                                                    # doctest: +SKIP
    ...     ...
    >>> run.record(metric="accuracy", value=0.97, model="resnet50", n=40)           # doctest: +SKIP
    >>> run.finish()                                                                # doctest: +SKIP
    """

    def __init__(
        self, output_dir: str | Path, *, study: str, parameters: Mapping[str, Any], seed: int | None = None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.maps_dir = self.output_dir / "maps"
        self.figures_dir = self.output_dir / "figures"
        for folder in (self.maps_dir, self.figures_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._study = study
        self._metrics: list[dict[str, Any]] = []
        self._manifest: dict[str, Any] = {
            "study": study,
            "status": "running",
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "parameters": dict(parameters),
            "seeds": {"seed": seed},
            "seconds": {},
            "versions": versions(),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
        }
        self._save()

    @classmethod
    def of_notebook(cls, study: str | Path, namespace: Mapping[str, Any]) -> "Run":
        """The run of a study's notebook, with the parameters that its parameters cell names.

        Parameters
        ----------
        study : str or Path
            Name of the study, or the path of its notebook.
        namespace : mapping
            The notebook's variables: ``globals()``. Among them `output_dir` and `seed`.
        """
        notebook = find_notebook(study)
        parameters = {name: namespace[name] for name in read_parameters(notebook)}
        return cls(
            parameters["output_dir"], study=notebook.stem, parameters=parameters, seed=parameters["seed"]
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds spent in the block under `name`, and write the folder at its end."""
        start = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self._manifest["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            raise
        finally:
            seconds = self._manifest["seconds"]
            seconds[name] = round(seconds.get(name, 0) + time.perf_counter() - start, 3)
            self._save()

    def note(self, **facts: Any) -> None:
        """Put facts into the manifest, for instance ``data=samples.fingerprint(), device="cpu"``."""
        self._manifest.update(facts)
        self._save()

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
        self._metrics.append(dict(zip(METRIC_COLUMNS, row, strict=True)))

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
        return write_text(self.output_dir / "per_image.csv", table.to_csv(index=False))

    def save_figure(self, figure: Any, name: str) -> Path:
        """Write a plotly figure to ``figures/NAME.html``; the figures share one copy of plotly's script."""
        if not re.fullmatch(r"[\w-]+", name):
            raise ParameterError(f"figure name '{name}': use letters, digits, '_' and '-' only")
        page = figure.to_html(include_plotlyjs="plotly.min.js", include_mathjax=False)
        script = self.figures_dir / "plotly.min.js"
        if not script.exists():
            from plotly.offline import get_plotlyjs

            write_text(script, get_plotlyjs())
        return write_text(self.figures_dir / f"{name}.html", page)

    def finish(self) -> None:
        """Write everything, with the status ``done``."""
        self._manifest["status"] = "done"
        self._save()

    def _save(self) -> None:
        write_csv(self.output_dir / "metrics.csv", METRIC_COLUMNS, self._metrics)
        write_manifest(self.output_dir, self._manifest)


def versions() -> dict[str, str]:
    """Versions of xaitools and of the packages that it requires, as far as they are installed."""
    required = importlib.metadata.requires("xaitools") or []
    names = [re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line]
    found = {}
    for name in ["xaitools", *sorted(names, key=str.lower)]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_manifest(output_dir: Path) -> dict[str, Any]:
    """The manifest of an output folder; empty if there is none.

    Raises
    ------
    DataError
        If the file is not valid JSON.
    """
    path = output_dir / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run the study again") from error
    return manifest


def write_manifest(output_dir: Path, manifest: Mapping[str, Any]) -> Path:
    """Write ``manifest.json``, with every absolute path cut to its last part."""
    text = json.dumps(without_paths(manifest), indent=2, ensure_ascii=False)
    return write_text(output_dir / "manifest.json", text + "\n")


def without_paths(value: Any) -> Any:
    """`value`, made JSON-able, with every absolute path in its texts cut to the path's last part."""
    if isinstance(value, Mapping):
        return {str(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [without_paths(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _ABSOLUTE_PATH.sub(r"\1", str(value))


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> Path:
    """Write a table; readers see the old file or the new one, never a part."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> Path:
    """Write a file; readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
