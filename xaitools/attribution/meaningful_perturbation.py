"""Meaningful perturbation (Fong and Vedaldi 2017): the smallest smooth part of an image that has to be hidden."""

from collections.abc import Mapping

import torch
from torch import Tensor

from xaitools.attribution._masking import Judge, Stopping, optimise
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan
from xaitools.attribution.deletions import DELETIONS, Deletion
from xaitools.attribution.integrated_gradients import Baseline, check_baseline, start_of
from xaitools.attribution.mask_settings import MaskSettings
from xaitools.attribution.registry import Option, Setting, method
from xaitools.checks import check_choice
from xaitools.errors import MethodError
from xaitools.models.network import Network


def explainable(network: Network) -> Tensor:
    """The gradients of the network's example, or its refusal."""
    return network.gradients(network.example, network.first_class)


@method(
    "optimisation",
    label=lambda option: f"MP {option}",
    idea="what is the least that has to be hidden for the network to change its mind?",
    equation=r"\min_m p(m \odot x + (1 - m) \odot \tilde{x}) + \lambda \sum (1 - m) + \mu \sum |\nabla m|^\beta",
    use="To ask what is the least that has to change for another answer; for one image or a group of them.",
    failures=(
        "The mask depends on the settings, and another training of the network gives another mask "
        "(Thibeau-Sutre et al. 2020, the study `ad_mask`).",
        "A mask can fool the network as an adversarial example does; a coarse and smooth mask does so less.",
        "What replaces hidden parts decides: blur hides edges, not brightness.",
    ),
    reference="Fong and Vedaldi 2017, arXiv:1704.03296, equations 3 to 5.",
    option=Option("blur", f"what is hidden becomes: {', '.join(DELETIONS)}", lambda text: {"deletion": text}),
    check=explainable,
)
def meaningful_perturbation(
    setting: Setting,
    *,
    deletion: str = "blur",
    baselines: Mapping[str, Baseline] | None = None,
    sigma: float | None = None,
    l1: float = 1e-4,
    l2: float = 1e-2,
    beta1: float = 1.0,
    beta2: float = 3.0,
    reduction: str = "sum",
    coarse: int = 8,
    iterations: int = 300,
    learning_rate: float = 0.1,
    jitter: int = 0,
    start: str | Tensor = "zeros",
    score: str | None = None,
) -> Plan:
    """How much of each voxel a mask hides that was optimised to make the target's score small.

    Penalties and steps are the authors'; they shift the image by 4 pixels in each step besides, after which no mask is
    the one that was judged. Here the best mask seen is returned. All is hidden at first, since a network that is very
    sure of an image has no slope there, and would leave the mask as it is. `xaitools.attribution.optimise_masks` gives
    more: masks of groups, several settings at once, and a report on how the optimisation went.

    Parameters
    ----------
    deletion, sigma
        What hidden voxels become, and the blur in voxels, as in `xaitools.attribution.deletions.delete`.
    baselines
        More deletions by name: numbers, one image (channel, *spatial), or one for each image.
    l1, l2, beta1, beta2, reduction, coarse, learning_rate, jitter, start
        As in `xaitools.attribution.MaskSettings`.
    iterations
        Steps of the optimisation at most.
    score
        What becomes small, as in `optimise_masks`. None for the target's probability, or, where the network has one
        output or sums one over a region, "share" of the output's fall.

    Returns
    -------
    Tensor
        1 - mask, from 0 (kept) to 1 (hidden). The same in each channel.

    Raises
    ------
    MethodError, ParameterError
        If the deletion, the score or a setting is not known or out of its range.
    ShapeError, DataError
        If a baseline does not fit the images, or is not finite.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    settings = MaskSettings(l1, l2, beta1, beta2, reduction, coarse, iterations, learning_rate, jitter, start)
    return masks_as_maps(setting, settings, deletion, baselines, sigma, score)


def masks_as_maps(
    setting: Setting,
    settings: MaskSettings,
    deletion: str,
    baselines: Mapping[str, Baseline] | None,
    sigma: float | None,
    score: str | None,
) -> Plan:
    """Maps that are what one optimised mask an image hides."""
    known = dict(baselines or {})
    check_choice(MethodError, deletion=(deletion, [*DELETIONS, *known]))
    if deletion in known:
        check_baseline(known[deletion], setting.images)

    def run(batch: Batch) -> Tensor:
        own = {}
        if deletion in known:
            starts = [
                start_of(known[deletion], row, k) for row, k in zip(batch.points, batch.owners, strict=True)
            ]
            own = {deletion: torch.stack(starts)}
        made = Deletion(batch.points, deletion, own, batch.keys, sigma)
        judge = Judge(
            setting.network, made, batch.target, score or _score(setting.network), setting.batch_size
        )
        each = list(torch.arange(len(batch.points), device=batch.points.device).split(1))
        found = optimise(judge, [settings] * len(each), each, Stopping(), batch.tell)
        return (1 - found.masks)[:, None].expand(batch.points.shape).clone()

    return Plan(Passes(setting.name, run, units=settings.steps + 1), {"image": AT_THE_IMAGE})


def _score(network: Network) -> str:
    """Classes have probabilities, but not sums over a region, which would be 0 or 1."""
    from xaitools.attribution.segmentation import RegionScore

    return "share" if network.n_outputs == 1 or isinstance(network.model, RegionScore) else "probability"
