"""Tensors whose items lie in files, each made once: memory does not grow with the number of items."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm.auto import tqdm

from xaitools.cache import cache_dir, current_study
from xaitools.errors import DataError, ShapeError
from xaitools.files import digest, replacing
from xaitools.seals import BLANK, SEAL, check_seal, seal, tell_made_again

STEPS = 65535
DTYPES = ("U16", "BOOL", "I64")


@dataclass(frozen=True)
class CachedArray:
    """An array that is made once and then read from a file.

    Grey values in [0, 1] are kept in 65535 steps, which takes half the room of float32. It is written in one step, so
    that a run that was killed goes on where it stopped. The file carries a checksum, which a process compares when it
    first reads it, and again when it has changed: a file that is missing or not as it was written is made again.

    Parameters
    ----------
    path : Path
    make : callable
        Makes the array: of float in [0, 1], bool or integers. It can be pickled, for parallel preparation.
    measure : callable, optional
        Makes a number of the array, which is kept in the file's header: see :meth:`measured`.
    """

    path: Path
    make: Callable[[], np.ndarray]
    measure: Callable[[np.ndarray], float] | None = None

    def prepare(self) -> None:
        """Make the file, unless it is there and whole."""
        if not (self.path.is_file() and _stamp(self.path) in _found_whole):
            self._check()

    def load(self) -> np.ndarray:
        """The array: float32, bool or int64."""
        self.prepare()
        with safe_open(self.path, framework="np") as file:
            array = file.get_tensor("array")
        if array.dtype == np.uint16:
            return array.astype(np.float32) / np.float32(STEPS)
        return array

    def digest(self) -> str:
        """Hexadecimal digest of the contents, which is kept in the file."""
        self.prepare()
        with safe_open(self.path, framework="np") as file:
            return file.metadata()["sha256"]

    def measured(self) -> float:
        """What `measure` made of the array when it was made; reads the header alone."""
        self.prepare()
        with safe_open(self.path, framework="np") as file:
            return float(file.metadata()["measured"])

    def _check(self) -> None:
        """Compare the file with its checksum, and make it again if it is another."""
        if not self.path.is_file():
            self.make_again()
            return
        try:
            check_seal(self.path)
            with safe_open(self.path, framework="np") as file:
                kept = file.metadata()
                if file.get_slice("array").get_dtype() not in DTYPES or "sha256" not in kept:
                    raise DataError("another file than this")
                if self.measure is not None:
                    float(kept["measured"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            tell_made_again(self.path, error)
            self.make_again()
        else:
            _remember(self.path)

    def make_again(self) -> None:
        """Make the file, whatever is there."""
        made = self.make()
        array = _encode(made)
        contents = digest([f"{array.dtype}{array.shape}", array.tobytes()])
        metadata = {SEAL: BLANK, "study": current_study(), "sha256": contents}
        if self.measure is not None:
            metadata["measured"] = repr(float(self.measure(made)))
        with replacing(self.path) as temporary:
            save_file({"array": array}, temporary, metadata=metadata)
            seal(temporary)


class LazyTensor:
    """A tensor (n, 1, *spatial) whose items are read from files when they are indexed.

    It has the ``shape``, ``ndim``, ``dtype`` and ``len`` of a tensor and is indexed like one; what comes out is a
    tensor in memory.

    Parameters
    ----------
    items : sequence of CachedArray, n
        Each (*spatial).
    spatial : tuple of int
        Shape of each.
    dtype : torch.dtype
        float32, bool or int64: what the items hold.
    """

    def __init__(self, items: Sequence[CachedArray], spatial: Sequence[int], dtype: torch.dtype) -> None:
        self.items = tuple(items)
        self.shape = torch.Size((len(self.items), 1, *spatial))
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"LazyTensor({' x '.join(map(str, self.shape))}, {str(self.dtype).removeprefix('torch.')})"

    def __getitem__(self, index: Any) -> Tensor:
        first, *others = index if isinstance(index, tuple) else (index,)
        chosen = torch.arange(len(self))[first]
        array = torch.empty((chosen.numel(), *self.shape[1:]), dtype=self.dtype)
        for row, position in enumerate(chosen.flatten().tolist()):
            array[row, 0] = torch.from_numpy(self._load(position))
        array = array.reshape(*chosen.shape, *self.shape[1:])
        return array[(slice(None),) * chosen.ndim + tuple(others)] if others else array

    def take(self, positions: Sequence[int]) -> "LazyTensor":
        """Another lazy tensor of some of the items; reads nothing."""
        return LazyTensor([self.items[position] for position in positions], self.shape[2:], self.dtype)

    def digests(self) -> list[str]:
        """Digest of each item's contents, n."""
        return [item.digest() for item in self.items]

    def _load(self, position: int) -> np.ndarray:
        item = self.items[position]
        array = item.load()
        if array.shape != self.shape[2:]:
            item.make_again()
            array = item.load()
        if array.shape != self.shape[2:]:
            raise ShapeError(
                f"item {position}: {array.shape} voxels; expected {tuple(self.shape[2:])}: load the images anew"
            )
        return array


def prepare(items: Sequence[CachedArray], *, n_jobs: int = 1, desc: str = "volumes", progress: bool) -> None:
    """Make the files of all items that lack one, in `n_jobs` processes, with a progress bar."""
    made = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(delayed(item.prepare)() for item in items)
    for _ in tqdm(made, total=len(items), desc=desc, disable=not progress):
        pass


def cached(
    folder: str | Path | None,
    kind: str,
    keys: Sequence[Mapping[str, Any]],
    makers: Sequence[Callable[[], np.ndarray]],
    measure: Callable[[np.ndarray], float] | None = None,
) -> list[CachedArray]:
    """Cached arrays, each with the key that describes it, see :func:`cache_path`."""
    return [
        CachedArray(cache_path(folder, kind, key), make, measure)
        for key, make in zip(keys, makers, strict=True)
    ]


def cache_path(folder: str | Path | None, kind: str, key: Mapping[str, Any]) -> Path:
    """Where the array lies that `key` describes: same description, same file; its name tells nothing of it.

    Parameters
    ----------
    folder : path, optional
        The cache, as for :func:`xaitools.cache.cache_dir`.
    kind : str
        Folder in the cache.
    key : mapping
        All that the array depends on; values that JSON can hold.
    """
    content = json.dumps(key, sort_keys=True)
    return cache_dir(folder) / kind / f"{digest([content])[:32]}.safetensors"


def file_key(path: Path | None) -> list[Any] | None:
    """What tells a file from others and from its later versions: place, size and time of change."""
    if path is None:
        return None
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


_found_whole: set[tuple[Any, ...]] = set()


def _stamp(path: Path) -> tuple[Any, ...]:
    """What changes with a file."""
    status = path.stat()
    return path, status.st_ino, status.st_size, status.st_mtime_ns


def _remember(path: Path) -> None:
    """Take a file for whole until it changes, which is seen from a second after the last change on."""
    if time.time_ns() - path.stat().st_mtime_ns > 10**9:
        _found_whole.add(_stamp(path))


def _encode(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.dtype == bool:
        return array
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64)
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise DataError(f"values from {array.min():.4g} to {array.max():.4g}; expected grey values in [0, 1]")
    return np.rint(array * STEPS).astype(np.uint16)
