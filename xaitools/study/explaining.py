"""Maps of many images, on disk as they come, so that a run that was stopped goes on where it was."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import Tensor, nn
from tqdm.auto import tqdm

from xaitools.attribution import attribute, explained_layer
from xaitools.data import Samples, Volumes
from xaitools.maps import load_or_compute
from xaitools.models import Network, fingerprint

Found = dict[str, Float32[np.ndarray, "*spatial"]]


def explain(
    model: nn.Module, samples: Samples, methods: Sequence[str], folder: Path, **options: Any
) -> tuple[dict[str, Float32[np.ndarray, "n 1 *spatial"]], dict[str, Exception]]:
    """Maps of all samples, from `folder` where an earlier run left them.

    Parameters
    ----------
    model, samples, methods, folder, **options
        As for :func:`explain_each`.

    Returns
    -------
    maps
        By method, in the order of `methods`, ``(n, 1, *spatial)``.
    failed
        The error of each method that cannot explain this network or one of the samples; it has no maps.

    Raises
    ------
    Exception
        If all methods fail: the error of the first.
    """
    failed: dict[str, Exception] = {}
    each = list(explain_each(model, samples, methods, folder, failed=failed, **options))
    names = [name for name in dict.fromkeys(methods) if name not in failed]
    return {name: np.stack([found[name] for found in each])[:, None] for name in names}, failed


def explain_each(
    model: nn.Module,
    samples: Samples | Volumes,
    methods: Sequence[str],
    folder: Path,
    *,
    target: int | None = None,
    references: Samples | Volumes | None = None,
    key: Mapping[str, Any] | None = None,
    failed: dict[str, Exception] | None = None,
    what: str = "image",
    progress: bool = True,
    **settings: Any,
) -> Iterator[Found]:
    """Maps of one sample after the other, so that no more than one has to fit into memory.

    Sidecars of Grad-CAM and its relatives name the `layer` that was looked at, the default one too.

    Parameters
    ----------
    model
        Network to explain.
    samples
        What to explain; maps of volumes are written with the affine.
    methods
        Names of the maps.
    folder
        Where maps are written as they come, and taken from if they were made under the same key.
    target
        Class to explain; None for the single output of a regression.
    references
        Samples from which expected gradients draws its baselines.
    key
        What the maps depend on beyond weights, target, image, references and settings; or in place of one of them.
    failed
        Gets the error of each method that fails; it is not tried on the samples that follow.
    what
        What a sample is called beside the progress bar.
    **settings
        Of `xaitools.attribution.attribute`, plain values.

    Yields
    ------
    dict
        Maps ``(*spatial)`` of the next sample by method.

    Raises
    ------
    Exception
        If all methods fail: the error of the first.
    """
    failed = {} if failed is None else failed
    shared: dict[str, Any] = {"weights": fingerprint(model), "target": target, **settings}
    references_ = {} if references is None else {"references": references.images}
    if references is not None:
        shared["references"] = references.fingerprint()
    prepared: list[Network] = []  # when the first map has to be made

    def compute(missing: list[str], image: Tensor) -> Found:
        if not prepared:
            prepared.append(Network(model, image, settings.get("precision", "float32")))
        maps = attribute(
            prepared[0], image, target, missing, on_error="keep", progress=False, **settings, **references_
        )
        failed.update(maps.errors)
        return {name: value[0, 0].numpy() for name, value in maps.items()}

    def facts(method: str) -> dict[str, str]:
        layer = explained_layer(prepared[0], method, settings.get("options"))
        return {"layer": layer} if layer else {}

    for i in tqdm(range(len(samples)), desc="explaining", unit=what, disable=not progress):
        wanted = [name for name in methods if name not in failed]
        own_key = {**shared, "image": samples[[i]].fingerprint(), **(key or {})}
        affine = getattr(samples, "affine", None)
        make = partial(compute, image=samples.images[[i]])
        found = load_or_compute(
            folder, samples.names[i], wanted, make, key=own_key, affine=affine, facts=facts
        )
        if not found:
            raise next(iter(failed.values()))
        yield found
