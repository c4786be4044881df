"""Where the cells of a sweep run: processes of this machine, or the workers of a dask cluster."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from xaitools.errors import ClusterError, ParameterError
from xaitools.reports.cells import THREADS, Cell, look, run_cell, stopped

DASK_TIMEOUT = 20.0  # seconds until a scheduler that does not answer is given up

Outcomes = Iterator[tuple[int, str]]
"""Number and error of each cell, "" if it is done, as they end."""


def shares(jobs: int, n_cells: int) -> tuple[int, int]:
    """How many cells run at a time, and with how many threads each, so that no core has two.

    The same call gives the same answer however many of the cells are done already, for the last bits of a result
    depend on the number of threads.

    Parameters
    ----------
    jobs
        How many were asked for; no more than there are cores.
    n_cells
        How many cells the sweep has.
    """
    cores = int(joblib.cpu_count())
    at_a_time = max(1, min(jobs, cores, n_cells))
    users = [int(value) for name in THREADS if (value := os.environ.get(name, "")).isdigit() and int(value)]
    return at_a_time, max(1, min([cores // at_a_time, *users]))


def workload(jobs: int, n_cells: int) -> str:
    """How the cores of this machine are divided, in words.

    Examples
    --------
    >>> workload(1, 1).startswith("1 run at a time")
    True
    """
    at_a_time, threads = shares(jobs, n_cells)
    runs = "1 run" if at_a_time == 1 else f"{at_a_time} runs"
    each = "1 thread" if threads == 1 else f"{threads} threads"
    asked = f"; {jobs} were asked for" if jobs > at_a_time else ""
    return f"{runs} at a time with {each} each, of {joblib.cpu_count()} cores{asked}"


def run_here(cells: Mapping[int, Cell], at_a_time: int, threads: int) -> Outcomes:
    """Run cells in processes of this machine.

    A process that is killed takes its neighbours with it: what had begun then is tried again, one cell alone after the
    other, so that the one is known whose process does not live.
    """
    left = dict(cells)
    try:
        while left:
            try:
                for index, error in _pool(left, at_a_time, threads):
                    del left[index]
                    yield index, error
            except TerminatedWorkerError:
                begun = [index for index, cell in left.items() if _is_running(cell)]
                for index in begun or list(left):
                    yield index, _alone(left.pop(index), at_a_time, threads)
    except KeyboardInterrupt as error:
        for cell in left.values():
            stopped(cell, error)
        raise


def _pool(cells: Mapping[int, Cell], at_a_time: int, threads: int) -> Outcomes:
    limit = (
        threads if at_a_time > 1 else None
    )  # a single run has this process, and the surroundings as they are
    with joblib.parallel_config("loky", n_jobs=at_a_time, inner_max_num_threads=limit):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
    yield from parallel(
        [joblib.delayed(_numbered)(index, cell, Path.cwd(), limit) for index, cell in cells.items()]
    )


def _alone(cell: Cell, at_a_time: int, threads: int) -> str:
    """The error of a cell whose process was killed before, perhaps for a neighbour's sake."""
    try:
        ((_, error),) = _pool({0: cell}, at_a_time, threads)
    except TerminatedWorkerError:
        killed = ClusterError(
            "its process was killed twice, most often because memory ran out: try fewer --jobs"
        )
        stopped(cell, killed)
        return str(killed)
    return error


def _is_running(cell: Cell) -> bool:
    return look(cell).manifest.get("status") == "running"


def run_on_dask(cells: Mapping[int, Cell], address: str) -> Outcomes:
    """Run cells on the workers of a dask cluster, which see the same file system.

    Raises
    ------
    ClusterError
        If its scheduler does not answer, or no longer.
    ParameterError
        If dask is not installed, or `address` is none.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ParameterError("dask is not installed: pip install 'xaitools[dask]'") from error
    try:
        client = Client(address, timeout=DASK_TIMEOUT, set_as_default=False)
    except ValueError as error:
        raise ParameterError(
            f"'{address}' is no address of a dask scheduler: write tcp://HOST:PORT ({error})"
        ) from error
    except OSError as error:
        raise ClusterError(
            f"no dask scheduler answers at '{address}' ({type(error).__name__}); what is done is kept: start one "
            "and give the same command again, or leave out --dask to go on on this machine"
        ) from error
    with client, _quiet("distributed.client"):
        futures = {
            client.submit(run_cell, cell, Path.cwd(), key=f"{cell.name}-{os.urandom(4).hex()}"): index
            for index, cell in cells.items()
        }
        for future in as_completed(futures, loop=client.loop):
            if future.status == "finished":
                yield futures[future], future.result()
            elif future.status == "error":
                yield futures[future], f"its worker failed: {future.exception()}"
            else:
                raise ClusterError(
                    f"the dask scheduler at '{address}' is gone; the runs that are done are kept: start one and give "
                    "the same command again, or leave out --dask to go on on this machine"
                )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without the tracebacks that a library logs beside what it tells its caller."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _numbered(index: int, cell: Cell, cwd: Path, threads: int | None) -> tuple[int, str]:
    return index, run_cell(cell, cwd, threads)
