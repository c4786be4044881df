"""What comes of every method on a network of the zoo, judged against its reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tests.matrix.case import GRADIENTS, OCCLUSION, RECTIFIERS, RULES
from tests.matrix.references import CELL, DRAWS, NOISE, STEPS, Reference, dim, segments_of
from tests.matrix.references import METHODS as REFERENCES
from tests.matrix.relevance import NoReference
from tests.matrix.zoo import ZOO, Case
from xaitools.attribution import METHODS, attribute
from xaitools.errors import XaitoolsError

RIGHT, APPROXIMATE, REFUSED, WRONG = "right", "approximate", "refused", "wrong"
TOLERANCE = 1e-3
"""Of a map in float32, as a fraction of the reference's largest value."""
ROUNDING = 1e-5
"""Of a difference of two outputs in float32, as a fraction of the output."""

SENSITIVITY = 0.05
"""Most that may be added where rounding image and weights to float32 moves the reference: at the kink of a ReLU."""

KIND_OF = {
    "occlusion": OCCLUSION,
    "captum.Occlusion": OCCLUSION,
    "deconvolution": RECTIFIERS,
    "guided_backprop": RECTIFIERS,
    "captum.GuidedBackprop": "captum",
    "captum.Deconvolution": "captum",
    "captum.DeepLift": "captum",
    "deep_taylor": RULES,
    "attention_rollout": "rollout",
    **dict.fromkeys(("grad_cam", "grad_cam_plus_plus", "layer_cam", "guided_grad_cam"), "cam"),
}


def columns() -> list[str]:
    """Every registered method, by the names that have references, else by its own."""
    names = [name for name in REFERENCES if name != "attention_rollout" or name in METHODS]
    known = {name.partition("[")[0].partition("+")[0].partition("@")[0] for name in names}
    return [*names, *(name for name in METHODS if name not in known)]


def kind_of(name: str) -> str:
    """The kind of method as a case's expectations know it."""
    return RULES if name.startswith("lrp[") else KIND_OF.get(name, GRADIENTS)


@dataclass(frozen=True)
class Cell:
    """What came of a method on a network.

    Attributes
    ----------
    status
        One of the four above.
    words
        Why it was refused, or what is wrong.
    error
        Largest difference from the reference, as a fraction of the reference's largest value.
    """

    status: str
    words: str = ""
    error: float = 0.0


@lru_cache(None)
def row(name: str) -> Mapping[str, Cell]:
    """The cells of a network by method."""
    case = ZOO[name]
    model, plain, images = case.make()
    maps, errors = _maps(case, model, images)
    given = images.double() if case.name == "float64" else images
    reference = Reference(plain, given, case.targets, case.pick, _patch(case), _bounds(case))
    cells: dict[str, Cell] = {}
    for method in columns():
        if method in errors:
            cells[method] = _refused(case, method, errors[method])
        else:
            cells[method] = judged(case, method, maps[method], reference)
    if not case.note and any(cell.status in (RIGHT, APPROXIMATE) for cell in cells.values()):
        reference.check_gradient()
    return cells


def _bounds(case: Case) -> tuple[float, float]:
    given = case.call.get("options", {}).get("deep_taylor", {"low": 0, "high": 1})
    return given["low"], given["high"]


def _patch(case: Case) -> int:
    return min(case.shape[-1] // (4 if len(case.shape) == 3 else 2), *case.shape[1:])


def _maps(case: Case, model: Any, images: Tensor) -> tuple[Mapping[str, Tensor], Mapping[str, Exception]]:
    box = (case.shape[0], *[_patch(case)] * len(case.shape[1:]))
    given = dict(case.call)
    options = {
        "captum.Saliency": {"abs": True},
        "captum.DeepLift": {"baselines": dim(images)[None]},
        "meaningful_perturbation": {
            **{"iterations": STEPS, "coarse": CELL},
            **{"l1": 0, "l2": 0, "start": "ones"},
        },
        "extremal_perturbation": {"iterations": STEPS, "coarse": CELL, "deletion": "dim"},
        "captum.Occlusion": {"sliding_window_shapes": box, "strides": box},
        **given.pop("options", {}),
    }
    names = {
        method: method if method != "occlusion" else f"occlusion[{_patch(case)}]" for method in columns()
    }
    try:
        maps = attribute(
            model,
            images.clone(),
            case.target,
            list(names.values()),
            steps=STEPS,
            draws=DRAWS,
            noise_level=NOISE,
            references=images,
            baselines={"dim": dim(images)},
            segments=[segments_of(image) for image in images],
            options=options,
            on_error="keep",
            progress=False,
            **given,
        )
    except Exception as error:
        return {}, dict.fromkeys(names, error)
    found = {method: maps[name] for method, name in names.items() if name in maps}
    return found, {method: maps.errors[name] for method, name in names.items() if name in maps.errors}


def _refused(case: Case, method: str, error: Exception) -> Cell:
    words = str(error).partition("\n")[0]
    if not isinstance(error, XaitoolsError):
        return Cell(WRONG, f"raw {type(error).__name__}: {words}")
    if kind_of(method) in case.works:
        return Cell(WRONG, f"refused what should work: {words}")
    return Cell(REFUSED, words)


def judged(case: Case, method: str, found: Tensor, reference: Reference) -> Cell:
    if kind_of(method) in case.forbidden:
        return Cell(WRONG, "accepted where it is not defined")
    if found.shape != reference.images.shape or not torch.isfinite(found).all():
        return Cell(WRONG, f"a map of shape {tuple(found.shape)}, or not finite")
    if found.requires_grad:
        return Cell(WRONG, "the map requires a gradient")
    if method not in reference:
        return Cell(WRONG, "there is no reference for this method")
    try:
        expected = reference[method]
    except NoReference as error:
        return Cell(WRONG, f"no reference: {error}")
    scale = float(expected.abs().max())
    difference = found.double() - expected
    if case.bound is not None:
        error = float(difference.norm() / expected.norm())
        return Cell(
            APPROXIMATE if error <= case.bound else WRONG, f"error {error:.2g} over {case.bound:g}", error
        )
    error = float(difference.abs().max()) / scale if scale else float(found.abs().max() > 0)
    allowed = _allowed(method, reference, scale)
    if error > allowed:
        allowed += min(reference.sensitivity(method), SENSITIVITY)
    if error > allowed:
        return Cell(WRONG, f"error {error:.2g} over {allowed:.2g}", error)
    return Cell(APPROXIMATE if case.note and kind_of(method) != OCCLUSION else RIGHT, "", error)


def _allowed(method: str, reference: Reference, scale: float) -> float:
    if kind_of(method) != OCCLUSION or not scale:
        return TOLERANCE
    with torch.no_grad():
        outputs = [reference.scores(image[None], i).abs().max() for i, image in enumerate(reference.images)]
    return TOLERANCE + ROUNDING * float(torch.stack(outputs).max()) / scale
