"""Masks of single images or of groups, optimised until the network changes its mind."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xaitools.attribution._masking import TERMS, Judge, Optimised, Stopping, optimise
from xaitools.attribution.deletions import Deletion, checked_masks, keys_of
from xaitools.attribution.integrated_gradients import Baseline
from xaitools.attribution.mask_settings import MaskSettings, checked_settings
from xaitools.checks import Target, check_counts, checked_images
from xaitools.errors import MethodError, ParameterError, ShapeError, TargetError
from xaitools.models.network import Network
from xaitools.models.outputs import Output
from xaitools.progress import Progress, Teller

logger = logging.getLogger(__name__)

Groups = str | Tensor | np.ndarray | Sequence[Any] | None

NOTHING, EVERYTHING = 1e-3, 0.9
"""Hidden share up to which a mask stayed 1, and share at 0 from which it collapsed."""
UNSURE = 0.5
"""Probability of the target below which there is little to destroy."""
KEPT = 0.5
"""Share of the score that is left where a mask did not do what it is for."""


@dataclass(frozen=True)
class Masks:
    """Optimised masks and how they came about.

    Attributes
    ----------
    masks
        (setting, group, *spatial): 1 keeps a voxel, 0 hides it.
    history
        One row a setting, group and iteration: objective, score, area_penalty, smoothness_penalty, share_at_0 and
        share_at_1 before that many steps. With jitter, on the shifted images.
    report
        One row a setting and group, of the mask as it is returned, without jitter: n (images), score_before and
        score_after (means over the group), hidden (mean of 1 - m), share_at_0, share_at_1, objective, area_penalty,
        smoothness_penalty, iterations, stopped ("converged", "not yet: ..." or "NaN at iteration ..."), and remark:
        what is to be minded, with its remedy, or "".
    settings
        Those that were asked for, in the order of the masks.
    """

    masks: Tensor
    history: pd.DataFrame
    report: pd.DataFrame
    settings: tuple[MaskSettings, ...]

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.masks.shape[2:]))
        lines = [f"{self.masks.shape[0]} settings x {self.masks.shape[1]} groups, masks of {shape}"]
        for row in self.report.itertuples():
            lines.append(
                f"  setting {row.setting} group {row.group}: score {row.score_before:.3g} to {row.score_after:.3g}, "
                f"hidden {100 * row.hidden:.3g} %, {row.stopped}" + (f"; {row.remark}" if row.remark else "")
            )
        return "\n".join(lines)


def optimise_masks(
    model: Any,
    images: Float[Tensor, "batch channel *spatial"] | np.ndarray | list[Any],
    target: Target = None,
    *,
    groups: Groups = None,
    settings: MaskSettings | Sequence[MaskSettings] = MaskSettings(),  # noqa: B008  # frozen
    deletion: str = "white",
    baselines: Mapping[str, Baseline] | None = None,
    sigma: float | None = None,
    score: str = "probability",
    tolerance: float = 1e-3,
    patience: int | None = 30,
    output: Output = None,
    precision: str = "float32",
    batch_size: int = 16,
    seed: int = 0,
    progress: bool | Progress = True,
) -> Masks:
    """Smallest smooth masks under which the network no longer sees the target class, for images or groups of images.

    Minimised is the mean score of a group's images under one mask, plus two penalties, see `MaskSettings`. All masks
    of all settings and groups are one batch. They start as `MaskSettings.start` says and follow Adam with a constant
    learning rate, clamped to 0 and 1 after each step. The mask that is returned is the best one that was seen (with
    jitter or `area`, the last one), and it is this one that `Masks.report` judges.

    Parameters
    ----------
    model
        Network that returns (batch, classes) or (batch,), or a prepared `xaitools.models.Network`; it is not changed.
    images
        Images or volumes (batch, channel, *spatial).
    target
        The class to be destroyed: one for all images, or one each, the same within a group. None for the single output
        of a regression.
    groups
        None for one mask an image; "all" for one mask of all images; the number of each image's group, (batch,); or
        lists of the places of each group's images. Numbers are taken in ascending order.
    settings
        One, or several different ones.
    deletion, baselines, sigma
        What hidden voxels become, as in `xaitools.attribution.deletions.delete`.
    score
        What becomes small: "probability" (of the target after softmax), "logit" (the output as it is), "log_odds", or
        "share" (the output's height above that of the image deleted as a whole, in units of its fall to there).
    tolerance, patience
        A mask has converged when its best objective fell, over `patience` steps, by less than `tolerance` of its whole
        fall; it is no longer passed then. None for `patience` goes on to the last step, as does `MaskSettings.area`.
    output, precision
        As in `attribute`.
    batch_size
        Masked images in one pass.
    seed
        Of noise (together with each image's content) and jitter.
    progress
        As in `attribute`; counts steps of masks.

    Returns
    -------
    Masks
        Masks with history and report.

    Raises
    ------
    MethodError
        If deletion or score is unknown, or the score asks for classes that the network does not have.
    ParameterError
        If settings are out of range or twice the same, or groups are not what is expected.
    TargetError
        If the network has no such class, or the images of a group have different ones.
    ShapeError, DataError
        If images, starting masks or baselines do not fit together, or are not finite.
    UnsupportedModelError
        If the network is not differentiable.

    References
    ----------
    Fong and Vedaldi 2017, arXiv:1704.03296, equations 3 to 5; Thibeau-Sutre et al. 2020, hal-03365775 (groups); Fong,
    Patrick and Vedaldi 2019, arXiv:1910.08485, equation 5 (area).
    """
    check_counts(error=MethodError, batch_size=batch_size)
    stopping = _checked_stopping(tolerance, patience)
    listed = checked_settings(settings)
    network, points, classes = Network.entered(model, checked_images(images), target, precision, output)
    for one in listed:
        _check_fit(one, points)
    members = checked_groups(groups, points)
    _check_one_class(members, classes)
    judge = Judge(
        network,
        Deletion(points, deletion, baselines, keys_of(points, seed), sigma),
        classes,
        score,
        batch_size,
    )
    jobs = [(s, g) for s in range(len(listed)) for g in range(len(members))]
    stacks: dict[Any, list[tuple[int, int]]] = {}
    for s, g in jobs:
        stacks.setdefault(listed[s].stack, []).append((s, g))
    found: dict[tuple[int, int], tuple[Optimised, int]] = {}
    with Teller(sum(listed[s].steps + 1 for s, _ in jobs), progress, "optimising masks", "step") as tell:
        for stack in stacks.values():
            made = optimise(
                judge, [listed[s] for s, _ in stack], [members[g] for _, g in stack], stopping, tell, seed
            )
            found.update({job: (made, k) for k, job in enumerate(stack)})
    masks = torch.stack([made.masks[k] for made, k in (found[job] for job in jobs)])
    report = _report(judge, masks, jobs, found, listed, members)
    history = pd.concat([_history(*found[job], *job) for job in jobs], ignore_index=True)
    shape = (len(listed), len(members), *points.shape[2:])
    return Masks(masks.view(shape).to(_device(images)), history, report, tuple(listed))


def checked_groups(groups: Groups, images: Tensor) -> list[Tensor]:
    """Places of each group's images.

    Raises
    ------
    ParameterError, ShapeError
        If they are none of what `optimise_masks` takes, or a group is empty.
    """
    n, device = len(images), images.device
    if groups is None:
        return list(torch.arange(n, device=device).split(1))
    if isinstance(groups, str):
        if groups != "all":
            raise ParameterError(
                f"groups={groups!r}; expected None (one mask an image), 'all', or numbers or lists."
            )
        return [torch.arange(n, device=device)]
    if isinstance(groups, Tensor | np.ndarray) or not any(hasattr(one, "__len__") for one in groups):
        numbers = torch.as_tensor(groups)
        if tuple(numbers.shape) != (n,) or numbers.is_floating_point():
            raise ShapeError(
                f"groups of shape {tuple(numbers.shape)} and type {numbers.dtype} for {n} images; expected a whole "
                "number for each image, or a list of places for each group."
            )
        return [(numbers == number).nonzero()[:, 0].to(device) for number in numbers.unique()]
    return [_checked_places(one, n).to(device) for one in groups]


def _checked_places(places: Any, n: int) -> Tensor:
    found = torch.as_tensor(places)
    if found.ndim != 1 or not len(found) or found.is_floating_point() or found.dtype == torch.bool:
        raise ParameterError(f"groups: {places!r}; expected the places of one or more images, whole numbers.")
    if int(found.min()) < 0 or int(found.max()) >= n or len(found.unique()) < len(found):
        raise ParameterError(
            f"groups: {places!r} for {n} images; expected different places from 0 to {n - 1}."
        )
    return found.long()


def _check_one_class(members: Sequence[Tensor], classes: Tensor | None) -> None:
    for number, own in enumerate(members):
        found = [] if classes is None else sorted(set(classes[own].tolist()))
        if len(found) > 1:
            raise TargetError(
                f"group {number} holds images of the targets {', '.join(map(str, found))}; expected one, as a mask can "
                "destroy one class only: make a group of each."
            )


def _checked_stopping(tolerance: float, patience: int | None) -> Stopping:
    if not 0 <= tolerance < 1:
        raise ParameterError(f"tolerance={tolerance!r}; expected a number from 0 to below 1.")
    if patience is not None:
        check_counts(patience=patience)
    return Stopping(tolerance, patience)


def _check_fit(settings: MaskSettings, images: Tensor) -> None:
    """Raise unless a setting suits the size of the images."""
    if isinstance(settings.start, Tensor):
        checked_masks(settings.start, images[:1], name="start")
        if settings.start.ndim != images.ndim - 2:
            raise ShapeError(
                f"start of shape {tuple(settings.start.shape)}; expected {tuple(images.shape[2:])}."
            )
    if settings.jitter >= min(images.shape[2:]):
        raise ParameterError(
            f"jitter={settings.jitter} for images of {tuple(images.shape[2:])} voxels; expected less than their "
            "shortest axis."
        )


def _device(images: Any) -> torch.device:
    return images.device if isinstance(images, Tensor) else torch.device("cpu")


def _history(made: Optimised, k: int, setting: int, group: int) -> pd.DataFrame:
    rows = made.history[: made.iterations[k] + 1, k]
    table = pd.DataFrame(rows.numpy(), columns=list(TERMS))
    table.insert(0, "iteration", range(len(table)))
    table.insert(0, "group", group)
    table.insert(0, "setting", setting)
    return table


def _report(
    judge: Judge,
    masks: Tensor,
    jobs: Sequence[tuple[int, int]],
    found: Mapping[tuple[int, int], tuple[Optimised, int]],
    settings: Sequence[MaskSettings],
    members: Sequence[Tensor],
) -> pd.DataFrame:
    """One row a mask, judged anew as it is returned."""
    before = judge.means(masks.new_ones(len(members), *masks.shape[1:]), members).tolist()
    rows = []
    for (s, g), mask in zip(jobs, masks, strict=True):
        made, k = found[s, g]
        known = dict(zip(TERMS, made.terms[k].tolist(), strict=True))
        row = {
            "setting": s,
            "group": g,
            "n": len(members[g]),
            "score_before": before[g],
            "score_after": known.pop("score"),
            "hidden": float((1 - mask).double().mean()),
            **known,
            "iterations": made.iterations[k],
            "stopped": made.stopped[k],
        }
        row["remark"] = "; ".join(_remarks(row, settings[s], judge.score))
        rows.append(row)
    if minded := [row for row in rows if row["remark"]]:
        logger.warning(
            "%d of %d masks have remarks in their report, the first one (setting %d, group %d): %s.",
            *(len(minded), len(rows)),
            *(minded[0][key] for key in ("setting", "group", "remark")),
        )
    return pd.DataFrame(rows)


def _remarks(row: Mapping[str, Any], settings: MaskSettings, score: str) -> list[str]:
    """What is to be minded of a mask, each with its remedy."""
    remarks = []
    unsure = {"probability": UNSURE, "log_odds": 0.0}.get(score)
    if unsure is not None and row["score_before"] < unsure:
        remarks.append(
            f"the network does not see the target to begin with ({score} {row['score_before']:.2g}), so there is "
            "little to destroy: leave out images that it does not take for the target"
        )
    if settings.area is None and settings.l1 == 0:
        remarks.append("l1 = 0, so nothing keeps the mask small: give it a weight")
    if row["stopped"].startswith("NaN"):
        remarks.append(
            "the objective or its gradient is not finite: look for overflow on masked images, or lower learning_rate"
        )
    elif row["stopped"].startswith("not yet") and settings.area is None:
        remarks.append("the mask still moved: raise steps")
    if row["hidden"] < NOTHING:
        remarks.append(
            f"the mask stayed 1: lower l1 ({settings.l1:g}) or l2 ({settings.l2:g}), or start='zeros'"
        )
    elif row["share_at_0"] > EVERYTHING:
        remarks.append(f"the mask collapsed to 0: raise l1 ({settings.l1:g})")
    elif settings.area is not None and abs(row["hidden"] - settings.area) > 0.1 * settings.area:
        remarks.append(f"it hides {row['hidden']:.2g} and not {settings.area:g}: raise steps")
    elif score == "probability" and row["score_after"] > KEPT * row["score_before"]:
        remarks.append(
            f"the network still sees the target (probability {row['score_after']:.2g}): lower l1 ({settings.l1:g})"
        )
    return remarks
