"""Masks of groups on disk: what was optimised once is read again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from xaitools.attribution import MaskSettings, optimise_masks
from xaitools.data import Volumes
from xaitools.errors import ParameterError
from xaitools.maps import load_map, map_path, save_map
from xaitools.seals import read_json, tell_made_again, write_json
from xaitools.study.contexts import Contexts
from xaitools.study.network import Trained

Mask = Float32[np.ndarray, "x y z"]


@dataclass(frozen=True)
class GroupMasks:
    """Optimised masks by name, with what is known of each.

    Attributes
    ----------
    masks
        From 0 (hidden) to 1 (kept).
    report
        One row a mask, indexed by its name, with the columns of `xaitools.attribution.Masks.report`.
    history
        One row a mask and iteration: ``mask``, its name, and the columns of `xaitools.attribution.Masks.history`.
    """

    masks: dict[Any, Mask]
    report: pd.DataFrame
    history: pd.DataFrame

    @property
    def hidden(self) -> dict[Any, Mask]:
        """How much of each voxel is hidden: 1 - m."""
        return {name: 1 - mask for name, mask in self.masks.items()}


def mask_grid(l1: Sequence[float], l2: Sequence[float], **same: Any) -> dict[str, MaskSettings]:
    """Settings of all pairs of weights by name, ``"l1=0.1, l2=0.01"``; `same` is what they have in common.

    Raises
    ------
    ParameterError
        If there is no weight, or one stands twice, so that the same mask would be made twice.
    """
    for name, weights in (("l1", l1), ("l2", l2)):
        if len(set(weights)) != len(weights) or not len(weights):
            raise ParameterError(
                f"{name} {list(weights)}; expected one weight or more, each once: take out the others."
            )
    return {f"l1={one:g}, l2={two:g}": MaskSettings(l1=one, l2=two, **same) for two in l2 for one in l1}


def group_masks(
    net: Trained,
    patients: Volumes,
    settings: Mapping[str, MaskSettings],
    folder: Path,
    *,
    name: str,
    target: int = 1,
    deletion: str = "white",
    progress: bool = True,
    **options: Any,
) -> GroupMasks:
    """One mask of a group for each setting, from `folder` where an earlier run left it.

    All settings that are missing are optimised as one batch. Masks are written with the affine, and with a sidecar that
    holds what they depend on: weights, images, and every setting, the reduction of the penalties among them.

    Parameters
    ----------
    net
        The network.
    patients
        The group, all of one class.
    settings
        By name.
    folder
        Where masks lie.
    name
        What files of this network's masks begin with.
    target
        The class to be destroyed.
    deletion, **options
        Of `xaitools.attribution.optimise_masks`, plain values.
    progress
        Show a bar.
    """
    shared = {
        "weights": net.fingerprint,
        "images": patients.fingerprint(),
        "target": target,
        "deletion": deletion,
        "holds": "m: 0 hides a voxel, 1 keeps it",
        **options,
    }
    keys = {own: {**shared, "settings": setting.plain()} for own, setting in settings.items()}
    found = {own: _read(folder, name, own, key) for own, key in keys.items()}
    missing = [own for own, read in found.items() if read is None]
    if missing:
        made = optimise_masks(
            net.model, patients.images[:], target, groups="all", settings=[settings[own] for own in missing],
            deletion=deletion, progress=progress, **options,
        )  # fmt: skip
        for i, own in enumerate(missing):
            report = made.report[made.report["setting"] == i].iloc[0].to_dict()
            history = made.history[made.history["setting"] == i].drop(columns=["setting", "group"])
            read = (made.masks[i, 0].cpu().numpy().astype(np.float32), report, history)
            found[own] = read
            _write(folder, name, own, keys[own], read, patients.affine)
    return _together({own: read for own, read in found.items() if read is not None})


def masks_of_contexts(
    nets: Contexts,
    patients: Volumes,
    setting: MaskSettings,
    folder: Path,
    *,
    prefix: str = "",
    **options: Any,
) -> GroupMasks:
    """One mask of the group for each context, by context; see :func:`group_masks`."""
    label = setting_name(setting)
    each = {
        own: group_masks(net, patients, {label: setting}, folder, name=f"{prefix}{own.file}", **options)
        for own, net in nets.items()
    }
    return GroupMasks(
        {own: one.masks[label] for own, one in each.items()},
        pd.concat([one.report.assign(mask=str(own)).set_index("mask") for own, one in each.items()]),
        pd.concat([one.history.assign(mask=str(own)) for own, one in each.items()], ignore_index=True),
    )


def setting_name(setting: MaskSettings) -> str:
    """Name of a setting in a grid: its weights."""
    return f"l1={setting.l1:g}, l2={setting.l2:g}"


def forming(setting: MaskSettings, steps: Sequence[int]) -> dict[str, MaskSettings]:
    """A setting stopped after fewer steps, by name: what its mask looks like on the way."""
    return {f"after {n} steps": replace(setting, steps=n) for n in (*steps, setting.steps)}


Read = tuple[Mask, dict[str, Any], pd.DataFrame]


def _course(folder: Path, name: str, own: str) -> Path:
    path = map_path(folder, name, f"mask {own}", volume=True)
    return path.with_name(path.name.replace("_map.nii.gz", "_course.json"))


def _read(folder: Path, name: str, own: str, key: Mapping[str, Any]) -> Read | None:
    """The mask with its report and history, None if it is not there or was made under another key."""
    mask, course = load_map(folder, name, f"mask {own}", key=key, volume=True), _course(folder, name, own)
    if mask is None or not course.exists():
        return None
    try:
        known = read_json(course)
        if known["key"] != json.loads(json.dumps(dict(key))):
            return None
        return mask, known["report"], pd.DataFrame(known["history"])
    except (OSError, ValueError, KeyError) as error:
        tell_made_again(course, error)
        return None


def _write(folder: Path, name: str, own: str, key: Mapping[str, Any], read: Read, affine: np.ndarray) -> None:
    mask, report, history = read
    plain = {
        column: value.item() if isinstance(value, np.generic) else value for column, value in report.items()
    }
    course = {"key": dict(key), "report": plain, "history": history.to_dict("list")}
    write_json(_course(folder, name, own), course)
    save_map(folder, name, f"mask {own}", mask, key=key, affine=affine)


def _together(found: Mapping[str, Read]) -> GroupMasks:
    reports = [{"mask": own, **report} for own, (_, report, _) in found.items()]
    histories = [history.assign(mask=own) for own, (_, _, history) in found.items()]
    return GroupMasks(
        {own: mask for own, (mask, _, _) in found.items()},
        pd.DataFrame(reports).drop(columns=["setting", "group"]).set_index("mask"),
        pd.concat(histories, ignore_index=True),
    )
