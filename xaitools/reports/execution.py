"""The execution of a notebook in a kernel, which whoever waits for it may end at any moment."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import papermill
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.log import logger as papermill_logger

from xaitools.errors import XaitoolsError
from xaitools.reports.kernel import Kernels, kernels
from xaitools.reports.signals import POLITE, Heard, Stopped

_UNTIL_INTERRUPT, _UNTIL_KILL = 0.3, 2.5
"""Seconds after a signal. One that reached the kernel too needs no second, which would strike it as it tidies up; and
code that is not Python's does not hear any."""
_START = 300  # seconds that a kernel has to start, from a slow disk of a busy cluster


class _Over(Exception):
    """No more cells are wanted."""


def execute(
    notebook: Path,
    place: str,
    executed: Path,
    values: Mapping[str, Any],
    cwd: Path,
    heard: Heard,
    on_cell_start: Callable[[Any, int], None],
) -> None:
    """Execute a notebook by Papermill, in a thread of its own.

    Signals are heard in the main thread, which does nothing but wait for them, so that none strikes inside of a
    library that would swallow it, or take what follows from it for an error. After one the kernel is interrupted, and
    killed if it does not end soon.

    Parameters
    ----------
    notebook : Path
        What to execute.
    place : str
        Where Papermill writes it, after every cell.
    executed : Path
        Where it will lie in the end, for messages.
    values : mapping
        Its parameters.
    cwd : Path
        The folder that the kernel works in.
    heard : Heard
        Of the block that handles signals.
    on_cell_start : callable
        Given each cell and its index.

    Raises
    ------
    PapermillExecutionError
        If a cell fails.
    Stopped
        If a signal asked this process or the kernel to end.
    XaitoolsError
        If the kernel ends otherwise, or does not start.
    """

    def go_on(cell: Any, cell_index: int) -> None:
        if heard.numbers:
            raise _Over
        on_cell_start(cell, cell_index)

    with kernels() as own, _quiet():
        work = partial(
            papermill.execute_notebook,
            notebook,
            place,
            parameters=dict(values),
            progress_bar=False,
            kernel_name="python3",
            language="python",
            kernel_manager_class=own.manager,
            shutdown_kernel="immediate",
            start_timeout=_START,
            resources={"metadata": {"path": str(cwd)}},
            on_cell_start=go_on,
        )
        error = _finish(work, own, heard)
        heard.check()
        if isinstance(error, PapermillExecutionError) and error.ename == "KeyboardInterrupt":
            raise Stopped(signal.SIGINT)
        if isinstance(error, DeadKernelError | RuntimeError):
            raise _dead(executed, own.ended_by, error)
        if error:
            raise error


def _finish(work: Callable[[], object], own: Kernels, heard: Heard) -> BaseException | None:
    """Wait for work that is done by kernels, and after a signal see to its end; what it raised."""
    with ThreadPoolExecutor(1, "notebook") as pool:
        running: Future[None] = pool.submit(_with_own_loop, work)
        try:
            _watch(running, own, heard)
        except BaseException:  # of a handler of the user's own
            heard.numbers.append(signal.SIGINT)
            own.kill()
            raise
    return running.exception()


def _watch(running: Future[None], own: Kernels, heard: Heard) -> None:
    asked_at, interrupted = 0.0, False
    while not wait([running], timeout=0.1).done:
        if not heard.numbers:
            continue
        asked_at = asked_at or time.monotonic()
        waited = time.monotonic() - asked_at
        if waited > _UNTIL_KILL or len(heard.numbers) > 1:
            own.kill()
        elif waited > _UNTIL_INTERRUPT and not interrupted:
            own.interrupt()
            interrupted = True


def _with_own_loop(work: Callable[[], object]) -> None:
    """Do what makes an event loop for its thread, and tidy that up."""
    try:
        work()
    finally:
        loop = ensure_event_loop()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


def _dead(executed: Path, by: int, error: BaseException) -> BaseException:
    """What to raise of a kernel that ended, by a signal or 0."""
    if by in POLITE:
        return Stopped(by)
    how = f" by {signal.Signals(by).name}" if by else ""
    if not isinstance(error, DeadKernelError):
        return XaitoolsError(f"{executed.stem}: its Python process did not start ({error}{how})")
    return XaitoolsError(
        f"{executed.stem}: its Python process died{how}, most often because memory ran out: "
        f"try fewer subjects or smaller images (the notebook so far: {executed})"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Papermill logs of a kernel's end, which is raised too, or was wanted."""

    def is_news(record: logging.LogRecord) -> bool:
        return record.levelno != logging.ERROR

    papermill_logger.addFilter(is_news)
    try:
        yield
    finally:
        papermill_logger.removeFilter(is_news)
