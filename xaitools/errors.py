"""Every exception that xaitools raises on purpose.

Each message says what came, what was expected, and what to do about it.
"""

from pathlib import Path


class XaitoolsError(Exception):
    """Base class: catch this to catch everything below.

    `file` is the one that the message is about where it calls it by a study id or a number, as its name may be a
    person's: it is for whoever has the data, and no message shows it.
    """

    file: Path | None = None


class DataError(XaitoolsError, ValueError):
    """The content of a data set is not usable: a missing column, one class only, NaN."""


class DataFileError(XaitoolsError, OSError):
    """A file or folder is missing, truncated or in a form that cannot be read."""


class StorageError(XaitoolsError, OSError):
    """A folder that cannot be written to, or a disk that is full."""


class ShapeError(XaitoolsError, ValueError):
    """Arrays whose shapes or grids do not fit together."""


class TargetError(XaitoolsError, ValueError):
    """A target that the model's output does not have."""


class MethodError(XaitoolsError, ValueError):
    """An unknown or malformed method name, or an option that the method does not take."""


class UnsupportedModelError(XaitoolsError, ValueError):
    """A model on which a method would be wrong, so it refuses."""


class WeightsError(XaitoolsError, OSError):
    """A weights file that is missing, damaged or made for another network."""


class DeviceError(XaitoolsError, ValueError):
    """A device that this machine does not have."""


class ParameterError(XaitoolsError, ValueError):
    """A parameter or study name that does not exist, or a value out of its range."""


class DivergedError(ParameterError):
    """A training whose loss was never finite, so that it left no weights."""


class ClusterError(XaitoolsError, OSError):
    """A scheduler or its workers that do not answer, or no longer."""
