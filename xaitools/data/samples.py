"""Images, what a network shall say of them, and their subjects: what every loader of slices returns."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.files import digest

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
    labels : Tensor, (n,), or None
        None for images of which nothing is known. For a classification int64, an index into `class_names`; for a
        regression float32, the measured quantity in `unit`, and no class names.
    subjects : tuple of str, n
        Study ids such as ``"sub-003"``, never an identifier of the patient. One patient has one id.
    names : tuple of str, n
        Unique sample ids: the subject, or ``"sub-003_img-2"`` where a subject has several samples.
    class_names : tuple of str
        What each label stands for; empty for a regression.
    masks : Tensor, bool, (n, 1, *spatial), optional
        What an expert expects to be highlighted. A sample without a mask has no true element.
    sources : tuple of Path, n or empty
        The files, for the user's eyes only: never written to an output.
    unit : str
        Unit of the labels of a regression, such as ``"px"``.
    numbers : mapping from str to Tensor, float, (n,)
        Whatever else is known of each sample, by name: ``{"pixel size (mm)": ...}``.
    info : dict
        JSON-able description of how the samples were made, without identities.

    Raises
    ------
    ShapeError
        The lengths, or the shapes of images and masks, do not fit together.
    DataError
        No samples, a value outside [0, 1] or not finite, a label without a class or not finite, a repeated
        name, or a subject that is not a study id.
    """

    images: Float32[Tensor, "n channel *spatial"]
    labels: Shaped[Tensor, "..."] | None
    subjects: tuple[str, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    masks: Bool[Tensor, "..."] | None = None
    sources: tuple[Path, ...] = ()
    unit: str = ""
    numbers: Mapping[str, Shaped[Tensor, "..."]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_shapes(self)
        check_names(self)
        _check_values(self)
        check_labels(self)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray | Tensor) -> "Samples":
        chosen = self._positions(index)
        return replace(
            self,
            images=self.images[chosen],
            masks=None if self.masks is None else self.masks[chosen],
            **self._aligned(chosen),
        )

    def _positions(self, index: slice | Sequence[int] | np.ndarray | Tensor) -> Int64[Tensor, " chosen"]:
        """The positions that an index chooses."""
        position = index if isinstance(index, slice) else np.asarray(index, dtype=None if len(index) else int)
        return torch.from_numpy(np.arange(len(self))[position].copy())

    def _aligned(self, chosen: Int64[Tensor, " chosen"]) -> dict[str, Any]:
        """All that is known of the chosen samples, images and masks aside."""
        aligned = {
            name: tuple(values[position] for position in chosen.tolist())
            for name in ("subjects", "names", "sources")
            if (values := getattr(self, name))
        }
        numbers = {name: values[chosen] for name, values in self.numbers.items()}
        labels = None if self.labels is None else self.labels[chosen]
        return {"labels": labels, "numbers": numbers, **aligned}

    def __repr__(self) -> str:
        shape = " x ".join(str(length) for length in self.images.shape[1:])
        masked = f"{int(self.has_mask.sum())} masks"
        subjects = f"{len(set(self.subjects))} subjects"
        return f"Samples({len(self)} images {shape}, {subjects}, {self._label_words()}, {masked})"

    def _label_words(self) -> str:
        if self.labels is None:
            return "no labels"
        if self.is_regression:
            return f"{self.labels.min():.4g} to {self.labels.max():.4g} {self.unit}".strip()
        counts = torch.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return ", ".join(f"{count} {name!r}" for count, name in zip(counts, self.class_names, strict=True))

    @property
    def is_regression(self) -> bool:
        """Whether the labels are a measured quantity rather than classes."""
        return self.labels is not None and self.labels.is_floating_point()

    @property
    def has_mask(self) -> Bool[Tensor, " n"]:
        """Which samples have a mask with at least one true element, (n,)."""
        if self.masks is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.masks.flatten(1).any(dim=1)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the contents (images, labels, masks, numbers): same contents, same digest."""
        tensors = [self.images, self.labels, self.masks, *self.numbers.values()]
        return digest(part for tensor in tensors if tensor is not None for part in contents(tensor))


def contents(tensor: Tensor) -> tuple[str, bytes]:
    """Type, shape and values of a tensor, for its digest."""
    return f"{tensor.dtype}{tuple(tensor.shape)}", tensor.contiguous().numpy().tobytes()


def two_classes(samples: Samples) -> tuple[str, str]:
    """Names of the negative and the positive class, which is the last, of a study that tells two apart.

    Raises
    ------
    ParameterError
        A regression, or another number of classes; the message says what the labels are and how to pick two.
    """
    check_labelled(samples)
    if not samples.is_regression and len(samples.class_names) == 2:
        negative, positive = samples.class_names
        return negative, positive
    column = f"label_column={samples.info['label_column']!r}: " if "label_column" in samples.info else ""
    if samples.is_regression:
        found = f"a quantity, {samples._label_words()}"
        example = '{"young": "< 40", "old": ">= 60"}'
    else:
        found = f"{len(samples.class_names)} classes, {', '.join(map(repr, samples.class_names))}"
        example = '{"control": "CN", "patient": ["AD", "MCI"]}'
    raise ParameterError(
        f"{column}{found}; expected two classes. classes picks two, for example {example}; the last is the positive one"
    )


def check_labelled(samples: Any) -> None:
    """Raise DataError if samples have no labels, as those of `load_volumes` and `load_pictures` have none."""
    if samples.labels is None:
        raise DataError(
            f"{len(samples)} images without labels; expected one for each. Load them with a table of labels, or only "
            "predict and explain"
        )


def check_shapes(samples: Samples) -> None:
    """Raise unless the shapes of images and masks and all lengths fit together."""
    images, masks, n = samples.images, samples.masks, len(samples.images)
    if images.ndim not in (4, 5):
        raise ShapeError(
            f"images of shape {tuple(images.shape)}; expected (n, channel, *spatial) with two or three "
            "spatial axes; add the missing axes with unsqueeze"
        )
    if masks is not None and masks.shape != (n, 1, *images.shape[2:]):
        raise ShapeError(
            f"masks of shape {tuple(masks.shape)}: images of shape {tuple(images.shape)} need masks of shape "
            f"{(n, 1, *images.shape[2:])}; resample the masks to the images first"
        )
    for what in ("labels", "subjects", "names", "sources"):
        values = getattr(samples, what)
        length = n if values is None else len(values)
        if length != n and not (what == "sources" and length == 0):
            raise ShapeError(f"{length} {what} for {n} images: give one for each image")
    for name, values in samples.numbers.items():
        if tuple(values.shape) != (n,):
            raise ShapeError(
                f"numbers {name!r} of shape {tuple(values.shape)} for {n} images: give one for each image"
            )


def check_names(samples: Samples) -> None:
    """Raise unless subjects are study ids and every sample has a name of its own."""
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
        raise DataError("no samples; expected at least one image; check what was selected")
    flat = samples.images.flatten(1)
    bad = ~(torch.isfinite(flat).all(dim=1) & (flat.amin(dim=1) >= 0) & (flat.amax(dim=1) <= 1))
    if bad.any():
        position = int(bad.nonzero()[0])
        values = f"{float(flat[position].min()):.4g} to {float(flat[position].max()):.4g}"
        raise DataError(
            f"image {samples.names[position]} has values from {values}; expected finite values in [0, 1]; "
            "apply an intensity window first"
        )


def check_labels(samples: Samples) -> None:
    """Raise unless every label is a finite quantity, or the index of a class name, or there is none at all."""
    if samples.labels is None:
        return
    if samples.is_regression:
        _check_quantities(samples, samples.labels)
    else:
        _check_classes(samples, samples.labels)


def _check_quantities(samples: Samples, labels: Tensor) -> None:
    if samples.class_names:
        raise DataError(
            f"labels of type {labels.dtype} with the class names {samples.class_names}; expected integer "
            "labels for a classification, or no class names for a regression"
        )
    for name, label in zip(samples.names, labels.tolist(), strict=True):
        if not math.isfinite(label):
            raise DataError(f"sample {name} has the label {label}; expected a finite number; leave it out")


def _check_classes(samples: Samples, labels: Tensor) -> None:
    for name, label in zip(samples.names, labels.tolist(), strict=True):
        if not 0 <= label < len(samples.class_names):
            raise DataError(
                f"sample {name} has label {label}; expected 0 to {len(samples.class_names) - 1}, "
                f"an index into the class names {samples.class_names}"
            )
