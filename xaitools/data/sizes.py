"""How much memory a file may ask for: a header is not believed before its file could hold what it says."""

import math
from collections.abc import Sequence
from pathlib import Path

from xaitools.errors import DataFileError

# A CT of the whole body has 512 x 512 x 2000, a microscope's brain up to 1024 x 1024 x 1024.
MOST_VOXELS = 2**30
# A mammogram has 4700 x 5900.
MOST_PIXELS = 2**25
# Deflate, of which gzip, zlib and PNG are made, packs 1032 bytes in one at most: https://zlib.net/zlib_tech.html
DEFLATED = 1032


def check_size(
    path: Path,
    shape: Sequence[int],
    itemsize: int = 1,
    stored: int | None = None,
    *,
    packed: bool = False,
    most: int = MOST_VOXELS,
) -> int:
    """How many bytes an image of that shape takes, if its file can hold them.

    Parameters
    ----------
    path : Path
        Names the file in messages.
    shape : sequence of int
    itemsize : int
        Bytes of a value.
    stored : int, optional
        Bytes of the file; without them, it is not asked whether they suffice.
    packed : bool
        Whether they are deflated.
    most : int
        Values that an image may have.

    Raises
    ------
    DataFileError
        It cannot, a length is below 1, or there are more than `most` values.
    """
    lengths = [int(length) for length in shape]
    words = " x ".join(map(str, lengths))
    count = math.prod(lengths)
    if min(lengths, default=0) < 1:
        raise DataFileError(f"{path}: {words} values by its header; expected 1 or more each way. Correct it")
    if count > most:
        raise DataFileError(
            f"{path}: more than {most} {'pixels' if len(lengths) == 2 else 'voxels'}, {words} by its header; give a "
            "smaller image"
        )
    if stored is not None and count * itemsize > stored * (DEFLATED if packed else 1):
        raise DataFileError(
            f"{path}: {words} values by its header, which {stored} bytes cannot hold; it, or the .raw file "
            "that it names, is truncated: fetch it again"
        )
    return count * itemsize
