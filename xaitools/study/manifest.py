"""The manifest of a run: what was run, on what, with which versions, and how it ended."""

import importlib.metadata
import logging
import os
import platform
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from xaitools.processes import is_gone
from xaitools.seals import read_json, write_json
from xaitools.study.privacy import Private

logger = logging.getLogger(__name__)

_PART = r"[^\s\\/'\",;()<>][^\n\r\\/'\",;()<>]*"  # of a path; blanks stand within it
_ABSOLUTE_PATH = re.compile(
    rf"(?<![\w.~/\\*}}…-])(?:[A-Za-z]:)?[\\/]{{1,2}}(?:{_PART}[\\/]+)*([^\s\\/'\",;()<>]+)"
)


def write_manifest(
    output_dir: Path, facts: Mapping[str, Any], *, private: Private | None = None, fresh: bool = False
) -> Path:
    """Merge facts into ``manifest.json``, the one way in which it is written: by the notebook and by what runs it.

    Nothing in it names the user, the machine or a file: the run's own paths are replaced, and other absolute paths
    cut to their last part. The time of the last word stands in ``updated``: of a run that was killed, and so could not
    say how it ended, it tells since when; that it was killed is known by its ``process`` (see `xaitools.study.alive`).

    Parameters
    ----------
    output_dir : Path
        The run's output folder.
    facts : mapping
        What is known. `status` is "running", "done", "failed" or "interrupted"; an `error` stays only beside the
        last two.
    private : Private, optional
        What the run knows that must not be told.
    fresh : bool
        Whether a run begins, so that nothing of an earlier one may stay.
    """
    private = private or Private({})
    shown = private.value(facts)
    if "error" in shown:
        shown["error"] = private.message(str(facts["error"]))
    manifest = ({} if fresh else read_manifest(output_dir)) | without_paths(shown) | {"updated": now()}
    if manifest.get("status") in ("running", "done"):
        manifest.pop("error", None)
    return write_json(output_dir / "manifest.json", manifest)


def read_manifest(output_dir: Path) -> dict[str, Any]:
    """The manifest of an output folder; empty if there is none, or it is damaged, which the log says.

    A run without a manifest counts as not made, and is made again.
    """
    path = output_dir / "manifest.json"
    if not path.exists():
        return {}
    try:
        return read_json(path, unsealed=True)
    except FileNotFoundError:  # it is just being moved
        return {}
    except OSError:
        logger.warning("manifest.json in '%s' is damaged: its run counts as not made.", output_dir.name)
        return {}


def ending(error: BaseException) -> dict[str, str]:
    """Status and error of a run that `error` ended."""
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    return {"status": status, "error": f"{type(error).__name__}: {error}".removesuffix(": ")}


def surroundings() -> dict[str, Any]:
    """What a run happens in: versions, operating system, number of processors."""
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }


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


def now() -> str:
    """Date and time, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def without_paths(value: Any) -> Any:
    r"""`value`, made JSON-able, with every absolute path in its texts cut to the path's last part.

    For paths that nobody has declared. Where one ends inside a sentence cannot be known: its folders may contain
    blanks, so that of several in one phrase the last part of the last is left.

    Examples
    --------
    >>> without_paths([r"\\server\First Last\ct", "no file /home/FIRST LAST/My Data/ct, to a/b"])
    ['ct', 'no file ct, to a/b']
    """
    if isinstance(value, Mapping):
        return {str(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [without_paths(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if re.match(r"[\\/]|[A-Za-z]:[\\/]", text) and "\n" not in text and not re.search(r": |[,;] ", text):
        return re.split(r"[\\/]+", text.rstrip("\\/"))[-1] or text
    return _ABSOLUTE_PATH.sub(r"\1", text)


def was_killed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says "running" of a run whose process has ended, so that it could not say how.

    That is known of a run through `run_study` on this machine since it was last started.
    """
    return manifest.get("status") == "running" and is_gone(str(manifest.get("process", "")))
