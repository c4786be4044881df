"""A malformed input, and what a loader must make of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Parameters
    ----------
    loader : str
        A key of :data:`tests.hostile.small.LOADERS`, whose folder is filled first.
    name : str
        What is malformed.
    damage : callable
        Changes the folder.
    says : str
        A pattern of the error's message; empty where the input is harmless and loads.
    """

    loader: str
    name: str
    damage: Callable[[Path], object]
    says: str = ""

    def __str__(self) -> str:
        return f"{self.loader}-{self.name}"
