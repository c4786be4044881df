"""What the training, validation and test set hold."""

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from xaitools.data import Samples, Volumes


def sets_table(
    sets: Mapping[str, Samples | Volumes],
    *,
    images: str = "images",
    subjects: str = "subjects",
    quantity: str = "labels",
    ranges: Sequence[str] = (),
) -> pd.DataFrame:
    """Table of the sets of a study, one row a set.

    Parameters
    ----------
    sets
        Samples by name of the set.
    images, subjects
        What the images and the subjects of this study are called.
    quantity
        What the labels of a regression measure.
    ranges
        More numbers of the samples whose smallest and largest value is shown.

    Returns
    -------
    DataFrame
        Numbers of images and subjects; of each class, or the range of the labels of a regression.
    """
    rows: dict[str, dict[str, int | str]] = {}
    for name, part in sets.items():
        rows[name] = {images: len(part), subjects: len(set(part.subjects))}
        if part.class_names:
            rows[name] |= {label: int((part.labels == i).sum()) for i, label in enumerate(part.class_names)}
        else:
            rows[name][f"{quantity} ({part.unit})"] = _range(part.labels)
        rows[name] |= {number: _range(part.numbers[number]) for number in ranges}
    return pd.DataFrame.from_dict(rows, orient="index")


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.0f} to {float(values.max()):.0f}"
