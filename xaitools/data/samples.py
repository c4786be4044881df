"""Labelled images with their subjects: what every loader returns."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from xaitools.errors import DataError, ShapeError

STUDY_ID = re.compile(r"sub-[A-Za-z0-9]+")


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Images, labels and study ids, aligned by position.

    Checked on construction. Indexing with a slice, a list, an integer array or a boolean array gives the
    chosen samples as another ``Samples``.

    Parameters
    ----------
    images : Tensor, float32, (n, channel, *spatial)
        Two or three spatial axes, values in [0, 1].
    labels : Tensor, int64, (n,)
        Index into `class_names`.
    subjects : tuple of str, n
        Study ids such as ``"sub-003"``, never an identifier of the patient. One patient has one id.
    names : tuple of str, n
        Unique sample ids: the subject, or ``"sub-003_img-2"`` where a subject has several samples.
    class_names : tuple of str
        What each label stands for.
    masks : Tensor, bool, (n, 1, *spatial), optional
        What an expert expects to be highlighted. A sample without a mask has no true element.
    sources : tuple of Path, n or empty
        The files, for the user's eyes only: never written to an output.
    info : dict
        JSON-able description of how the samples were made, without identities.

    Raises
    ------
    ShapeError
        The lengths, or the shapes of images and masks, do not fit together.
    DataError
        No samples, a value outside [0, 1] or not finite, a label without a class, a repeated name, or a
        subject that is not a study id.
    """

    images: Float32[Tensor, "n channel *spatial"]
    labels: Int64[Tensor, "..."]
    subjects: tuple[str, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    masks: Bool[Tensor, "..."] | None = None
    sources: tuple[Path, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_names(self)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray | Tensor) -> "Samples":
        position = index if isinstance(index, slice) else np.asarray(index, dtype=None if len(index) else int)
        chosen = torch.from_numpy(np.arange(len(self))[position].copy())
        return Samples(
            images=self.images[chosen],
            labels=self.labels[chosen],
            subjects=_take(self.subjects, chosen),
            names=_take(self.names, chosen),
            class_names=self.class_names,
            masks=None if self.masks is None else self.masks[chosen],
            sources=_take(self.sources, chosen) if self.sources else (),
            info=self.info,
        )

    def __repr__(self) -> str:
        shape = " x ".join(str(length) for length in self.images.shape[1:])
        counts = torch.bincount(self.labels, minlength=len(self.class_names)).tolist()
        classes = ", ".join(f"{count} {name!r}" for count, name in zip(counts, self.class_names, strict=True))
        masked = f"{int(self.has_mask.sum())} masks"
        return f"Samples({len(self)} images {shape}, {len(set(self.subjects))} subjects, {classes}, {masked})"

    @property
    def has_mask(self) -> Bool[Tensor, " n"]:
        """Which samples have a mask with at least one true element, (n,)."""
        if self.masks is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.masks.flatten(1).any(dim=1)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the contents (images, labels, masks): same contents, same digest."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels, self.masks):
            if tensor is not None:
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def study_names(patients: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Replace patients by study ids, in sorted order, and name each of their samples.

    Parameters
    ----------
    patients : sequence of str, n
        Any key that tells patients apart; kept in memory only.

    Returns
    -------
    subjects, names : tuples of str, n
        ``sub-001`` for the first patient in sorted order; a patient with several samples gets the names
        ``sub-001_img-1``, ``sub-001_img-2`` in order of appearance.
    """
    unique = sorted(set(patients))
    width = max(3, len(str(len(unique))))
    ids = {patient: f"sub-{number:0{width}d}" for number, patient in enumerate(unique, start=1)}
    subjects = tuple(ids[patient] for patient in patients)
    total, seen = Counter(subjects), Counter[str]()
    names = []
    for subject in subjects:
        seen[subject] += 1
        names.append(f"{subject}_img-{seen[subject]}" if total[subject] > 1 else subject)
    return subjects, tuple(names)


def _take(values: tuple, chosen: Tensor) -> tuple:
    return tuple(values[position] for position in chosen.tolist())


def _check_shapes(samples: Samples) -> None:
    images, masks, n = samples.images, samples.masks, len(samples.images)
    if images.ndim not in (4, 5):
        raise ShapeError(
            f"images of shape {tuple(images.shape)}: expected (n, channel, *spatial) with two or three "
            "spatial axes; add the missing axes with unsqueeze"
        )
    if masks is not None and masks.shape != (n, 1, *images.shape[2:]):
        raise ShapeError(
            f"masks of shape {tuple(masks.shape)}: images of shape {tuple(images.shape)} need masks of shape "
            f"{(n, 1, *images.shape[2:])}; resample the masks to the images first"
        )
    for what in ("labels", "subjects", "names", "sources"):
        length = len(getattr(samples, what))
        if length != n and not (what == "sources" and length == 0):
            raise ShapeError(f"{length} {what} for {n} images: give one for each image")


def _check_names(samples: Samples) -> None:
    for position, (subject, name) in enumerate(zip(samples.subjects, samples.names, strict=True)):
        if not STUDY_ID.fullmatch(subject) or not (name == subject or name.startswith(f"{subject}_")):
            raise DataError(
                f"sample {position}: its subject or name is not a study id; expected a subject like 'sub-003' "
                "and a name like 'sub-003' or 'sub-003_img-2' (study_names makes both)"
            )
    name, count = Counter(samples.names).most_common(1)[0] if samples.names else ("", 0)
    if count > 1:
        raise DataError(f"sample name {name!r} appears {count} times: give each sample its own name")


def _check_values(samples: Samples) -> None:
    if len(samples) == 0:
        raise DataError("no samples: expected at least one image; check what was selected")
    flat = samples.images.flatten(1)
    bad = ~(torch.isfinite(flat).all(dim=1) & (flat.amin(dim=1) >= 0) & (flat.amax(dim=1) <= 1))
    if bad.any():
        position = int(bad.nonzero()[0])
        values = f"{float(flat[position].min()):.4g} to {float(flat[position].max()):.4g}"
        raise DataError(
            f"image {samples.names[position]} has values from {values}: expected finite values in [0, 1]; "
            "apply an intensity window first"
        )
    for name, label in zip(samples.names, samples.labels.tolist(), strict=True):
        if not 0 <= label < len(samples.class_names):
            raise DataError(
                f"sample {name} has label {label}: expected 0 to {len(samples.class_names) - 1}, "
                f"an index into the class names {samples.class_names}"
            )
