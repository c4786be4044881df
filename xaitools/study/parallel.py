"""Loops over trainings and subjects that joblib may spread over processes, if the user says so."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import joblib
from tqdm.auto import tqdm

Result = TypeVar("Result")
_TURN = threading.RLock()


def each(
    function: Callable[..., Result], calls: Iterable[tuple[Any, ...]], *, what: str, unit: str, progress: bool
) -> Iterator[Result]:
    """What `function` returns for each of the calls, in their order, with a progress bar.

    One after the other in this process, unless ``joblib.parallel_config`` says otherwise around the call::

        with joblib.parallel_config("loky", n_jobs=4, inner_max_num_threads=2):
            nets, diverged = study.repeated_trainings(...)

    Each process gets its share of the cores. Results are those of one process with as many threads, to the last bit.
    Threads take turns, for the random numbers of a training are its process's.

    Parameters
    ----------
    function
        Of a module, so that another process finds it.
    calls
        The arguments of each call.
    what, unit
        Written beside the progress bar.
    """
    calls = list(calls)
    done = joblib.Parallel(return_as="generator", batch_size=1)(
        joblib.delayed(_in_turn)(function, call) for call in calls
    )
    yield from tqdm(done, total=len(calls), desc=what, unit=unit, disable=not progress)


def _in_turn(function: Callable[..., Result], call: tuple[Any, ...]) -> Result:
    with _TURN:
        return function(*call)
