"""One progress bar over all cells of a sweep, wherever they run: each tells in its folder how far it is."""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm.auto import tqdm

from xaitools.files import write_text

_STAGE = ".stage.json"
_PAUSE = 0.5
"""Seconds between two looks, and at least ten times as long as a look takes: folders may lie on a slow server."""


@contextmanager
def telling(folder: Path) -> Iterator[Any]:
    """What a run calls before each of its notebook's cells, as `run_notebook` takes it."""

    def tell(done: int, total: int, section: str) -> None:
        write_text(folder / _STAGE, json.dumps([done / total, section]))

    try:
        yield tell
    finally:
        forget(folder)


def forget(folder: Path) -> None:
    """Drop what a run that was killed told last."""
    (folder / _STAGE).unlink(missing_ok=True)


class SweepBar:
    """A bar over the runs of a sweep that counts half a run as half, and names the section that each is in.

    Parameters
    ----------
    title
        Written before the bar.
    folders
        Those of the runs still to be made.
    total
        How many runs the sweep has; those that are done already are counted from the start.
    show
        Whether to show it.
    """

    def __init__(self, title: str, folders: Iterable[Path], total: int, show: bool) -> None:
        self._open = list(folders)
        for folder in self._open:
            forget(folder)
        self._before = total - len(self._open)
        self._shown = (float(self._before), "")
        self._bar: Any = tqdm(
            total=total,
            initial=self._before,
            desc=title,
            unit="run",
            disable=not show,
            bar_format="{l_bar}{bar}| {n:.3g}/{total} [{elapsed}<{remaining}{postfix}]",
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "SweepBar":
        if not self._bar.disable:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.look()
        self._bar.close()

    def done(self, folder: Path) -> None:
        """Tell that the run in `folder` has ended, well or not."""
        with self._lock:
            self._open.remove(folder)
        self.look()

    def look(self) -> None:
        """Ask the running ones how far they are, and show it."""
        with self._lock:
            stages = {folder.name: stage for folder in self._open if (stage := _stage(folder))}
            ended = self._bar.total - self._before - len(self._open)
            done = round(self._before + ended + sum(share for share, _ in stages.values()), 2)
            shown = "; ".join(f"{name}: {section}" for name, (_, section) in stages.items())
            if (done, shown) != self._shown:  # each state is a line in the log of a queue
                self._shown = self._bar.n, _ = done, shown
                self._bar.set_postfix_str(shown, refresh=False)
                self._bar.refresh()

    def _watch(self) -> None:
        pause = _PAUSE
        while not self._stop.wait(pause):
            start = monotonic()
            self.look()
            pause = max(_PAUSE, 10 * (monotonic() - start))


def _stage(folder: Path) -> tuple[float, str] | None:
    try:
        share, section = json.loads((folder / _STAGE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return share, section
