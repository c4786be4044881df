"""Where the cells of a sweep run: processes of this machine, or the workers of a dask cluster."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from xaitools.errors import ClusterError, ParameterError
from xaitools.reports.cells import THREADS, Cell, look, run_cell, stopped

DASK_TIMEOUT = 20.0  # seconds until a scheduler that does not answer is given up
_TRIES = 2  # for a cell whose process is killed

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


def run_here(cells: Mapping[int, Cell], at_a_time: int, threads: int) -> Outcomes:
    """Run cells in processes of this machine.

    A killed process takes its neighbours with it. Its cells are tried again, and given up when that happens twice.
    """
    left, deaths = dict(cells), Counter[int]()
    limit = threads if at_a_time > 1 else None
    while left:
        with joblib.parallel_config("loky", n_jobs=at_a_time, inner_max_num_threads=limit):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        tasks = [joblib.delayed(_numbered)(index, cell, Path.cwd(), limit) for index, cell in left.items()]
        try:
            for index, error in parallel(tasks):
                del left[index]
                yield index, error
        except TerminatedWorkerError:
            killed = ClusterError("its process was killed, most often because memory ran out: try fewer --jobs")
            begun = [index for index, cell in left.items() if look(cell).manifest.get("status") == "running"]
            deaths.update(begun or left)
            for index in [index for index in left if deaths[index] >= _TRIES]:
                stopped(left.pop(index), killed)
                yield index, str(killed)
        except KeyboardInterrupt as error:
            for cell in left.values():
                stopped(cell, error)
            raise


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
    with client:
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


def _numbered(index: int, cell: Cell, cwd: Path, threads: int | None) -> tuple[int, str]:
    return index, run_cell(cell, cwd, threads)
